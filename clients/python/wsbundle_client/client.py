"""A client of the notification center: a small asyncio library, and the command `python service/client.py`.

It needs nothing but the `websockets` library, so the file can be copied to wherever it is wanted.

    async with Client("ws://127.0.0.1:8765/", uuid="alice") as client:
        await client.send("bob", {"any": "JSON"})
        async for message in client:
            print(message.sender_uuid, message.message)

The client comes back by itself when the connection is lost, under the same address and into the same groups, and sends
again what was not answered. `client.js` is the same for browsers; tests/clients/client_behaviours.py holds both to it.
"""

import argparse
import asyncio
import codecs
import contextlib
import difflib
import http.client
import inspect
import io
import json
import os
import random
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

SUBPROTOCOL = Subprotocol("nc.v1")

TIMEOUT_S = 10.0
# Shorter, so that a command that waits no longer can say what it has waited for.
CONNECT_TIMEOUT_S = 8.0
# Full jitter: after a restart all clients come back, and must not come at the same moment.
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
# A connection that lasted this long was a good one. A shorter one may have been accepted only to be closed again.
STABLE_S = 30.0
# A silent service is asked for a sign of life after one ping interval, and given up after so many.
SILENT_PING_INTERVALS = 1.5
# How much of a token's life passes before a newer one is shown.
REFRESH_AT = 0.8
# How often the address may be in use after a lost connection, which the service takes for alive until it has looked.
TRIES_IN_USE = 5
MAX_INBOX = 10_000
# The longest message that a service can be told to take, and what is around it.
MAX_FRAME_BYTES = 17 * 1024 * 1024
MAX_UUID_LENGTH = 128
# As the service has them in `service.core.frames`.
MAX_ASKED_FOR = 100
# With these a service closes that does not take what it was sent: to send it again would end in the same way.
NOT_TAKEN = (1003, 1007, 1009)
LIMIT, BAD_REQUEST, TOKEN_EXPIRED, IN_USE, QUEUE_FULL = 106, 107, 109, 113, 115

# On Python 3.10 asyncio's timeout is an exception of its own.
_FAILURES = (OSError, WebSocketException, asyncio.TimeoutError)

Token = str | Callable[[], str | Awaitable[str]] | None


class ClientError(Exception):
    """Something that was asked for was not done."""


class RequestError(ClientError):
    """The answer is no. `code` is one of docs/protocol.md; `temporary`: the same may succeed later."""

    def __init__(self, code: int, reason: str, temporary: bool) -> None:
        self.code, self.reason, self.temporary = code, reason, temporary
        super().__init__(f"{reason} (error {code})")


class GoneError(ClientError):
    """The client has no connection and will not come back; the message says why."""


class Message(NamedTuple):
    """What somebody said to the client, or to the `group` that it is in.

    `text` is the message as JSON, to the letter: numbers have lost nothing there.
    """

    sender_uuid: str
    message: Any
    recipient_uuid: str | None
    group: str | None
    text: str = ""


class Event(NamedTuple):
    """Something has changed. `kind` is one of

    - `connected`: the service has taken the client in as `uuid`
    - `disconnected`, for this `reason`: the next try is in `wait_s` seconds
    - `gone`, for this `reason`: there is no next try
    - `presence`: the watched address `uuid` has got an owner, or lost it; see `online`
    - `refused`, for this `reason`: after a reconnect the service has refused a group or a watch that it had granted
    - `dropped`: a message was thrown away, one of `uuid` if the application takes none, or for this `reason`
    """

    kind: str
    uuid: str = ""
    reason: str = ""
    wait_s: float = 0.0
    online: bool = False


class Sent:
    """A message that the service has accepted, for `online` recipients."""

    def __init__(self) -> None:
        self.online = 0
        self.outcomes: dict[str, str] = {}
        """By recipient, `delivered` or `lost`, as far as it is known; with `ack="delivered"` only."""
        self._receipts: int | None = None
        self._complete = asyncio.Event()

    async def outcome(self) -> str:
        """Wait for the receipts: `delivered` when all recipients have confirmed, and else `lost`.

        `lost` means that it may have arrived or not: a recipient has gone, or cannot confirm, or we were disconnected.
        """
        await self._complete.wait()
        delivered = [outcome for outcome in self.outcomes.values() if outcome == "delivered"]
        return "delivered" if len(delivered) == self.online else "lost"

    def _accept(self, online: int, receipts: int | None) -> None:
        self.online, self._receipts = online, receipts
        self._look()

    def _note(self, recipient: str, outcome: str) -> None:
        self.outcomes[recipient] = outcome
        self._look()

    def _look(self) -> None:
        if self._receipts is not None and len(self.outcomes) >= self._receipts:
            self._complete.set()

    def _give_up(self) -> None:
        if self._receipts is not None:  # or else it is sent again
            self._complete.set()


class Backoff:
    """How long to wait before the next try."""

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        self._random_share = random_share
        self._ceiling_s = BACKOFF_BASE_S

    def after(self, connected_s: float, at_once: bool = False) -> float:
        """The wait, in seconds, after a connection that lasted `connected_s`; 0 when it was never there.

        `at_once`: the service has asked for no wait. It is obeyed once, or both could go round and round.
        """
        if connected_s >= STABLE_S:
            self._ceiling_s = BACKOFF_BASE_S
        obeyed = at_once and self._ceiling_s == BACKOFF_BASE_S
        wait = 0.0 if obeyed else self._random_share() * self._ceiling_s
        self._ceiling_s = min(BACKOFF_CAP_S, self._ceiling_s * 2)
        return wait


class _Lost(Exception):
    """There is no connection, or soon none. What follows: nothing, if it would be lost again (`final`); or a next try,
    `at_once`, after exactly `told_s`, or after the back-off and `least_s`. `is_not_taken`: what was sent last is the
    cause.
    """

    def __init__(
        self,
        reason: str,
        final: bool = False,
        at_once: bool = False,
        told_s: float | None = None,
        least_s: float = 0.0,
        is_not_taken: bool = False,
    ) -> None:
        self.reason, self.final, self.at_once, self.told_s, self.least_s = reason, final, at_once, told_s, least_s
        self.is_not_taken = is_not_taken
        super().__init__(reason)


def _closed(error: ConnectionClosed) -> _Lost:
    """The three ranges of service/core/close_codes.py."""
    code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
    return _Lost(
        f"closed with {code} {reason}".rstrip(),
        final=4000 <= code < 4100,
        at_once=4200 <= code < 4300,
        is_not_taken=code in NOT_TAKEN,
    )


def _refused(refusal: InvalidStatus) -> _Lost:
    status, retry_after = refusal.response.status_code, refusal.response.headers.get("Retry-After", "")
    least_s = float(retry_after) if retry_after.isdecimal() else 0.0
    hint = f": {_HINTS[status]}" if status in _HINTS else ""
    return _Lost(f"refused with HTTP {status}{hint}", final=status in (401, 403), least_s=least_s)


_HINTS = {
    308: "the server wants TLS; use wss://",
    401: "a valid token is needed; give one with --token-file or WEBSOCKET_TOKEN",
    403: "this origin or address may not connect; see `origins` and `nginx.health_from` of the server",
    404: "no notification center is there; look at the path, which is /",
    429: "too many connections of this address",
    502: "nginx is there, but the service is not; look at it with `make status`",
    503: "the service is full or about to stop",
}


def why_unreachable(error: BaseException, url: str) -> str:
    """Why there is no connection, and what to do about it."""
    parts = urlsplit(url)
    host = parts.hostname
    port = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
    if isinstance(error, ConnectionRefusedError) or "Multiple exceptions" in str(error):
        return f"nothing listens on {host} port {port}; is it running? `make run` starts it here"
    if isinstance(error, socket.gaierror):
        return f"the host {host} is not known; look at its name, and at the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {host} is not accepted: {error.verify_message}; renew it, or use the name it is for"
    if isinstance(error, ssl.SSLError):
        return f"{host} does not speak TLS on port {port}; use ws:// or http://, or the port of wss://"
    if isinstance(error, asyncio.TimeoutError):
        return f"{host} has not answered on port {port} in time; look at the address, and at firewalls"
    if isinstance(error, InvalidMessage | http.client.HTTPException):
        return f"{host} does not speak HTTP on port {port}; with TLS use wss://"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or "the connection was lost"
        return f"{host} cannot be reached on port {port}: {reason}; look at the address, and at the network"
    return str(error) or type(error).__name__


def encode(frame: dict[str, Any]) -> bytes:
    """A frame as it goes over the wire.

    Raises:
        ValueError: it cannot be written as JSON.
    """
    dumps = partial(json.dumps, frame, allow_nan=False, separators=(",", ":"))
    try:
        return dumps(ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can stand for
        return dumps().encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def decode(text: str | bytes) -> dict[str, Any]:
    """A frame as it came over the wire.

    Raises:
        ValueError: it is not an object of JSON.
        RecursionError: it is nested too deep.
    """
    frame: dict[str, Any] = json.loads(text, parse_int=_integer)
    if not isinstance(frame, dict):
        raise ValueError("not an object")
    return frame


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python refuses to read more than some thousands of digits
        return float(digits)


_space = re.compile(r"\s*")
_member = re.compile(r'[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_value = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def spelled(text: str, name: str) -> str:
    """How the value of a key is spelled in an object of JSON."""
    found, at = "", text.index("{")
    while member := _member.match(text, at):
        _, end = _value(text, member.end())
        if json.loads(member[1]) == name:
            found = text[member.end() : end]
        at = end + len(_space.match(text, end)[0])  # type: ignore[index]
    return found


class _Link:
    """One connection, from the answer to its hello to its end."""

    def __init__(self, socket: ClientConnection, server_time: float, ok: dict[str, Any], second: float) -> None:
        self.socket = socket
        self._ping_s = ok["ping_ms"] / 1000 * second
        self.message_size: int = ok["limits"]["message_size"]
        self.uuid: str = ok["uuid"]
        self.expires: float | None = ok.get("expires")
        self.server_time = server_time
        self.since = time.monotonic()
        self.is_open = True
        self.lost: asyncio.Future[_Lost] = asyncio.get_running_loop().create_future()
        self.receipts: dict[int, Sent] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.is_silent = False
        self._timer: asyncio.TimerHandle | None = None

    async def next_frame(self) -> str | bytes:
        """A silent service is asked for a sign of life, and given up if it gives none."""
        self._after(self._ping_s, self._ask_for_a_sign_of_life)
        return await self.socket.recv()

    def _ask_for_a_sign_of_life(self) -> None:
        self._ping = asyncio.create_task(self.say(encode({"type": "ping"})))
        self._after(self._ping_s * (SILENT_PING_INTERVALS - 1), self._give_up)

    def _give_up(self) -> None:
        self.is_silent = True
        self.socket.transport.abort()

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, act)

    def end(self) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        self.socket.transport.abort()
        for sent in self.receipts.values():
            sent._give_up()
        for task in self.tasks:
            task.cancel()

    def forget_if_complete(self, number: int) -> None:
        if (sent := self.receipts.get(number)) and sent._complete.is_set():
            del self.receipts[number]

    async def say(self, text: bytes) -> None:
        # What a lost connection does not take is kept by the client, or no longer matters.
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(text, text=True)


class _Request:
    """A question, its answer, what follows from it, and the connection that it was last asked on."""

    def __init__(self, text: bytes, on_ok: Callable[[dict[str, Any]], object], sent: Sent | None, kept: bool) -> None:
        self.text, self.on_ok, self.sent, self.is_kept = text, on_ok, sent, kept
        self.link: _Link | None = None
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()


class Client:
    """A client that stays connected. Use it as an asynchronous context manager; entering waits for the connection.

    `uuid` is the address; left out, the service draws one. `token` may be a function,
    asynchronous or not, that fetches a fresh one whenever one is needed. `on_event` is called with every change of
    state. `max_kept` bounds what waits for an answer. `reconnect=False`: the first loss is the last.

    What had no answer when the connection was lost is sent again: a recipient may get it twice, but not never.

    Raises:
        GoneError: by every method, and by iteration, when the client has given up.
    """

    def __init__(
        self,
        url: str,
        uuid: str | None = None,
        *,
        token: Token = None,
        on_event: Callable[[Event], object] = lambda event: None,
        max_kept: int = 1000,
        reconnect: bool = True,
        second: float = 1.0,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self.uuid = uuid
        self._url, self._token, self._emit = url, token, on_event
        self._max_kept, self._reconnect = max_kept, reconnect
        # How long a second lasts, and what is random: for tests, which do not wait.
        self._second, self._backoff = second, Backoff(random_share)
        self._last_id = 0
        self._requests: dict[int, _Request] = {}
        self._inbox: asyncio.Queue[tuple[Message, _Link, int | None] | None] = asyncio.Queue()
        self._taken: tuple[_Link | None, int | None] = (None, None)
        self._groups: dict[str, None] = {}
        self._watched: dict[str, bool] = {}
        self._link: _Link | None = None
        self._resume: str | None = None
        self._in_use = 0
        self._gone: GoneError | None = None
        self._is_closed = False
        self._entered: asyncio.Future[None]
        self._runner: asyncio.Task[None]
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_try = 0.0

    async def __aenter__(self) -> "Client":
        self._entered = asyncio.get_running_loop().create_future()
        self._runner = asyncio.create_task(self._run())
        try:
            await self._entered
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave. Iteration ends, and what has no answer yet never gets one."""
        self._is_closed = True
        self._give_up(GoneError("the client is closed"))
        self._runner.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.socket.close()
        for task in (running := [self._runner, *self._tasks]):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # What the application asks for

    async def send(self, to: str, message: Any, *, ack: str = "accepted") -> Sent:
        """Say something to an address; returns when it has left the service for the recipient.

            sent = await client.send("bob", "hello", ack="delivered")
            if await sent.outcome() == "lost":
                ...

        Raises:
            RequestError: also when nobody has this address, or (error 116) whoever had it was lost meanwhile.
        """
        return await self._send(message, ack, recipient_uuid=to)

    async def send_to_group(self, group: str, message: Any, *, ack: str = "accepted") -> Sent:
        """The same to all members of a group but this client; there may be none."""
        return await self._send(message, ack, group=group)

    async def join(self, group: str) -> None:
        """Become a member of a group, also after every reconnect."""
        await self._request("join", lambda ok: self._groups.update({group: None}), group=group)

    async def leave(self, group: str) -> None:
        """The inverse of `join`."""
        await self._request("leave", lambda ok: self._groups.pop(group, None), group=group)

    async def presence(self, uuids: Iterable[str], watch: bool | None = None) -> set[str]:
        """Which of these addresses have an owner now; `watch=True`: tell every change from now on as an event."""
        asked = list(uuids)
        ok = await self._request("presence", partial(self._learn, asked, watch), uuids=asked, watch=watch)
        return set(ok["online"])

    def __aiter__(self) -> "Client":
        return self

    async def __anext__(self) -> Message:
        """The next message. Asking for it confirms the one before."""
        await self.confirm()
        item = await self._inbox.get()
        if item is None:
            self._inbox.put_nowait(None)  # for whoever asks again
            if self._is_closed or self._gone is None:
                raise StopAsyncIteration
            raise self._gone
        message, link, key = item
        self._taken = link, key
        return message

    async def confirm(self) -> None:
        """Confirm the last message, if its sender wants to know. Iteration does so by itself."""
        (link, key), self._taken = self._taken, (None, None)
        if link is not None and key is not None:
            await link.say(encode({"type": "ack", "key": key}))

    async def _send(self, message: Any, ack: str, **to: str) -> Sent:
        sent = Sent()
        await self._request(
            "send",
            lambda ok: sent._accept(ok["online"], ok.get("receipts", 0)),
            sent=sent if ack == "delivered" else None,
            **{"message": message, "ack": ack, **to},
        )
        return sent

    async def _request(
        self,
        kind: str,
        on_ok: Callable[[dict[str, Any]], object],
        link: _Link | None = None,
        sent: Sent | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Ask, and wait for the answer. With a `link` the question is for that connection, and dies with it."""
        if self._gone is not None:
            raise self._gone
        if link is None and len(self._requests) >= self._max_kept:
            raise RequestError(QUEUE_FULL, f"{len(self._requests)} requests wait for an answer", temporary=True)
        number = self._last_id + 1
        request = _Request(encode({"type": kind, "id": number, **fields}), on_ok, sent, kept=link is None)
        self._last_id = number
        self._requests[number] = request
        try:
            via = link or self._link
            if via is not None:
                await self._transmit(number, request, via)
            return await request.answer
        finally:
            del self._requests[number]

    async def _transmit(self, number: int, request: _Request, link: _Link) -> None:
        request.link = link
        if request.answer.done():
            return  # given up by whoever asked
        if len(request.text) > link.message_size:
            # The service would close the connection, and on the next one as well.
            reason = f"{len(request.text)} bytes; the service takes {link.message_size}"
            request.answer.set_exception(RequestError(LIMIT, reason, temporary=False))
            return
        if request.sent is not None:
            link.receipts[number] = request.sent
        await link.say(request.text)

    # The connection

    async def _run(self) -> None:
        try:
            await self._stay_connected()
        except _Lost as lost:
            self._give_up(GoneError(lost.reason))
            self._emit(Event("gone", reason=lost.reason))
        except Exception as error:  # of a function that the application gave us
            gone = GoneError(f"{type(error).__name__}: {error}")
            gone.__cause__ = error
            self._give_up(gone)

    def _give_up(self, gone: GoneError) -> None:
        self._gone = self._gone or gone
        for request in self._requests.values():
            if not request.answer.done():
                request.answer.set_exception(gone)
        if not self._entered.done():
            self._entered.set_exception(gone)
        self._inbox.put_nowait(None)

    async def _stay_connected(self) -> None:
        """Goes on until the connection is lost for good, which is raised."""
        while True:
            lasted_s = 0.0
            try:
                link = await self._open()
                lost = await link.lost
                lasted_s = (time.monotonic() - link.since) / self._second
            except _Lost as error:
                lost = error
            if lost.final or not self._reconnect:
                raise lost
            wait_s = max(lost.least_s, self._backoff.after(lasted_s, lost.at_once))
            if lost.told_s is not None:
                wait_s = lost.told_s
            self._next_try = time.monotonic() + wait_s * self._second
            if self._link is None:
                self._emit(Event("disconnected", reason=lost.reason, wait_s=wait_s))
            await asyncio.sleep(wait_s * self._second)

    async def _open(self) -> _Link:
        """Connect, say hello, and send again what the last connection left unanswered."""
        token = await self._fetch_token()
        socket = await self._connect()
        # The old one, after a goaway, has served until here. From now on what is sent is kept for the new one.
        old, self._link = self._link, None
        # Not wait_for: before Python 3.12 it could swallow that we are cancelled.
        timeout = asyncio.get_running_loop().call_later(TIMEOUT_S, socket.transport.abort)
        try:
            link = await self._greet(socket, token)
        except BaseException as error:
            socket.transport.abort()
            if isinstance(error, ConnectionClosed):
                raise _closed(error) from None
            if isinstance(error, ValueError | KeyError | TypeError):
                raise _Lost(f"not a hello of {SUBPROTOCOL}: {type(error).__name__} {error}") from None
            raise
        finally:
            timeout.cancel()
            if old is not None:
                self._start(old.socket.close())
        self._start(self._read(link))
        while unsent := [(n, r) for n, r in self._requests.items() if r.is_kept and r.link is not link]:
            for number, request in unsent:
                await self._transmit(number, request, link)
        link.tasks += [self._start(self._restore(link)), self._start(self._refresh(link))]
        if link.is_open:
            self._link = link
        self._emit(Event("connected", uuid=link.uuid))
        if not self._entered.done():
            self._entered.set_result(None)
        return link

    async def _fetch_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, OSError) and error.filename:
                reason = f"{error.filename}: {error.strerror}"
            raise _Lost(f"no token: {reason}") from error

    async def _connect(self) -> ClientConnection:
        try:
            # Straight to the server: an http_proxy in the environment is not meant for 127.0.0.1.
            socket = await connect(
                self._url,
                subprotocols=[SUBPROTOCOL],
                proxy=None,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                ping_interval=None,  # signs of life are frames, here as in a browser
                open_timeout=CONNECT_TIMEOUT_S,
                close_timeout=TIMEOUT_S,
            )
        except InvalidStatus as refusal:
            raise _refused(refusal) from None
        except _FAILURES as error:
            raise _Lost(why_unreachable(error, self._url)) from error
        if socket.subprotocol != SUBPROTOCOL:
            socket.transport.abort()
            raise _Lost(f"the server does not speak {SUBPROTOCOL}", final=True)
        return socket

    async def _greet(self, socket: ClientConnection, token: str | None) -> _Link:
        server_time: float = json.loads(await socket.recv())["server_time"]
        about = {"uuid": self.uuid, "token": token, "resume": self._resume}
        hello = {"type": "hello", "id": 0, **{name: value for name, value in about.items() if value is not None}}
        await socket.send(encode(hello), text=True)
        while (answer := json.loads(await socket.recv()))["type"] not in ("ok", "error"):
            pass
        if answer["type"] == "error":
            raise self._turned_away(answer)
        self.uuid, self._resume, self._in_use = answer["uuid"], answer["resume"], 0
        return _Link(socket, server_time, answer, self._second)

    def _turned_away(self, error: dict[str, Any]) -> _Lost:
        final = not error["temporary"]
        if error["code"] == TOKEN_EXPIRED:
            final = not callable(self._token)
        elif error["code"] == IN_USE and self._resume is not None:
            self._in_use += 1
            final = self._in_use >= TRIES_IN_USE
        return _Lost(f"{error['reason']} (error {error['code']})", final)

    async def _refresh(self, link: _Link) -> None:
        expires = link.expires
        with contextlib.suppress(ClientError, _Lost):  # the service closes with 4200 when the old token has expired
            while expires is not None and callable(self._token):
                now = link.server_time + (time.monotonic() - link.since) / self._second
                await asyncio.sleep(max(1.0, (expires - now) * REFRESH_AT) * self._second)
                ok = await self._request("refresh", _nothing, link, token=await self._fetch_token())
                expires = ok["expires"]

    async def _restore(self, link: _Link) -> None:
        """Tell a new connection what an earlier one knew."""
        for group in tuple(self._groups):
            if not await self._is_restored("join", _nothing, link, group=group):
                self._groups.pop(group, None)
        watched = tuple(self._watched)
        for start in range(0, len(watched), MAX_ASKED_FOR):
            some = watched[start : start + MAX_ASKED_FOR]
            await self._is_restored("presence", partial(self._learn, some, True), link, uuids=some, watch=True)

    async def _is_restored(self, kind: str, on_ok: Callable[[dict[str, Any]], object], link: _Link, **of: Any) -> bool:
        try:
            await self._request(kind, on_ok, link, **of)
        except RequestError as error:
            self._emit(Event("refused", reason=f"{kind} {of.get('group', '')}".rstrip() + f": {error}"))
            return False
        return True

    async def _read(self, link: _Link) -> None:
        """Hear what the service says until the connection ends."""
        lost = _Lost("the client is closed", final=True)
        try:
            while True:
                received = await link.next_frame()
                text = received if isinstance(received, str) else received.decode()
                try:
                    frame = decode(text)
                    spelling = spelled(text, "message") if frame["type"] == "msg" else ""
                except RecursionError:  # a stranger must not end our connection with it
                    self._emit(Event("dropped", reason="a message is nested too deep"))
                    continue
                self._heard(link, frame, spelling)
        except ConnectionClosed as error:
            lost = _Lost("silent for too long") if link.is_silent else _closed(error)
        except Exception as error:  # not a frame of nc.v1, or of a function that the application gave us
            lost = _Lost(f"{type(error).__name__}: {error}")
        finally:
            self._ended(link, lost)

    def _ended(self, link: _Link, lost: _Lost) -> None:
        if lost.is_not_taken:
            self._refuse_all(link, RequestError(BAD_REQUEST, lost.reason, temporary=False))
        link.end()
        is_current = self._link is link
        if is_current:
            self._link = None
        if not link.lost.done():
            link.lost.set_result(lost)
        elif is_current:  # it went before the time that its goaway told
            wait_s = max(0.0, self._next_try - time.monotonic()) / self._second
            self._emit(Event("disconnected", reason=lost.reason, wait_s=wait_s))

    def _heard(self, link: _Link, frame: dict[str, Any], spelling: str) -> None:
        kind = frame["type"]
        if kind == "msg":
            self._take(link, frame, spelling)
        elif kind in ("ok", "error"):
            self._answered(link, frame)
        elif kind in ("delivered", "lost"):
            if sent := link.receipts.get(frame["id"]):
                sent._note(frame["recipient_uuid"], kind)
                link.forget_if_complete(frame["id"])
        elif kind == "presence":
            if frame["uuid"] in self._watched:
                self._see(frame["uuid"], frame["state"] == "online")
        elif kind == "goaway" and not link.lost.done():
            told_s = min(frame["reconnect_in_ms"], frame["deadline_ms"]) / 1000
            link.lost.set_result(_Lost("the service goes away", told_s=told_s))

    def _take(self, link: _Link, frame: dict[str, Any], spelling: str) -> None:
        if self._inbox.qsize() >= MAX_INBOX:
            self._emit(Event("dropped", uuid=frame["sender_uuid"]))
            return
        who, to, group = frame["sender_uuid"], frame.get("recipient_uuid"), frame.get("group")
        message = Message(who, frame["message"], to, group, spelling)
        self._inbox.put_nowait((message, link, frame.get("key")))

    def _answered(self, link: _Link, frame: dict[str, Any]) -> None:
        if frame["type"] == "error" and not self._is_known(frame["id"]):
            reason = f"{frame['reason']}; the service does not say which request it means"
            self._refuse_all(link, RequestError(frame["code"], reason, frame["temporary"]))
            return
        request = self._requests.get(frame["id"])
        if request is None or request.link is not link or request.answer.done():
            return
        if frame["type"] == "ok":
            request.on_ok(frame)
            link.forget_if_complete(frame["id"])
            request.answer.set_result(frame)
        else:
            link.receipts.pop(frame["id"], None)
            request.answer.set_exception(RequestError(frame["code"], frame["reason"], frame["temporary"]))

    def _is_known(self, number: object) -> bool:
        """Whether a request ever had this id; it may have been answered."""
        return isinstance(number, int) and 0 <= number <= self._last_id

    def _refuse_all(self, link: _Link, error: RequestError) -> None:
        """One of those that have no answer is the cause: nobody is to wait for ever, or to send it again and again."""
        for number, request in self._requests.items():
            if request.link is link and not request.answer.done():
                link.receipts.pop(number, None)
                request.answer.set_exception(error)

    def _learn(self, asked: Iterable[str], watch: bool | None, ok: dict[str, Any]) -> None:
        # In the order of frames, not when whoever asked runs again: a change may follow at once.
        for uuid in asked:
            if watch is False:
                self._watched.pop(uuid, None)
            elif watch:
                self._see(uuid, uuid in ok["online"])

    def _see(self, uuid: str, online: bool) -> None:
        known, self._watched[uuid] = self._watched.get(uuid, online), online
        if known is not online:
            self._emit(Event("presence", uuid=uuid, online=online))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _nothing(ok: dict[str, Any]) -> None:
    """What follows from most answers."""


# The command

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class OutputError(Exception):
    """Standard output takes no more."""


def one_line(text: str) -> str:
    """A received text without what would move a terminal's cursor or break the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(message: Message) -> str:
    """A message in one line of JSON, in which its numbers stand as the sender has written them."""
    about = {"recipient_uuid": message.recipient_uuid, "group": message.group}
    parts = [f'"sender_uuid": {json.dumps(message.sender_uuid, ensure_ascii=False)}', f'"message": {message.text}']
    parts += [f'"{name}": {json.dumps(of, ensure_ascii=False)}' for name, of in about.items() if of is not None]
    # What does not print stands between the values, where it means nothing, or in a string, where an escape may be.
    text = re.sub(r"[\t\n\r]", " ", ", ".join(parts))
    return "{" + "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text) + "}"


def without_password(url: str) -> str:
    """A URL as it may be shown: without user and password."""
    return re.sub("//[^/?#]*@", "//", url)


def health_url(url: str) -> str:
    """Where the server at a WebSocket URL tells its health."""
    parts = urlsplit(without_password(url))
    return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, "/health", "", ""))


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What standard output has no character for, as JSON escapes it."""
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

    async def send_it() -> str:
        async with Client(url, token=token, reconnect=False) as client:
            sent = await client.send(recipient, message, ack=wait)
            return await sent.outcome() if wait == "delivered" else wait

    try:
        outcome = await asyncio.wait_for(send_it(), TIMEOUT_S)
    except asyncio.TimeoutError:
        outcome = f"not {wait} within {TIMEOUT_S:.0f} s"
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
        return FAILED  # told as an event
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


async def health(url: str) -> int:
    """Print the server's health."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(health_url(url), timeout=TIMEOUT_S) as response:
            _print(one_line(response.read().decode(errors="replace")))
    except urllib.error.HTTPError as error:
        with error:
            hint = f": {_HINTS[error.code]}" if error.code in _HINTS else ""
            _tell(f"{health_url(url)}: HTTP {error.code}{hint}")
        return FAILED
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, BaseException) else error
        _tell(f"{health_url(url)}: {one_line(why_unreachable(reason, health_url(url)))}")
        return FAILED
    except (OSError, ValueError, http.client.HTTPException) as error:
        _tell(f"{health_url(url)}: {one_line(why_unreachable(error, health_url(url)))}")
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


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of messages")
    return int(text)


def _token(file: str | None) -> Token:
    # Never an argument: every user of the host sees those. A file is read anew whenever a fresh token is wanted.
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

    def error(self, message: str) -> NoReturn:
        hint = ""
        if self.first_word:
            near = difflib.get_close_matches(self.first_word, _COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; the commands are {', '.join(_COMMANDS)}"
        super().error(message + hint)


# Each command: what it does in one line, what else should be known, and an example.
_COMMANDS = {
    "send": (
        "send one message",
        "Send one message to an address. MESSAGE is text, and arrives as a string. `UUID MESSAGE` alone does the same.",
        "python client.py send alice hello --wait delivered",
    ),
    "listen": (
        "print what arrives",
        "Print each message that arrives as one line of JSON, until Ctrl-C. A lost connection is made again.",
        "python client.py listen --as alice --group office",
    ),
    "presence": (
        "say who is online",
        "Print each of these addresses and whether a client is connected under it: online or offline.",
        "python client.py presence alice bob",
    ),
    "health": (
        "ask how the server is",
        "Print what the server says of its health. nginx answers only the addresses in `nginx.health_from`.",
        "python client.py health --url wss://ws.mycompany.org/",
    ),
}


def _parser(first_word: str = "") -> argparse.ArgumentParser:
    server = _Parser(add_help=False)
    server.add_argument(
        "--url",
        type=_url,
        default=os.environ.get("WEBSOCKET_URL") or "ws://127.0.0.1:8765/",
        help="the server (default: WEBSOCKET_URL in the environment, or else ws://127.0.0.1:8765/)",
    )
    who = _Parser(add_help=False, parents=[server])
    who.add_argument(
        "--token-file", metavar="FILE", help="the file that holds the token (default: WEBSOCKET_TOKEN is the token)"
    )
    parser = _Parser(
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
            epilog=f"Example: {example}",
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
    """The short form, `UUID MESSAGE`, spelt out; `--url` may stand before it, and before a command.

    And its first word, which may be a command that was misspelt.
    """
    options = 2 if arguments[:1] == ["--url"] else 1 if "".join(arguments[:1]).startswith("--url=") else 0
    word = "".join(arguments[options : options + 1])
    if word in _COMMANDS:
        return [word, *arguments[:options], *arguments[options + 1 :]], ""
    if not arguments or arguments[0] in ("-h", "--help"):
        return arguments, ""
    return ["send", *arguments], word if not word.startswith("-") else ""


def main(arguments: list[str]) -> int:
    """Run one command; the result is the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("json", _escape)
        sys.stdout.reconfigure(errors="json")
    words, first_word = _with_command(arguments)
    args = _parser(first_word).parse_args(words)
    command: Coroutine[None, None, int] = args.act(args, _token(args.token_file))
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
