"""The frames of a client that may not be carried out yet, in order, and as compact as they came."""

import struct

from picows import WSMsgType

from service.core.bounds import READ_AHEAD_BYTES, READ_AHEAD_FRAMES
from service.core.close_codes import CloseReason

_FIN = 0x80
_head = struct.Struct("!BI")
_pack = _head.pack
_OPCODES = {each.value: each for each in WSMsgType}

# Opcode, whether it is the last of its message, and payload.
KeptFrame = tuple[WSMsgType, bool, bytes]


class Kept:
    """Frames that wait. Not a list of them: an empty frame of six bytes would cost a hundred and more."""

    __slots__ = ("_fault", "_frames", "_number")

    def __init__(self) -> None:
        self._frames = bytearray()
        self._number = 0
        self._fault: CloseReason | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read."""
        return self._number >= READ_AHEAD_FRAMES or len(self._frames) >= READ_AHEAD_BYTES

    @property
    def is_half_empty(self) -> bool:
        """Whether more is to be read again."""
        return self._number < READ_AHEAD_FRAMES // 2 and len(self._frames) < READ_AHEAD_BYTES // 2

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return len(self._frames)

    def __len__(self) -> int:
        """How many frames wait."""
        return self._number

    def __bool__(self) -> bool:
        return bool(self._frames) or self._fault is not None

    def add(self, opcode: WSMsgType, fin: bool, payload: bytes) -> None:
        """Let a frame wait behind all others. What comes after a fault is ignored."""
        if self._fault is None:
            self._frames += _pack(opcode._value_ | _FIN if fin else opcode._value_, len(payload)) + payload
            self._number += 1

    def put_back(self, opcode: WSMsgType, data: bytes) -> None:
        """Let a whole message wait before all others."""
        self._frames[:0] = _pack(opcode._value_ | _FIN, len(data)) + data
        self._number += 1

    def end_with(self, fault: CloseReason) -> None:
        """After the frames, the client is to be closed for this."""
        self._fault = self._fault or fault

    def take(self) -> KeptFrame | CloseReason:
        """The next frame; behind the last one, the fault."""
        if not self._frames and self._fault is not None:
            fault, self._fault = self._fault, None
            return fault
        first, length = _head.unpack_from(self._frames)
        payload = bytes(self._frames[_head.size : _head.size + length])
        del self._frames[: _head.size + length]
        self._number -= 1
        return _OPCODES[first & ~_FIN], bool(first & _FIN), payload

    def pack(self) -> tuple[bytes, tuple[int, str] | None]:
        """The frames as they are kept, and the fault behind them as code and reason."""
        return bytes(self._frames), self._fault

    def unpack(self, frames: bytes, fault: tuple[int, str] | None) -> None:
        """The inverse of `pack`.

        Raises:
            ValueError: they are not whole frames.
        """
        at = 0
        while at < len(frames):
            if len(frames) - at < _head.size:
                raise ValueError("a frame is cut off")
            first, length = _head.unpack_from(frames, at)
            if first & ~_FIN not in _OPCODES:
                raise ValueError("there is no such frame")
            at += _head.size + length
            self._number += 1
        if at != len(frames):
            raise ValueError("a frame is cut off")
        self._frames += frames
        self._fault = None if fault is None else CloseReason(*fault)

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()
        self._number = 0
        self._fault = None
