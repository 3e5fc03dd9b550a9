"""Uses picows only to read the frames that a client sends, in C. It writes nothing and closes nothing.

Its class for a connection, `WSProtocol`, is not public. It also would answer the handshake, write straight to the
socket, close connections, and write a log. None of that has an effect here, with one exception: only its log
says that a client has sent something that is not a frame.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from picows import WSAutoPingStrategy, WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

# picows takes no less.
_READ_BUFFER_BYTES = 2048

# One read may bring no more frames than can be dealt with in a moment: all of them are handed over at once, whatever
# the client may do. While a long frame is on its way a read may be longer.
_READ_BYTES = 4 * 1024
_LONG_READ_BYTES = 8 * 1024

# The real handshake is over: this one is only to make picows go on to the frames. It has no fields, which would have to
# be read: `_answer` puts those in that picows wants.
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


class _Log:
    """The log that picows believes to have. Not a logging.Logger, of which it would make another for each client."""

    __slots__ = ("_broken", "_failed")

    def __init__(self, broken: Callable[[int, str], None], failed: Callable[[], None]) -> None:
        self._broken = broken
        self._failed = failed

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def debug(self, *message: Any) -> None:
        pass

    info = debug

    def error(self, message: str, cause: Any) -> None:
        code, reason = cause
        self._broken(int(code), reason)  # picows' enumeration would be logged by its name under Python 3.10

    def exception(self, message: str) -> None:
        self._failed()


class _Reader(WSProtocol):  # type: ignore[misc]
    __slots__ = ("_size",)

    _size: int

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


def begun_frame(reader: Any) -> bytes:
    """What has been received of a frame that is not complete, to the letter.

    picows does not show it. It is in front of where the next bytes go to, at the beginning of a buffer whose size is
    known: no frame is ever kept behind another one.
    """
    length = begun_length(reader)
    room: memoryview = _get_buffer(reader, -1)
    return ctypes.string_at(ctypes.addressof(ctypes.c_char.from_buffer(room)) - length, length)


def begun_length(reader: Any) -> int:
    """How many bytes that is."""
    if not isinstance(reader, _Reader):
        raise TypeError("it is no reader of frames")
    reader.get_buffer(-1)  # which notices that the buffer has grown
    length = int(reader._size - len(_get_buffer(reader, -1)))
    if not 0 <= length < reader._size:
        raise ValueError("picows keeps what it has read in another way")
    return length


def frame_reader(
    listener: WSListener, max_frame_bytes: int, broken: Callable[[int, str], None], failed: Callable[[], None]
) -> Any:
    """A protocol for a transport whose handshake is over, an asyncio.BufferedProtocol.

    The listener gets every frame, and the end. `broken` is called instead for bytes that are not a frame, with a close
    code and a reason, and may be called again; `failed` is called while an exception of the listener is handled.
    """
    reader = _Reader(
        None,  # host_port
        None,  # ws_path
        False,  # is_client_side
        partial(_answer, listener),
        _Log(broken, failed),
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
    reader._size = 0  # known with the first bytes
    reader.connection_made(_nowhere)
    _get_buffer(reader, -1)[: len(_HANDSHAKE)] = _HANDSHAKE
    reader.buffer_updated(len(_HANDSHAKE))
    del reader.transport.request.headers  # which nobody reads
    return reader


def _answer(listener: WSListener, request: Any) -> WSUpgradeResponseWithListener:
    request.headers = _FIELDS
    return WSUpgradeResponseWithListener(cast(WSUpgradeResponse, _response), listener)


def feed(reader: Any, data: bytes) -> None:
    """Pass on the bytes that have been received already."""
    rest = memoryview(data)
    while rest:
        room = reader.get_buffer(-1)
        taken = min(len(room), len(rest))
        room[:taken] = rest[:taken]
        reader.buffer_updated(taken)
        rest = rest[taken:]
