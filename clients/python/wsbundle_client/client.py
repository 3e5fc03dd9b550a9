"""A client that stays connected: under the same address, in the same groups, and with what it had asked for."""

import asyncio
import contextlib
import inspect
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from wsbundle_client.errors import ClientError, GoneError, RequestError
from wsbundle_client.link import Link, Request, unless_ended
from wsbundle_client.losses import LONGEST_S, Backoff, Lost, closed, refused, why_unreachable
from wsbundle_client.mailbox import Keeper, Mailbox
from wsbundle_client.messages import Event, Message, Sent
from wsbundle_client.wire import (
    BAD_REQUEST,
    IN_USE,
    LIMIT,
    MAX_ASKED_FOR,
    MAX_FRAME_BYTES,
    QUEUE_FULL,
    SUBPROTOCOL,
    TOKEN_EXPIRED,
    decode,
    encode,
    spelled,
)

TIMEOUT_S = 10.0
# Shorter, so that a command that waits no longer can say what it has waited for.
CONNECT_TIMEOUT_S = 8.0
# How much of a token's life passes before a newer one is shown.
REFRESH_AT = 0.8
# How often the address may be in use after a lost connection, which the service takes for alive until it has looked.
TRIES_IN_USE = 5
MAX_INBOX = 10_000

# On Python 3.10 asyncio's timeout is an exception of its own.
_FAILURES = (OSError, WebSocketException, asyncio.TimeoutError)

Token = str | Callable[[], str | Awaitable[str]] | None


class Client:
    """A client that stays connected. Use it as an asynchronous context manager; entering waits for the connection.

    `uuid` is the address; left out, the service draws one. `token` may be a function,
    asynchronous or not, that fetches a fresh one whenever one is needed. `on_event` is called with every change of
    state. With a `mailbox` the service keeps messages while the client is away, and each is handed over once, in order;
    `Memory()`, `File(path)` or an object with `load` and `save` says where the position is kept. `max_kept` bounds what
    waits for an answer. `reconnect=False`: the first loss is the last.

    What had no answer when the connection was lost is sent again: a recipient may get it twice, but not never.

    Raises:
        ValueError: a `mailbox` without a `uuid`.
        GoneError: by every method, and by iteration, when the client has given up.
    """

    def __init__(
        self,
        url: str,
        uuid: str | None = None,
        *,
        token: Token = None,
        on_event: Callable[[Event], object] = lambda event: None,
        mailbox: Keeper | None = None,
        max_kept: int = 1000,
        reconnect: bool = True,
        second: float = 1.0,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        if mailbox is not None and uuid is None:
            raise ValueError("a mailbox belongs to an address: give `uuid` as well")
        self.uuid = uuid
        self._is_named = uuid is not None
        self._url, self._token, self._emit = url, token, on_event
        self._max_kept, self._reconnect = max_kept, reconnect
        # How long a second lasts, and what is random: for tests, which do not wait.
        self._second, self._backoff = second, Backoff(random_share)
        self._mailbox = None if mailbox is None else Mailbox(mailbox)
        self._run_id = secrets.token_urlsafe(6)
        self._receipts: dict[int, Sent] = {}
        """Of messages in mailboxes: their receipts come whenever they come."""
        self._last_id = 0
        self._requests: dict[int, Request] = {}
        self._inbox: asyncio.Queue[tuple[Message, _Confirmation] | None] = asyncio.Queue()
        self._taken: _Confirmation | None = None
        self._groups: dict[str, None] = {}
        self._watched: dict[str, bool] = {}
        self._link: Link | None = None
        self._resume: str | None = None
        self._in_use = 0
        self._gone: GoneError | None = None
        self._is_closed = False
        self._entered: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_try = 0.0

    async def __aenter__(self) -> "Client":
        if self._gone is not None:
            raise self._gone
        self._entered = asyncio.get_running_loop().create_future()
        self._runner = self._start(self._run())
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
        if self._runner is not None:
            self._runner.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.socket.close()
        for task in (running := tuple(self._tasks)):
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
        message, self._taken = item
        return message

    async def confirm(self) -> None:
        """Confirm the last message, if its sender or the mailbox wants to know. Iteration does so by itself."""
        taken, self._taken = self._taken, None
        if taken is not None and taken.key is not None:
            await taken.link.say(encode({"type": "ack", "key": taken.key}))
        if taken is not None and taken.offset is not None:
            await self._handled(taken.epoch, taken.offset)

    async def _handled(self, epoch: str, offset: int) -> None:
        reached = None if self._mailbox is None else self._mailbox.handled(epoch, offset)
        if reached is not None and self._link is not None:
            await self._link.say(encode({"type": "ack", "offset": reached}))

    async def _send(self, message: Any, ack: str, **to: str) -> Sent:
        number = self._last_id + 1
        sent = Sent(self._spell(number))
        # What is sent again must not be stored again.
        once = {} if self._mailbox is None else {"dedup": sent.id}

        def accept(ok: dict[str, Any]) -> None:
            sent._accept(ok["online"], ok.get("receipts", 0), ok.get("stored", False))
            if sent.stored and ack == "delivered" and self._mailbox is not None and not sent._complete.is_set():
                self._receipts[number] = sent
                for link in filter(None, (self._requests[number].link,)):
                    link.receipts.pop(number, None)

        await self._request(
            "send", accept, sent=sent if ack == "delivered" else None, **{"message": message, "ack": ack, **to, **once}
        )
        return sent

    def _spell(self, number: int) -> int | str:
        """The id of a request. That of a program which is started again must not be that of another message."""
        return number if self._mailbox is None else f"{self._run_id}-{number}"

    def _number(self, spelled: object) -> int | None:
        """The inverse; None for what is not ours."""
        if self._mailbox is None:
            return spelled if isinstance(spelled, int) else None
        run, _, number = str(spelled).rpartition("-")
        return int(number) if run == self._run_id and number.isdigit() else None

    async def _request(
        self,
        kind: str,
        on_ok: Callable[[dict[str, Any]], object],
        link: Link | None = None,
        sent: Sent | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Ask, and wait for the answer. With a `link` the question is for that connection, and dies with it."""
        if self._gone is not None:
            raise self._gone
        if link is None and len(self._requests) >= self._max_kept:
            raise RequestError(QUEUE_FULL, f"{len(self._requests)} requests wait for an answer", temporary=True)
        number = self._last_id + 1
        request = Request(encode({"type": kind, "id": self._spell(number), **fields}), on_ok, sent, kept=link is None)
        self._last_id = number
        self._requests[number] = request
        try:
            via = link or self._link
            if via is not None:
                await self._transmit(number, request, via)
            return await request.answer
        finally:
            del self._requests[number]
            is_answered = request.answer.done() and not request.answer.cancelled()
            if request.link is not None and not is_answered:  # whoever has sent it waits for no receipt
                request.link.receipts.pop(number, None)

    async def _transmit(self, number: int, request: Request, link: Link) -> None:
        request.link = link
        if request.answer.done():
            return  # given up by whoever asked
        if len(request.text) > link.message_size:
            # The service would close the connection, and on the next one as well.
            reason = f"{len(request.text)} bytes; the service takes {link.message_size}"
            unless_ended(request.answer.set_exception, RequestError(LIMIT, reason, temporary=False))
            return
        if request.sent is not None:
            request.sent._begin(link)
            link.receipts[number] = request.sent
        await link.say(request.text)

    # The connection

    async def _run(self) -> None:
        try:
            await self._stay_connected()
        except Lost as lost:
            self._give_up(GoneError(lost.reason))
            self._emit(Event("gone", reason=lost.reason))
        except Exception as error:  # of a function that the application gave us
            gone = GoneError(f"{type(error).__name__}: {error}")
            gone.__cause__ = error
            self._give_up(gone)
            with contextlib.suppress(Exception):  # it may be the function that has failed
                self._emit(Event("gone", reason=str(gone)))

    def _give_up(self, gone: GoneError) -> None:
        self._gone = self._gone or gone
        for request in self._requests.values():
            unless_ended(request.answer.set_exception, gone)
        self._expect_no_receipts()
        if self._entered is not None:
            unless_ended(self._entered.set_exception, gone)
        self._inbox.put_nowait(None)

    def _expect_no_receipts(self) -> None:
        """Receipts may be among what the mailbox has lost: one that comes all the same is an event."""
        for sent in self._receipts.values():
            sent._give_up()
        self._receipts.clear()

    async def _stay_connected(self) -> None:
        """Goes on until the connection is lost for good, which is raised."""
        while True:
            lasted_s = 0.0
            try:
                link = await self._open()
                lost = await link.lost
                lasted_s = (time.monotonic() - link.since) / self._second
            except Lost as error:
                lost = error
            if lost.final or not self._reconnect:
                raise lost
            wait_s = max(lost.least_s, self._backoff.after(lasted_s, lost.told_s))
            self._next_try = time.monotonic() + wait_s * self._second
            if self._link is None:
                self._emit(Event("disconnected", reason=lost.reason, wait_s=wait_s))
            await asyncio.sleep(wait_s * self._second)

    async def _open(self) -> Link:
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
                raise closed(error) from None
            if isinstance(error, ValueError | KeyError | TypeError | RecursionError | OverflowError):
                raise Lost(f"not a hello of {SUBPROTOCOL}: {type(error).__name__} {error}") from None
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
            if (reached := self._mailbox and self._mailbox.beyond_hello()) is not None:
                await link.say(encode({"type": "ack", "offset": reached}))
        self._emit(Event("connected", uuid=link.uuid))
        if self._entered is not None:
            unless_ended(self._entered.set_result, None)
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
            raise Lost(f"no token: {reason}") from error

    async def _connect(self) -> ClientConnection:
        try:
            # Straight to the server: an http_proxy in the environment is not meant for 127.0.0.1.
            socket = await _Connecting(
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
            raise refused(refusal) from None
        except InvalidURI as error:
            raise Lost(str(error), final=True) from None
        except _FAILURES as error:
            raise Lost(why_unreachable(error, self._url)) from error
        if socket.subprotocol != SUBPROTOCOL:
            socket.transport.abort()
            raise Lost(f"the server does not speak {SUBPROTOCOL}", final=True)
        return socket

    async def _greet(self, socket: ClientConnection, token: str | None) -> Link:
        server_time: float = decode(await socket.recv())["server_time"]
        wanted = None if self._mailbox is None else self._mailbox.wanted()
        # A token that is for another address proves none that the service has drawn: it draws a new one.
        uuid = self.uuid if self._is_named or token is None else None
        about = {"uuid": uuid, "token": token, "resume": self._resume, "mailbox": wanted}
        hello = {"type": "hello", "id": 0, **{name: value for name, value in about.items() if value is not None}}
        await socket.send(encode(hello), text=True)
        while (answer := decode(await socket.recv()))["type"] not in ("ok", "error"):
            pass
        if answer["type"] == "error":
            raise self._turned_away(answer)
        if not isinstance(answer["uuid"], str):
            raise TypeError("uuid is not text")
        self.uuid, self._resume, self._in_use = answer["uuid"], answer["resume"], 0
        link = Link(socket, server_time, answer, self._second)
        if "mailbox" not in answer:
            self._expect_no_receipts()
        elif self._mailbox is not None:
            missing, lost_to = self._mailbox.opened(answer["mailbox"])
            if missing:
                self._expect_no_receipts()
                self._emit(Event("missing", reason=missing))
            if lost_to is not None:
                await link.say(encode({"type": "ack", "offset": lost_to}))
        return link

    def _turned_away(self, error: dict[str, Any]) -> Lost:
        final = not error["temporary"]
        if error["code"] == TOKEN_EXPIRED:
            final = not callable(self._token)
        elif error["code"] == IN_USE and self._resume is not None:
            self._in_use += 1
            final = self._in_use >= TRIES_IN_USE
        return Lost(f"{error['reason']} (error {error['code']})", final)

    async def _refresh(self, link: Link) -> None:
        expires = link.expires
        with contextlib.suppress(ClientError, Lost):  # the service closes with 4200 when the old token has expired
            while expires is not None and callable(self._token):
                now = link.server_time + (time.monotonic() - link.since) / self._second
                await asyncio.sleep(max(1.0, (expires - now) * REFRESH_AT) * self._second)
                ok = await self._request("refresh", _nothing, link, token=await self._fetch_token())
                expires = ok["expires"]

    async def _restore(self, link: Link) -> None:
        """Tell a new connection what an earlier one knew."""
        for group in tuple(self._groups):
            try:
                await self._request("join", _nothing, link, group=group)
            except RequestError as error:
                self._groups.pop(group, None)
                self._emit(Event("refused", reason=f"join {group}: {error}"))
        watched = tuple(self._watched)
        for start in range(0, len(watched), MAX_ASKED_FOR):
            await self._watch_again(watched[start : start + MAX_ASKED_FOR], link)

    async def _watch_again(self, some: tuple[str, ...], link: Link) -> None:
        try:
            await self._request("presence", partial(self._learn, some, True), link, uuids=some, watch=True)
        except RequestError as error:
            half = len(some) // 2
            if half:  # perhaps because of a single one
                await self._watch_again(some[:half], link)
                await self._watch_again(some[half:], link)
            else:
                self._watched.pop(some[0], None)
                self._emit(Event("refused", reason=f"presence {some[0]}: {error}"))

    async def _read(self, link: Link) -> None:
        """Hear what the service says until the connection ends."""
        lost = Lost("the client is closed", final=True)
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
            lost = Lost("silent for too long") if link.is_silent else closed(error)
        except Exception as error:  # not a frame of nc.v1, or of a function that the application gave us
            lost = Lost(f"{type(error).__name__}: {error}")
        finally:
            self._ended(link, lost)

    def _ended(self, link: Link, lost: Lost) -> None:
        if lost.is_not_taken:
            self._refuse_all(link, RequestError(BAD_REQUEST, lost.reason, temporary=False))
        link.end()
        is_current = self._link is link
        if is_current:
            self._link = None
        if not link.lost.done():
            link.lost.set_result(lost)
        elif is_current and not link.lost.cancelled():  # it went before the time that its goaway told; or we are closed
            wait_s = max(0.0, self._next_try - time.monotonic()) / self._second
            self._emit(Event("disconnected", reason=lost.reason, wait_s=wait_s))

    def _heard(self, link: Link, frame: dict[str, Any], spelling: str) -> None:
        kind = frame["type"]
        if kind == "msg":
            self._take(link, frame, spelling)
        elif kind in ("ok", "error"):
            self._answered(link, frame)
        elif kind in ("delivered", "lost"):
            self._settled(link, frame)
        elif kind == "presence":
            if frame["uuid"] in self._watched:
                self._see(frame["uuid"], frame["state"] == "online")
        elif kind == "goaway" and not link.lost.done():
            told_s = min(frame["reconnect_in_ms"] / 1000, frame["deadline_ms"] / 1000, LONGEST_S)
            link.lost.set_result(Lost("the service goes away", told_s=told_s))

    def _settled(self, link: Link, frame: dict[str, Any]) -> None:
        offset, number = frame.get("offset"), self._number(frame["id"])
        if offset is not None and self._is_old(link, offset):
            return
        sent = None
        if number is not None:
            sent = link.receipts.get(number) or self._receipts.get(number)
        uuid, outcome = frame["recipient_uuid"], frame["type"]
        if sent is not None and number is not None:
            if offset is None:
                sent._note(link, uuid, outcome)
            else:
                sent._conclude(uuid, outcome)
            link.forget_if_complete(number)
            if sent._complete.is_set():  # it may have come on the old connection, and been accepted on the new one
                self._receipts.pop(number, None)
        elif offset is not None:
            self._emit(Event("receipt", uuid=uuid, id=str(frame["id"]), outcome=outcome))
        if offset is not None and self._mailbox is not None:
            self._start(self._handled(self._mailbox.epoch, offset))

    def _is_old(self, link: Link, offset: int) -> bool:
        """Whether it came before. If it was handled as well, then its confirmation did not arrive."""
        if self._mailbox is None:
            return True
        if self._mailbox.comes(offset):
            return False
        if (reached := self._mailbox.reached) >= offset:
            self._start(link.say(encode({"type": "ack", "offset": reached})))
        return True

    def _take(self, link: Link, frame: dict[str, Any], spelling: str) -> None:
        offset = frame.get("offset")
        if offset is not None:
            if self._is_old(link, offset):
                return
        elif self._inbox.qsize() >= MAX_INBOX:
            self._emit(Event("dropped", uuid=frame["sender_uuid"]))
            return
        who, to, group = frame["sender_uuid"], frame.get("recipient_uuid"), frame.get("group")
        message = Message(who, frame["message"], to, group, spelling)
        epoch = "" if self._mailbox is None else self._mailbox.epoch
        self._inbox.put_nowait((message, _Confirmation(link, frame.get("key"), epoch, offset)))

    def _answered(self, link: Link, frame: dict[str, Any]) -> None:
        if frame["type"] == "error" and not self._is_known(frame["id"]):
            reason = f"{frame['reason']}; the service does not say which request it means"
            self._refuse_all(link, RequestError(frame["code"], reason, frame["temporary"]))
            return
        number = self._number(frame["id"])
        request = None if number is None else self._requests.get(number)
        if number is None or request is None or request.link is not link or request.answer.done():
            return
        if frame["type"] == "ok":
            request.on_ok(frame)
            link.forget_if_complete(number)
            unless_ended(request.answer.set_result, frame)
        else:
            link.receipts.pop(number, None)
            error = RequestError(frame["code"], frame["reason"], frame["temporary"])
            unless_ended(request.answer.set_exception, error)

    def _is_known(self, spelled: object) -> bool:
        """Whether a request ever had this id; it may have been answered."""
        number = self._number(spelled)
        return number is not None and 0 <= number <= self._last_id

    def _refuse_all(self, link: Link, error: RequestError) -> None:
        """One of those that have no answer is the cause: nobody is to wait for ever, or to send it again and again."""
        for number, request in self._requests.items():
            if request.link is link and not request.answer.done():
                link.receipts.pop(number, None)
                unless_ended(request.answer.set_exception, error)

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


class _Connecting(connect):
    """Follows no redirect, as browsers do not: our token would go wherever that leads."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Confirmation(NamedTuple):
    """How a message is confirmed, when the application has handled it."""

    link: Link
    key: int | None
    epoch: str
    offset: int | None


def _nothing(ok: dict[str, Any]) -> None:
    """What follows from most answers."""
