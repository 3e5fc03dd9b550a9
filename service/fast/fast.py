"""The fast shell: WebSockets without a task, a queue or a timer for each, and with as few writes as possible.

All frames for a client in one turn of the event loop leave in one write, and one call per turn does it for all clients.
There is no compression: it would cost 34 KiB for each client, so no offer of it is accepted.

Source: RFC 6455, sections 5.4 (fragments), 5.5 (control frames) and 7 (closing).
"""

import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, MutableSet
from itertools import count
from typing import Any

from picows import WSFrame, WSMsgType, WSTransport

from service.core.admission import SESSIONS, Admission
from service.core.bounds import LAST_WORDS_S, MAX_FRAGMENTS, READ_AHEAD_FRAMES
from service.core.center import PROBE_TIMEOUT_S, Center
from service.core.close_codes import (
    BROKEN_FRAME,
    FAULT,
    NO_PONG,
    NOT_UTF8,
    RESTART,
    TOO_LONG,
    TOO_MANY_FRAGMENTS,
    CloseReason,
)
from service.core.handover import ClientState, StreamState, seal
from service.core.mailbox import Opened
from service.core.session import Session
from service.core.turns import NEXT_TURN
from service.fast.frame_reader import FrameReader, begun_frame, begun_length, feed
from service.fast.kept import Kept
from service.process.farewell import Farewell
from service.process.hangups import Hangups, has_hung_up, unread_bytes
from service.process.ticker import Ticker

logger = logging.getLogger(__name__)

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_PING, _PONG, _CLOSE = WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE

# RFC 6455 section 7.4: the codes that a close frame may have.
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))

# What is not left to the end of the turn, so that little waits: many messages for one client, and a long one, which
# gains nothing by company.
_MAX_WAITING = 128
_LONG = 4096


def _head(opcode: WSMsgType, length: int) -> bytes:
    """The header of a frame that is a whole message, from a server."""
    first = 0x80 | opcode.value
    if length < 126:
        return bytes((first, length))
    if length < 0x10000:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def _frame(opcode: WSMsgType, payload: bytes) -> bytes:
    return _head(opcode, len(payload)) + payload


def _farewell(reason: CloseReason) -> bytes:
    return struct.pack("!H", reason.code) + reason.reason.encode()


def close_frame(reason: CloseReason) -> bytes:
    """The last frame for a client that is closed for this reason."""
    return _frame(_CLOSE, _farewell(reason))


# How often a client that does not take all that was written to it is looked at, when somebody wants to know.
_LOOK_S = 0.02

# Of writes that a slow client has not taken, before they are put together.
_MAX_BACKLOG = 64

# To keep some hundred frames, in messages to one recipient.
_COST_OF_READING_ON = READ_AHEAD_FRAMES // 8

# To look a head up takes a quarter of the time that it takes to make it, and most messages are short.
_SHORT = 1024
_TEXT_HEADS = [_head(_TEXT, length) for length in range(_SHORT)]


class FastShell:
    """The state that all WebSockets of one process share. To be made while the event loop runs."""

    def __init__(self, center: Center, connections: MutableSet[Any]) -> None:
        """`connections` are those that uvicorn asks to `shutdown` when it stops."""
        self.center = center
        self.connections = connections
        self.loop = asyncio.get_running_loop()
        self.clients: set[WebSocket] = set()
        self.payloads = count()
        """Of pings: no two are the same."""
        self.hangups = Hangups()
        self.reader = FrameReader(center.settings.limits.message_size)
        self._ticker = Ticker(center)
        self._stopwatch = center.stopwatch
        self._is_sweeping = False
        self._to_flush: list[WebSocket] = []
        self._to_look_at: dict[WebSocket, None] = {}
        self._slow: dict[WebSocket, None] = {}

    def open(self, transport: asyncio.Transport, admission: Admission, accept: bytes, rest: bytes) -> None:
        """Serve a client to its end. `accept` answers its handshake, `rest` is what it has sent after that."""
        client = self._read(transport)
        client.start(admission.open(self.center, client), accept)
        self._wake()
        feed(client, rest)

    def go_on(self, transport: asyncio.Transport, state: ClientState, unsent: bytes, opened: Opened | None) -> Session:
        """Serve a client on that another process has served. `opened` is its mailbox.

        Returns: its session, which is to `catch_up` when all others are there that came along.
        """
        client = self._read(transport)
        kind, at = SESSIONS[state.session.protocol], state.session
        session = kind(self.center, client, at.identity, at.client_address, at.addresses[0][0])
        client.go_on(session, state, unsent, opened)
        self._wake()
        if state.stream.begun:
            feed(client, state.stream.begun)
        return session

    def _read(self, transport: asyncio.Transport) -> "WebSocket":
        client = WebSocket(self, transport)
        transport.set_protocol(client)
        # Beyond this, `pause_writing` of the client is called.
        transport.set_write_buffer_limits(self.center.settings.limits.queue)
        return client

    def _wake(self) -> None:
        self._ticker.wake()
        if not self._is_sweeping:
            self._sweep()

    def flush_soon(self, client: "WebSocket") -> None:
        """Call the client's `flush` at the end of this turn of the loop."""
        if not self._to_flush:
            self.loop.call_soon(self._flush)
            if self._stopwatch.is_due:
                self._stopwatch.time(client)
        self._to_flush.append(client)

    def _flush(self) -> None:
        clients, self._to_flush = self._to_flush, []
        for client in clients:
            client.flush()

    def look_soon(self, client: "WebSocket") -> None:
        """Call the client's `tell_what_has_left` when what it has to write now is written."""
        if not self._to_look_at:
            # A turn after the flush: uvloop's transports write at the end of a turn.
            self.loop.call_soon(self.loop.call_soon, self._look)
        self._to_look_at[client] = None

    def _look(self) -> None:
        clients, self._to_look_at = self._to_look_at, {}
        self._look_at(clients)

    def _look_again(self) -> None:
        clients, self._slow = self._slow, {}
        self._look_at(clients)

    def _look_at(self, clients: Iterable["WebSocket"]) -> None:
        for client in clients:
            if not client.tell_what_has_left():
                if not self._slow:
                    self.loop.call_later(_LOOK_S, self._look_again)
                self._slow[client] = None  # and keeps nobody else waiting

    def _sweep(self) -> None:
        # One look at all clients costs less than a timer for each: a millisecond per second for 10,000.
        ping, now = self.center.settings.ping, self.loop.time()
        for client in tuple(self.clients):
            client.keep_alive(now, ping.interval, ping.timeout)
        self._is_sweeping = bool(self.clients)
        if self.clients:
            self.loop.call_later(min(ping.interval, ping.timeout, 8.0) / 8, self._sweep)


class _Fragments:
    """The message that a client has begun and not finished."""

    __slots__ = ("is_text", "length", "pieces")

    def __init__(self, is_text: bool) -> None:
        self.is_text = is_text
        self.pieces: list[bytes] = []
        self.length = 0


class WebSocket(asyncio.BufferedProtocol):
    """One client: a `service.core.center.Client` for its session, and the protocol of its transport."""

    __slots__ = (
        "_backlog",
        "_fragments",
        "_has_spoken",
        "_heard_at",
        "_is_frozen",
        "_is_heard",
        "_is_held",
        "_is_open",
        "_is_paused",
        "_is_set_aside",
        "_kept",
        "_leaving",
        "_pings",
        "_probes",
        "_reader",
        "_session",
        "_shell",
        "_unread",
        "_waiting",
        "_written",
        "transport",
    )

    data_received = None
    """uvloop asks every protocol for it, and to find none takes a microsecond of each handshake."""

    def __init__(self, shell: FastShell, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._shell = shell
        self._reader: Any = None
        """Its own, as long as a frame is begun in it; else that of the shell."""
        self._is_open = True
        self._is_heard = True
        """Whether its frames are carried out. It may have gone all the same, with some of its frames still to come."""
        self._waiting: list[bytes] = []
        """The bytes that the next `flush` writes."""
        self._written = 0
        """Bytes that were written so far."""
        self._backlog: tuple[bytes, ...] = ()
        """What was written last; the end of it may still wait in the transport, which does not show it."""
        self._is_frozen = False
        """Nothing of it is read or carried out, for another process is to serve it."""
        self._leaving: deque[tuple[int, Callable[[bool], None]]] | None = None
        """Callers that wait until everything has left up to a position, in order."""
        self._fragments: _Fragments | None = None
        self._has_spoken = False
        self._heard_at = shell.loop.time()
        self._pings = 0
        """Not answered yet."""
        self._is_held = False
        """Nothing of it is carried out until it is its turn."""
        self._is_set_aside = False
        """Whether frames are not carried out at once: the client is held, or no longer open."""
        self._kept = Kept()
        """Frames that have come in and are still to be carried out, in order."""
        self._is_paused = False
        """So much is kept that no more is read."""
        self._unread = 0
        self._probes: dict[bytes, Callable[[bool], None]] | None = None

    def start(self, session: Session, accept: bytes) -> None:
        """Answer the handshake, and begin to serve the client."""
        self._begin(session)
        self._waiting.append(accept)
        session.start()
        self.flush()

    def _begin(self, session: Session) -> None:
        self._session = session
        self._shell.clients.add(self)
        self._shell.connections.add(self)

    def _end(self) -> None:
        self._shell.clients.discard(self)
        self._shell.connections.discard(self)

    # Served by another process from now on, or so far

    def freeze(self) -> bool:
        """Read and carry out nothing more, because another process is to serve the client; False if it is going."""
        if not self._is_open or self.transport.is_closing():
            return False
        self._is_frozen = True
        self._end()
        self._shell.hangups.forget(self.transport)
        self.transport.pause_reading()
        return True

    def wait_for_others(self) -> None:
        """Carry out nothing before `thaw`, even if something is read."""
        self._is_frozen = self._is_held = self._is_set_aside = True

    def thaw(self) -> None:
        """The inverse of `freeze`, also when it has gone meanwhile; once is enough, twice does no harm."""
        was_frozen, self._is_frozen = self._is_frozen, False
        if not was_frozen:
            return
        if not self._is_open:
            if self._kept:  # its last words
                self._wait_for_turn()
            return
        self._begin(self._session)
        if self._is_paused:
            self._pause()
        else:
            self.transport.resume_reading()
        if self._kept or self._is_paused:
            self._wait_for_turn()
        else:
            self._is_held, self._is_set_aside = False, not self._is_heard

    @property
    def session(self) -> Session:
        """Its protocol."""
        return self._session

    @property
    def weight(self) -> int:
        """How many bytes its state would have, about."""
        if not self._is_open:
            return 0
        begun = begun_length(self._reader)
        return self.queued + self._kept.size + begun + (self._fragments.length if self._fragments else 0)

    @property
    def may_leave(self) -> bool:
        """Whether another process can serve it on now; it is frozen."""
        return self._is_open and not self.transport.is_closing() and self._session.may_leave

    def leave(self, ends: bool = False) -> tuple[bytes, socket.socket]:
        """Let another process serve it, with this state on this socket. It may leave, and nothing waits for `flush`.

        Where this process `ends` at once, its own end stays open until then: closing thousands takes longer.
        """
        message = self._fragments
        frames, fault = self._kept.pack()
        stream = StreamState(
            begun=begun_frame(self._reader),
            message=None if message is None else (message.is_text, message.pieces),
            kept=frames,
            fault=fault,
            heard=self._shell.loop.time() if self._has_spoken else self._heard_at,
            pings=self._pings,
        )
        unsent = self._unsent()
        connection = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        self._shut()
        self._reader = None
        self.transport.set_protocol(asyncio.Protocol())
        if unsent or not ends:
            self.transport.abort()  # which drops what it has not written
        unsent = unsent[_send(connection, unsent) :]
        leaving, self._leaving = self._leaving or (), None
        for position, then in leaving:
            then(position <= self._written - len(unsent))
        state = ClientState(self._session.leave(), stream)
        return seal(state, unsent), connection

    def go_on(self, session: Session, state: ClientState, unsent: bytes, opened: Opened | None) -> None:
        """Serve it from where another process has left it."""
        self._begin(session)
        if unsent:
            self._write(unsent)
        stream = state.stream
        self._heard_at, self._pings = stream.heard, stream.pings
        if stream.message is not None:
            message = self._fragments = _Fragments(stream.message[0])
            message.pieces = stream.message[1]
            message.length = sum(map(len, message.pieces))
        self._kept.unpack(stream.kept, stream.fault)
        if self._kept:
            self._hold(NEXT_TURN)
        session.go_on(state.session, opened)

    # For the session

    def send(self, text: bytes) -> None:
        if self._is_open:
            length = len(text)
            self._write_soon((_TEXT_HEADS[length] if length < _SHORT else _head(_TEXT, length)) + text)

    def _write_soon(self, frame: bytes) -> None:
        waiting = self._waiting
        if not waiting:
            self._shell.flush_soon(self)
        waiting.append(frame)
        if len(frame) > _LONG or len(waiting) >= _MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            frames = b"".join(self._waiting)
            self._waiting.clear()
            self._write(frames)

    def _write(self, frames: bytes) -> None:
        self._written += len(frames)
        if not self.transport.get_write_buffer_size():
            self._backlog = (frames,)
        elif len(self._backlog) < _MAX_BACKLOG:
            self._backlog += (frames,)
        else:
            self._backlog = (self._unsent(), frames)
        self.transport.write(frames)

    def _unsent(self) -> bytes:
        """What was written and the system has not taken yet."""
        size = self.transport.get_write_buffer_size()
        return b"".join(self._backlog)[-size:] if size else b""

    @property
    def written(self) -> int:
        return self._written

    @property
    def queued(self) -> int:
        return self.transport.get_write_buffer_size() + sum(map(len, self._waiting))

    def when_left(self, then: Callable[[bool], None]) -> None:
        if not self._is_open:
            self._shell.loop.call_soon(then, False)  # what was sent last was not even written
            return
        if self._leaving is None:
            self._leaving = deque()
        self._leaving.append((self._written + sum(map(len, self._waiting)), then))
        self._shell.look_soon(self)

    def tell_what_has_left(self) -> bool:
        """Tell those who wait for it; whether nobody waits any more. Where none is due, one look shows it."""
        leaving = self._leaving
        while leaving and (has_left := self._has_left(leaving[0][0])) is not None:
            leaving.popleft()[1](has_left)
        return not leaving

    def _has_left(self, position: int) -> bool | None:
        """Whether the system has all that was to be written up to a position; None when that is not decided yet."""
        if self.transport.is_closing():
            return False
        if self._written - self.transport.get_write_buffer_size() >= position:
            return True
        return None if self._is_open or (position <= self._written and not self._has_hung_up()) else False

    def _has_hung_up(self) -> bool:
        """Whether it has gone before all that it had sent was read."""
        return self._is_heard and not self._is_open

    def pause_writing(self) -> None:
        """More than `limits.queue` waits to be written."""
        if self._is_open:
            self._session.overrun()

    def resume_writing(self) -> None:
        pass

    def close(self, reason: CloseReason) -> None:
        if self._is_open:
            self._drop_kept()
            self._part(_farewell(reason))
            Farewell(self.transport, self._ended)

    def _part(self, payload: bytes) -> None:
        self.flush()
        self._shut()
        self._write(_frame(_CLOSE, payload))

    def _shut(self) -> None:
        self._is_open = self._is_heard = False
        self._is_set_aside = True
        self._shell.hangups.forget(self.transport)

    def abort(self) -> None:
        self._shut()
        self._waiting.clear()
        self.transport.abort()

    def probe(self, answered: Callable[[bool], None]) -> None:
        if not self._is_open or self._is_paused or self._is_frozen:
            answered(self._is_read_no_further())
            return
        payload = b"%d" % next(self._shell.payloads)
        self._probes = {**(self._probes or {}), payload: answered}
        self._shell.loop.call_later(PROBE_TIMEOUT_S, self._expire, payload)
        self._write(_frame(_PING, payload))

    def _is_read_no_further(self) -> bool:
        """Whether the client is there and cannot answer: it has sent too much just now, or is about to be served by
        another process.
        """
        return self._is_open and (self._is_paused or self._is_frozen) and not has_hung_up(self.transport)

    def _expire(self, payload: bytes) -> None:
        self._tell(payload, self._is_read_no_further())

    def _tell(self, payload: bytes, is_alive: bool) -> bool:
        if not self._probes or payload not in self._probes:
            return False
        self._probes.pop(payload)(is_alive)
        return True

    def _is_answer(self, pong: bytes) -> bool:
        """Whether we have asked for it."""
        if self._pings and not pong:
            self._pings -= 1
            return True
        return self._tell(pong, True)

    # What comes in

    def get_buffer(self, sizehint: int) -> memoryview:
        room: memoryview = self._shell.reader.room if self._reader is None else self._reader.get_buffer(sizehint)
        return room

    def buffer_updated(self, nbytes: int) -> None:
        if self._reader is None:
            self._reader = self._shell.reader.read(self, nbytes)
        else:
            self._reader.buffer_updated(nbytes)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._has_spoken = True
        if self._is_set_aside:
            self._keep(frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(BROKEN_FRAME)
        elif frame.msg_type is _TEXT and frame.fin and self._fragments is None:
            text = frame.get_payload_as_bytes()
            if text.isascii() or _is_utf8(text):
                if pause := self._session.receive(text):
                    self._hold(pause, True, text)
            else:
                self._fail(NOT_UTF8)
        elif frame.msg_type is _CLOSE:
            self._answer_close(frame.get_payload_as_bytes())
        else:
            self._carry_out(frame.msg_type, bool(frame.fin), frame.get_payload_as_bytes())

    def _keep(self, frame: WSFrame) -> None:
        """Let a frame wait behind those that wait already; that the client goes, or is alive, waits for none."""
        if not self._is_heard:
            return
        kept, kind, payload = self._kept, frame.msg_type, frame.get_payload_as_bytes()
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            kept.end_with(BROKEN_FRAME)
        elif kind is _CLOSE:
            self._answer_close(payload)
        elif kind is not _PONG or not self._is_answer(payload):
            kept.add(kind, frame.fin, payload)
            if frame.last_in_buffer and not self._is_paused and kept.is_full:
                self._pause()

    def _pause(self) -> None:
        """Read no more, and see its end all the same."""
        self._is_paused, self._unread = True, 0
        self.transport.pause_reading()
        # No ping yet: if the client has gone and its last words are on their way, that would end them.
        if self._is_open:
            self._shell.hangups.watch(self.transport, self._hang_up)

    def _hang_up(self) -> None:
        """It has gone, and part of what it has sent is not read yet: that is read as there is room."""
        self._is_open = False
        self._waiting.clear()
        self._session.end()
        self._shell.loop.call_later(LAST_WORDS_S, self._forget)

    def _carry_out(self, opcode: WSMsgType, fin: bool, payload: bytes) -> None:
        if opcode is _PING or opcode is _PONG:
            self._obey(opcode, payload)
        elif fin and self._fragments is None and opcode is not _CONTINUATION:
            self._take(payload, opcode is _TEXT)
        else:
            self._take_piece(opcode, fin, payload)

    def _take_piece(self, opcode: WSMsgType, fin: bool, payload: bytes) -> None:
        if (opcode is _CONTINUATION) == (self._fragments is None):
            self._fail(BROKEN_FRAME)
            return
        if self._fragments is None:
            self._fragments = _Fragments(opcode is _TEXT)
        message = self._fragments
        message.pieces.append(payload)
        message.length += len(payload)
        if message.length > self._shell.center.settings.limits.message_size:
            self._fail(TOO_LONG)
        elif fin:
            self._fragments = None
            self._take(b"".join(message.pieces), message.is_text)
        elif len(message.pieces) >= MAX_FRAGMENTS:
            self._fail(TOO_MANY_FRAGMENTS)
        # As with pings, each costs us as much as a message: one message may come in a thousand empty ones.
        elif pause := self._session.pay(1, 0):
            self._hold(pause)

    def _take(self, data: bytes, is_text: bool) -> None:
        if is_text and not _is_utf8(data):
            self._fail(NOT_UTF8)
        elif pause := self._session.receive(data) if is_text else self._session.receive_binary(data):
            self._hold(pause, is_text, data)

    def _obey(self, opcode: WSMsgType, payload: bytes) -> None:
        if opcode is _PONG and self._is_answer(payload):
            return
        # Else a flood of pings would cost the client nothing.
        if pause := self._session.pay(1, len(payload)):
            self._hold(pause)
        if opcode is _PING and self._is_open:
            self._write_soon(_frame(_PONG, payload))

    def _answer_close(self, payload: bytes) -> None:
        if self._has_hung_up():
            self.transport.abort()  # nobody reads an answer
        elif payload and int.from_bytes(payload[:2], "big") not in _CLOSE_CODES:
            self._fail(BROKEN_FRAME)
        else:
            self._session.end()
            self._part(payload[:2])
            self._let_finish()
            if self.transport.get_write_buffer_size():
                Farewell(self.transport, self._ended)
            else:
                self.transport.close()  # the client has said that nothing follows

    def broken(self, code: int, reason: str, closed_with: int | None) -> None:
        """The client has sent something that is not a frame."""
        # After a close frame it may send what it likes: RFC 6455, section 5.5.1. But when both come in one read, picows
        # tells of this, and not of the close frame.
        if closed_with is not None and self._is_heard:
            self._answer_close(struct.pack("!H", closed_with) if closed_with else b"")
        elif self._is_held:
            self._kept.end_with(CloseReason(code, reason))
        else:
            self._fail(CloseReason(code, reason))

    def _fail(self, reason: CloseReason) -> None:
        """Close the client for what it has sent; nothing behind that is carried out, even if it has gone itself."""
        self._session.close(reason)
        if not self._is_open:
            self._kept.clear()
            if self._has_hung_up():
                self.transport.abort()

    def failed(self) -> None:
        """We have made a mistake."""
        logger.exception("a client cannot be served")
        self._fail(FAULT)

    def _ended(self) -> None:
        had_hung_up = self._has_hung_up()
        self._shut()
        self._reader = None  # which refers to us
        self._waiting.clear()
        self._session.end()
        if not had_hung_up:
            self._let_finish()
        self._end()

    def _let_finish(self) -> None:
        """The client has gone: its earlier frames are carried out at its pace, and not for ever."""
        if self._kept:
            self._shell.loop.call_later(LAST_WORDS_S, self._forget)

    def _drop_kept(self) -> None:
        self._shell.center.hub.drop_unsent(len(self._kept))
        self._kept.clear()

    def _forget(self) -> None:
        self._drop_kept()
        if self._has_hung_up():
            self.transport.abort()

    # Time

    def _hold(self, pause: float, is_text: bool = True, data: bytes = b"") -> None:
        """Carry out nothing further for a while; then `data` again, when it is for later."""
        if pause < 0:
            self._kept.put_back(_TEXT if is_text else _BINARY, data)
        self._is_held = self._is_set_aside = True
        if pause <= NEXT_TURN:
            self._wait_for_turn()
        else:
            self._shell.loop.call_later(pause, self._wait_for_turn)

    def _wait_for_turn(self) -> None:
        self._shell.center.turns.wait(self._session.flow, self._go_on)

    def _go_on(self) -> None:
        """Carry out what is kept, as far as the client may."""
        if self._is_frozen:
            return
        self._is_held, self._is_set_aside = False, not self._is_heard
        try:
            while self._kept and not self._is_held:
                match self._kept.take():
                    case CloseReason() as fault:
                        self._fail(fault)
                    case frame:
                        self._carry_out(*frame)
        except Exception:  # whatever it is, others wait behind us
            self.failed()
        if self._is_paused and self._is_heard and self._kept.is_half_empty:
            self._is_paused = False
            self._shell.hangups.forget(self.transport)
            self.transport.resume_reading()
            # All that keep pace with each other would read at once, and hold the loop up.
            self._shell.center.turns.charge(_COST_OF_READING_ON)

    def _has_sent_more(self) -> bool:
        """Whether more has arrived of a client that is read no further."""
        before, self._unread = self._unread, unread_bytes(self.transport)
        return self._unread > before

    def keep_alive(self, now: float, interval: float, timeout: float) -> None:
        """Ping a client that has been silent, and give up one that stays so. It is called again and again.

        Whatever comes from the client is a sign of life, not its pong alone; uvicorn and the websockets library want
        the pong. What is carried out late is none.
        """
        if not self._is_open:
            return
        if not self.transport.get_write_buffer_size():
            self._backlog = ()
        if self._reader is not None and not begun_length(self._reader):
            self._reader = None
        silence = now - self._heard_at
        if self._is_paused:
            # The end of its stream may be behind all that it could not send yet. To a ping, a host whose program has
            # gone answers with a reset.
            self._ping()
        if self._has_spoken or (self._is_paused and self._has_sent_more()):
            self._heard_at = now
            self._has_spoken, self._pings = False, 0
        elif silence >= interval + timeout:
            # Asked before the close frame is written, which would lie in the buffer as well.
            is_stuck = self.transport.get_write_buffer_size() > 0
            self._session.close(NO_PONG)
            if is_stuck:
                self.transport.abort()
        elif silence >= interval and not self._pings:
            self._ping()

    def _ping(self) -> None:
        self._pings += 1
        self._write(_frame(_PING, b""))

    def shutdown(self) -> None:
        """uvicorn stops."""
        if self._has_hung_up():
            self.transport.abort()
        else:
            self._session.close(RESTART)


def _send(connection: socket.socket, data: bytes) -> int:
    """How much of it the system takes now."""
    try:
        return connection.send(data, socket.MSG_DONTWAIT) if data else 0
    except OSError:
        return 0  # it takes no more, or the client has gone, and whoever reads it hears of that


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
