"""The command `wsbundle-client`: send, listen, presence and health."""

import argparse
import asyncio
import codecs
import concurrent.futures
import difflib
import http.client
import io
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from wsbundle_client.client import TIMEOUT_S, Client, Token
from wsbundle_client.errors import ClientError, GoneError, RequestError
from wsbundle_client.losses import HINTS, why_unreachable
from wsbundle_client.messages import Event, Message
from wsbundle_client.wire import MAX_UUID_LENGTH

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# More than any server of ours says.
MAX_HEALTH_BYTES = 65_536


class OutputError(Exception):
    """Standard output takes no more."""


def one_line(text: str) -> str:
    """A received text without what would move a terminal's cursor or break the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(message: Message) -> str:
    """A message in one line of JSON, with its numbers as the sender wrote them."""
    about = {"recipient_uuid": message.recipient_uuid, "group": message.group}
    parts = [f'"sender_uuid": {json.dumps(message.sender_uuid, ensure_ascii=False)}', f'"message": {message.text}']
    parts += [f'"{name}": {json.dumps(of, ensure_ascii=False)}' for name, of in about.items() if of is not None]
    # A character that does not print is between values, where it means nothing, or in a string, where it is escaped.
    text = re.sub(r"[\t\n\r]", " ", ", ".join(parts))
    return "{" + "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "}"


def without_password(url: str) -> str:
    """A URL as it may be shown: without user and password."""
    return re.sub("//[^/?#]*@", "//", url)


def health_url(url: str) -> str:
    """The URL of the health of a server at a WebSocket URL."""
    parts = urlsplit(without_password(url))
    return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, "/health", "", ""))


def _escape(error: UnicodeError) -> tuple[str, int]:
    """A character that standard output cannot show, as JSON escapes it."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        raise OutputError(error.strerror) from error


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def send(url: str, token: Token, recipient: str, message: str, wait: str) -> int:
    """Send one message, and wait until it is accepted or delivered."""

    kept = ""

    async def send_it() -> str:
        nonlocal kept
        async with Client(url, token=token, reconnect=False) as client:
            sent = await client.send(recipient, message, ack=wait)
            kept = "; it waits in the mailbox of the recipient" if sent.stored else ""
            if wait == "accepted":
                return wait
            outcome = await sent.outcome()
            # Where no receipt has come, only the connection was lost.
            return f"the connection was lost{kept}" if kept and not sent.outcomes else outcome

    try:
        outcome = await asyncio.wait_for(send_it(), TIMEOUT_S)
    except asyncio.TimeoutError:
        outcome = f"not {wait} within {TIMEOUT_S:.0f} s{kept}"
    except ClientError as error:
        outcome = str(error)
    if outcome != wait:
        _tell(f"{without_password(url)}: {one_line(outcome)}")
        return FAILED
    _print(f"{outcome.capitalize()}.")
    return DONE


async def listen(url: str, token: Token, uuid: str | None, groups: list[str], count: int | None) -> int:
    """Print what arrives, one line each, `count` messages or for ever; come back when the connection is lost."""

    def tell(event: Event) -> None:
        if event.kind == "connected":
            _tell(f"Connected as {one_line(event.uuid)}.")
        elif event.kind == "disconnected":
            _tell(f"{without_password(url)}: {one_line(event.reason)}; next try in {event.wait_s:.1f} s")
        else:
            _tell(f"{without_password(url)}: {one_line(event.reason)}")

    try:
        async with Client(url, uuid, token=token, on_event=tell) as client:
            for group in groups:
                await client.join(group)
            left = count
            async for message in client:
                _print(as_json(message))
                left = left and left - 1
                if left == 0:
                    await client.confirm()
                    break
    except GoneError:
        return FAILED  # reported as an event
    except RequestError as error:
        _tell(f"{without_password(url)}: {one_line(str(error))}")
        return FAILED
    return DONE


async def presence(url: str, token: Token, uuids: list[str]) -> int:
    """Print which of these addresses have an owner."""

    async def ask() -> set[str]:
        async with Client(url, token=token, reconnect=False) as client:
            return await client.presence(uuids)

    try:
        online = await asyncio.wait_for(ask(), TIMEOUT_S)
    except (ClientError, asyncio.TimeoutError) as error:
        _tell(f"{without_password(url)}: {one_line(str(error)) or f'no answer within {TIMEOUT_S:.0f} s'}")
        return FAILED
    for uuid in uuids:
        _print(f"{one_line(uuid)} {'online' if uuid in online else 'offline'}")
    return DONE


def _ask_for_health(url: str) -> str:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(health_url(url), timeout=TIMEOUT_S) as response:
        return str(response.read(MAX_HEALTH_BYTES).decode(errors="replace"))


async def health(url: str) -> int:
    """Print the server's health."""
    answer: concurrent.futures.Future[str] = concurrent.futures.Future()

    def ask() -> None:
        answer.set_running_or_notify_cancel()
        try:
            answer.set_result(_ask_for_health(url))
        except BaseException as error:
            answer.set_exception(error)

    # Its own timeout is for each byte: a server that goes on and on is left behind, with the thread.
    threading.Thread(target=ask, daemon=True).start()
    try:
        _print(one_line(await asyncio.wait_for(asyncio.wrap_future(answer), TIMEOUT_S)))
    except urllib.error.HTTPError as error:
        with error:
            hint = f": {HINTS[error.code]}" if error.code in HINTS else ""
            _tell(f"{health_url(url)}: HTTP {error.code}{hint}")
        return FAILED
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, BaseException) else error
        _tell(f"{health_url(url)}: {one_line(why_unreachable(reason, health_url(url)))}")
        return FAILED
    except (OSError, ValueError, http.client.HTTPException, asyncio.TimeoutError) as error:
        _tell(f"{health_url(url)}: {one_line(why_unreachable(error, health_url(url)))}")
        return FAILED
    return DONE


def websocket_url(text: str) -> str:
    """An argument that is the URL of a server."""
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


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of messages")
    return int(text)


def _token(file: str | None) -> Token:
    # Never an argument: every user of the host sees those. A file is read again whenever a fresh token is needed.
    if file is None:
        return os.environ.get("WEBSOCKET_TOKEN") or None

    def read() -> str:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError(f"{file}: is not text in UTF-8") from None

    return read


class _Parser(argparse.ArgumentParser):
    """An argument parser that says which command may have been meant by the first word, where that is none."""

    first_word = ""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            # Up to Python 3.12 argparse takes `--token=--` for that option with no value at all, and says nothing.
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        hint = ""
        if self.first_word:
            near = difflib.get_close_matches(self.first_word, _COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; the commands are {', '.join(_COMMANDS)}"
        super().error(message + hint)


_STARTED_AS = {"client.py": "python client.py", "__main__.py": "python -m wsbundle_client"}
# Each command: a summary in one line, a description, and the arguments of an example.
_COMMANDS = {
    "send": (
        "send one message",
        "Send one message to an address. MESSAGE is text, and arrives as a string. `UUID MESSAGE` alone does the same.",
        "alice hello --wait delivered",
    ),
    "listen": (
        "print what arrives",
        "Print each message that arrives as one line of JSON, until Ctrl-C. A lost connection is made again.",
        "--as alice --group office",
    ),
    "presence": (
        "say who is online",
        "Print each of these addresses and whether a client is connected under it: online or offline.",
        "alice bob",
    ),
    "health": (
        "print the server's health",
        "Print the server's health. nginx answers only the addresses in `nginx.health_from`.",
        "--url wss://ws.mycompany.org/",
    ),
}


def _parser(first_word: str = "") -> argparse.ArgumentParser:
    server = _Parser(add_help=False)
    server.add_argument(
        "--url",
        type=websocket_url,
        default=os.environ.get("WEBSOCKET_URL") or "ws://127.0.0.1:8765/",
        help="the server (default: WEBSOCKET_URL in the environment, or else ws://127.0.0.1:8765/)",
    )
    who = _Parser(add_help=False, parents=[server])
    who.add_argument(
        "--token-file", metavar="FILE", help="the file that holds the token (default: WEBSOCKET_TOKEN is the token)"
    )
    program = Path(sys.argv[0]).name
    parser = _Parser(
        prog=_STARTED_AS.get(program, program),
        description="Talk to the notification center. `UUID MESSAGE` alone is short for `send UUID MESSAGE`.",
        epilog="Exit codes: 0 done, 1 no connection, no answer or nobody there, 2 wrong usage. "
        "`COMMAND --help` explains one command.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    verbs = {
        name: subparsers.add_parser(
            name,
            parents=[server if name == "health" else who],
            help=summary,
            description=description,
            epilog=f"Example: {parser.prog} {name} {example}",
        )
        for name, (summary, description, example) in _COMMANDS.items()
    }
    sending, listening, asking, checking = verbs.values()
    parser.first_word = sending.first_word = first_word
    sending.add_argument("recipient", metavar="UUID", type=_uuid, help="the address of the recipient")
    sending.add_argument("message", metavar="MESSAGE", type=_text, help="the text")
    sending.add_argument(
        "--wait",
        choices=("accepted", "delivered"),
        default="accepted",
        help="until the server has it, or until the recipient has confirmed it (default: accepted)",
    )
    sending.set_defaults(act=lambda args, token: send(args.url, token, args.recipient, args.message, args.wait))
    listening.add_argument("--as", dest="uuid", metavar="UUID", type=_uuid, help="be reached under this UUID")
    listening.add_argument(
        "--group", metavar="GROUP", type=_uuid, action="append", default=[], help="join this group; repeatable"
    )
    listening.add_argument("--count", metavar="N", type=_count, help="end after this many messages")
    listening.set_defaults(act=lambda args, token: listen(args.url, token, args.uuid, args.group, args.count))
    asking.add_argument("uuids", metavar="UUID", type=_uuid, nargs="+", help="an address")
    asking.set_defaults(act=lambda args, token: presence(args.url, token, args.uuids))
    checking.set_defaults(act=lambda args, token: health(args.url), token_file=None)
    return parser


def _with_command(arguments: list[str]) -> tuple[list[str], str]:
    """The short form, `UUID MESSAGE`, spelt out; `--url` may come before it, and before a command.

    And its first word, which may be a command that was misspelt.
    """
    options = 2 if arguments[:1] == ["--url"] else 1 if "".join(arguments[:1]).startswith("--url=") else 0
    word = "".join(arguments[options : options + 1])
    if word in _COMMANDS:
        return [word, *arguments[:options], *arguments[options + 1 :]], ""
    if not arguments or arguments[0] in ("-h", "--help"):
        return arguments, ""
    return ["send", *arguments], word if not word.startswith("-") else ""


def _is_one_slip_from(command: str, word: str) -> bool:
    """Whether one letter is missing, added or wrong, or two are swapped."""
    for at in range(len(word)):
        meant, typed = command[at:], word[at:]
        swapped = typed[1::-1] + typed[2:]
        if command[:at] == word[:at] and (typed[1:] in (meant, meant[1:]) or typed == meant[1:] or swapped == meant):
            return True
    return word == command[:-1]


def main(arguments: list[str]) -> int:
    """Run one command; the result is the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("json", _escape)
        sys.stdout.reconfigure(errors="json")
    words, first_word = _with_command(arguments)
    parser = _parser(first_word)
    if any(_is_one_slip_from(command, first_word) for command in _COMMANDS):
        parser.error(f"{first_word} is not a command; to write to an address of this name: send {first_word} MESSAGE")
    args = parser.parse_args(words)
    command: Coroutine[None, None, int] = args.act(args, _token(args.token_file))
    try:
        return asyncio.run(command)
    except OutputError as error:
        if isinstance(error.__cause__, BrokenPipeError):  # the reader of our output has enough
            return DONE
        _tell(f"cannot write to standard output: {error}")
        return FAILED


def run() -> None:
    """The entry point."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
