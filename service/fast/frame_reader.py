"""Uses picows only to read the frames that clients send, in C. It writes nothing and closes nothing.

Its class for a connection, `WSProtocol`, is not public. It also would answer the handshake, write straight to the
socket, close connections, and write a log. None of that has an effect here, with one exception: only its log
says that a client has sent something that is not a frame.

One reader serves all clients, as long as none has sent a part of a frame and not the rest: most clients never do. One
for each would take 4 KiB, and a seventh of the time of a handshake to make.
"""

import ctypes
import weakref
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, cast

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSTransport,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

# One read may bring no more frames than can be dealt with in a moment: all of them are handed over at once, whatever
# the client may do. While a long frame is on its way a read may be longer.
_READ_BYTES = 4 * 1024
_LONG_READ_BYTES = 8 * 1024

# So that a buffer in which nothing is does not grow with one read.
_READ_BUFFER_BYTES = 2 * _READ_BYTES

# The real handshake is over: this one is only to make picows go on to the frames. It has no fields, which would have to
# be read: `_Ear.answer` puts those in that picows wants.
_HANDSHAKE = b"GET / HTTP/1.1\r\n\r\n"
_FIELDS = {
    "upgrade": "websocket",
    "connection": "upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


class _Response:
    """The response that picows believes to send; its own would be put together for each client."""

    status = HTTPStatus.SWITCHING_PROTOCOLS

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.to_bytes = bytearray


_response = _Response()


class _Nowhere:
    """The transport, and the socket, that picows believes to have."""

    def __init__(self) -> None:
        self.get_extra_info = {"socket": self}.get

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *option: int) -> None:
        pass

    def getsockopt(self, *option: int) -> int:
        return 0

    def get_write_buffer_size(self) -> int:
        return 1  # else picows would not call write, but write to the descriptor

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass


_nowhere = _Nowhere()


class Listener(Protocol):
    """Whose frames are read."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Here is one."""

    def broken(self, code: int, reason: str, closed_with: int | None) -> None:
        """What has come is not a frame: a close code, and the reason. It may be called again.

        `closed_with`: the code of the close frame that came before it, 0 for none; None when there was no such frame.
        Of one that came in the same read, nothing else tells.
        """

    def failed(self) -> None:
        """`on_ws_frame` has raised the exception that is being handled."""


class _Ear(WSListener):
    """The listener, and the log, that picows believes to have: passes on what is for the client of now.

    Not a logging.Logger, of which picows would make another for each reader.
    """

    __slots__ = ("listener", "on_ws_frame", "reader")

    listener: Listener
    on_ws_frame: Callable[[WSTransport, WSFrame], None]  # type: ignore[assignment]
    """That of the listener: picows looks for it in the object first, so it costs no call in between."""
    reader: "weakref.ref[_Reader]"
    """It refers to us: with each other, both would wait for the garbage collector, and their client with them."""

    def answer(self, request: Any) -> WSUpgradeResponseWithListener:
        request.headers = _FIELDS
        return WSUpgradeResponseWithListener(cast(WSUpgradeResponse, _response), self)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def debug(self, *message: Any) -> None:
        pass

    info = debug

    def error(self, message: str, cause: Any) -> None:
        code, reason = cause
        handshake = cast(_Reader, self.reader()).transport.close_handshake
        closed_with = cast(int, handshake.recv.code) if handshake and handshake.recv else None
        self.listener.broken(int(code), reason, closed_with)  # the enumeration would be logged by name in Python 3.10

    def exception(self, message: str) -> None:
        self.listener.failed()


class _Reader(WSProtocol):  # type: ignore[misc]
    __slots__ = ("__weakref__", "_size")

    _size: int
    transport: WSTransport

    # picows doubles its buffer whenever a read has filled it, without end: a client that sends faster than the kernel
    # hands over could make us keep megabytes. So no read may fill a long one. Nor a short one: then it would be empty
    # again after it was doubled, and look as if nothing of a frame were in it.
    def get_buffer(self, sizehint: int) -> memoryview:
        room: memoryview = _get_buffer(self, sizehint)
        free = len(room)
        if free > self._size:
            self._size = 2 * self._size or free
        most = _READ_BYTES if self._size - free < _READ_BYTES else _LONG_READ_BYTES
        return room[:most] if free > most else room[:-1]


_get_buffer = WSProtocol.get_buffer


def begun_frame(reader: "_Reader | None") -> bytes:
    """What has been received of a frame that is not complete, to the letter.

    picows does not show it. It is in front of where the next bytes go to, at the beginning of a buffer whose size is
    known: no frame is ever kept behind another one.
    """
    if reader is None:
        return b""
    length = begun_length(reader)
    room: memoryview = _get_buffer(reader, -1)
    return ctypes.string_at(ctypes.addressof(ctypes.c_char.from_buffer(room)) - length, length)


def begun_length(reader: "_Reader | None") -> int:
    """How many bytes that is."""
    if reader is None:
        return 0
    reader.get_buffer(-1)  # which notices that the buffer has grown
    length = reader._size - len(_get_buffer(reader, -1))
    if not 0 <= length < reader._size:
        raise ValueError("picows keeps what it has read in another way")
    return length


class FrameReader:
    """Reads for all clients that have begun no frame; the others have a reader of their own."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._begin()

    def _begin(self) -> None:
        self._ear = _Ear()
        self._reader = _made_reader(self._ear, self._max_frame_bytes)
        self._update = self._reader.buffer_updated
        self._room: memoryview = _get_buffer(self._reader, -1)
        self.room = self._reader.get_buffer(-1)
        """Where the next bytes of any client go to that has no reader of its own."""

    def read(self, listener: Listener, nbytes: int) -> "_Reader | None":
        """Tell a client what its frames are, which are in `room`.

        Returns: from now on the reader of this client alone, whose `get_buffer` and `buffer_updated` are to be used. It
        may be let go of when nothing is begun in it.
        """
        ear, reader = self._ear, self._reader
        ear.listener, ear.on_ws_frame = listener, listener.on_ws_frame
        try:
            self._update(nbytes)
        except BaseException:
            self._begin()  # else the frames behind this one would be those of the next client
            raise
        if len(_get_buffer(reader, -1)) != len(self._room):
            self._begin()
            return reader
        if reader.transport.close_handshake is not None:
            # A close frame was read, or would be sent. picows is done then, unless it believes in a new connection.
            reader.connection_made(_nowhere)
        return None


def _made_reader(ear: _Ear, max_frame_bytes: int) -> _Reader:
    reader = _Reader(
        None,  # host_port
        None,  # ws_path
        False,  # is_client_side
        ear.answer,
        ear,
        True,  # disconnect_on_exception
        None,  # websocket_handshake_timeout
        False,  # enable_auto_ping
        0,  # auto_ping_idle_timeout
        0,  # auto_ping_reply_timeout
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong
        max_frame_bytes,
        None,  # extra_headers
        _READ_BUFFER_BYTES,
    )
    ear.reader = weakref.ref(reader)
    reader._size = 0  # known with the first bytes
    reader.connection_made(_nowhere)
    _get_buffer(reader, -1)[: len(_HANDSHAKE)] = _HANDSHAKE
    reader.buffer_updated(len(_HANDSHAKE))
    return reader


def feed(protocol: Any, data: bytes) -> None:
    """Pass on to an asyncio.BufferedProtocol the bytes that have been received already."""
    rest = memoryview(data)
    while rest:
        room = protocol.get_buffer(-1)
        taken = min(len(room), len(rest))
        room[:taken] = rest[:taken]
        protocol.buffer_updated(taken)
        rest = rest[taken:]
