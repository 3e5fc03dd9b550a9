"""A client for the command line: `python service/client.py UUID MESSAGE`, and `send`, `listen` and `health`.

It needs nothing but the `websockets` library, so the file can be copied to wherever it is wanted.
"""

import argparse
import asyncio
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.uri import parse_uri

_COMMANDS = ("send", "listen", "health")
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

TIMEOUT_S = 10.0
# Full jitter: after a restart all clients come back, and must not come at the same moment.
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
# A connection that lasted this long was a good one. A shorter one may have been accepted only to be closed again.
STABLE_S = 30.0
# The client has broken a rule, and would break it again.
POLICY_VIOLATION = 1008

# The message that registers its UUID for the sender, and the longest UUID that the server takes for one.
CONNECTED = "connected"
MAX_UUID_LENGTH = 128

# On Python 3.10 asyncio's timeout is an exception of its own.
_FAILURES = (OSError, WebSocketException, asyncio.TimeoutError)


class OutputError(Exception):
    """Standard output takes no more."""


class Backoff:
    """How long to wait before the next try."""

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        self._random_share = random_share
        self._ceiling_s = BACKOFF_BASE_S

    def after(self, connected_s: float) -> float:
        """The wait, in seconds, after a connection that lasted `connected_s`; 0 when it was never there."""
        if connected_s >= STABLE_S:
            self._ceiling_s = BACKOFF_BASE_S
        wait = self._random_share() * self._ceiling_s
        self._ceiling_s = min(BACKOFF_CAP_S, self._ceiling_s * 2)
        return wait


def envelope(recipient: str, message: str) -> str:
    """A message as it goes over the wire."""
    return json.dumps({"recipient_uuid": recipient, "message": message}, ensure_ascii=False)


def one_line(text: str) -> str:
    """A received text without what would move a terminal's cursor or break the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_password(url: str) -> str:
    """A URL as it may be shown: without user and password."""
    return re.sub("//[^/?#]*@", "//", url)


def health_url(url: str) -> str:
    """Where the server at a WebSocket URL tells its health."""
    parts = urlsplit(without_password(url))
    return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, "/health", "", ""))


def _connect(url: str) -> connect:
    # Straight to the server: an http_proxy in the environment is not meant for 127.0.0.1.
    return connect(url, proxy=None, compression=None, open_timeout=TIMEOUT_S, close_timeout=TIMEOUT_S)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        raise OutputError(error.strerror) from error


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def send(url: str, recipient: str, message: str) -> int:
    """Send one message."""
    try:
        async with _connect(url) as connection:
            await connection.send(envelope(recipient, message))
    except _FAILURES as error:
        _tell(f"{without_password(url)}: {error or 'timed out'}")
        return FAILED
    if connection.close_code != 1000:
        _tell(f"{without_password(url)}: closed with {connection.close_code} before the message was surely read")
        return FAILED
    _print(f"Sent. The server does not say whether anybody is {one_line(recipient)}.")
    return DONE


async def listen(url: str, uuid: str | None, count: int | None) -> int:
    """Print what arrives, one line each, `count` messages or for ever; come back when the connection is lost."""
    backoff, left = Backoff(), count
    while True:
        connected_at = None
        try:
            async with _connect(url) as connection:
                connected_at = time.monotonic()
                await _introduce(connection, uuid)
                async for text in connection:
                    _print(one_line(text if isinstance(text, str) else repr(text)))
                    left = left and left - 1
                    if left == 0:
                        return DONE
            why = f"closed with {connection.close_code}"
        except _FAILURES as error:
            why = str(error) or "timed out"
            if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code == POLICY_VIOLATION:
                _tell(f"{without_password(url)}: {why}")
                return FAILED
        wait = backoff.after(0 if connected_at is None else time.monotonic() - connected_at)
        _tell(f"{without_password(url)}: {why}; next try in {wait:.1f} s")
        await asyncio.sleep(wait)


async def _introduce(connection: ClientConnection, uuid: str | None) -> None:
    _tell(one_line(str(await connection.recv())))
    if uuid is not None:
        await connection.send(envelope(uuid, CONNECTED))


async def health(url: str) -> int:
    """Print the server's health."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(health_url(url), timeout=TIMEOUT_S) as response:
            _print(one_line(response.read().decode(errors="replace")))
    except (OSError, ValueError) as error:
        _tell(f"{health_url(url)}: {error}")
        return FAILED
    return DONE


def _url(text: str) -> str:
    try:
        parse_uri(text)
    except (InvalidURI, ValueError):
        raise argparse.ArgumentTypeError(
            f"{without_password(text)!a} is not a WebSocket URL, such as ws://127.0.0.1:8765/"
        ) from None
    return text


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8") from None
    return text


def _uuid(text: str) -> str:
    if not 1 <= len(text) <= MAX_UUID_LENGTH:
        raise argparse.ArgumentTypeError(f"a UUID of {len(text)} characters is dropped; use 1 to {MAX_UUID_LENGTH}")
    return _text(text)


def _message(text: str) -> str:
    if text == CONNECTED:
        raise argparse.ArgumentTypeError(
            f"{CONNECTED!r} would not reach the UUID but take it from whoever has it (docs/protocol.md); "
            "use another word, or `listen --as UUID` to be reached under it"
        )
    return _text(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of messages")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument(
        "--url",
        type=_url,
        default=os.environ.get("WEBSOCKET_URL") or "ws://127.0.0.1:8765/",
        help="the server; WEBSOCKET_URL in the environment, or else ws://127.0.0.1:8765/, when it is left out",
    )
    parser = argparse.ArgumentParser(
        description="Talk to the notification center. `UUID MESSAGE` alone is short for `send UUID MESSAGE`.",
        epilog="Exit codes: 0 done, 1 no connection or no answer, 2 wrong usage.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sending = commands.add_parser("send", parents=[server], help="send one message")
    sending.add_argument("recipient", metavar="UUID", type=_uuid)
    sending.add_argument("message", metavar="MESSAGE", type=_message)
    sending.set_defaults(act=lambda args: send(args.url, args.recipient, args.message))
    listening = commands.add_parser("listen", parents=[server], help="print what arrives")
    listening.add_argument("--as", dest="uuid", metavar="UUID", type=_uuid, help="be reached under this UUID")
    listening.add_argument("--count", metavar="N", type=_count, help="end after this many messages")
    listening.set_defaults(act=lambda args: listen(args.url, args.uuid, args.count))
    checking = commands.add_parser("health", parents=[server], help="ask how the server is")
    checking.set_defaults(act=lambda args: health(args.url))
    return parser


def _with_command(arguments: list[str]) -> list[str]:
    """The short form, `UUID MESSAGE`, spelt out; `--url` may stand before it, and before a command."""
    options = 2 if arguments[:1] == ["--url"] else 1 if "".join(arguments[:1]).startswith("--url=") else 0
    if arguments[options:] and arguments[options] in _COMMANDS:
        return [arguments[options], *arguments[:options], *arguments[options + 1 :]]
    return ["send", *arguments] if arguments and arguments[0] not in ("-h", "--help") else arguments


def main(arguments: list[str]) -> int:
    """Run one command; the result is the exit code."""
    args = _parser().parse_args(_with_command(arguments))
    command: Coroutine[None, None, int] = args.act(args)
    try:
        return asyncio.run(command)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # whoever read our output has enough
            return DONE
        _tell(f"cannot write to standard output: {error}")
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
