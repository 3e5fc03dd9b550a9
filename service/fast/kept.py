"""What a client has sent and may not do yet: its frames, in order, and as compact as they came."""

import struct
from collections.abc import Iterator

from picows import WSMsgType

from service.core.close_codes import CloseReason

_FIN = 0x80
_head = struct.Struct("!BI")
_OPCODES = {each.value: each for each in WSMsgType}

# Opcode, whether it is the last of its message, and payload.
KeptFrame = tuple[WSMsgType, bool, bytes]


class Kept:
    """Frames that wait. Not a list of them: an empty frame of six bytes would cost a hundred and more."""

    __slots__ = ("_fault", "_frames")

    def __init__(self) -> None:
        self._frames = bytearray()
        self._fault: CloseReason | None = None

    def __len__(self) -> int:
        """In bytes."""
        return len(self._frames)

    def __bool__(self) -> bool:
        return bool(self._frames) or self._fault is not None

    def __iter__(self) -> Iterator[bytes]:
        """The frames that are the last of a message."""
        at = 0
        while at < len(self._frames):
            first, length = _head.unpack_from(self._frames, at)
            if first & _FIN:
                yield bytes(self._frames[at : at + _head.size + length])
            at += _head.size + length

    def add(self, opcode: WSMsgType, fin: bool, payload: bytes) -> None:
        """Let a frame wait behind all others. What comes after a fault is ignored."""
        if self._fault is None:
            self._frames += _head.pack(opcode.value | _FIN * fin, len(payload)) + payload

    def put_back(self, opcode: WSMsgType, data: bytes) -> None:
        """Let a whole message wait before all others."""
        self._frames[:0] = _head.pack(opcode.value | _FIN, len(data)) + data

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
        return _OPCODES[first & ~_FIN], bool(first & _FIN), payload

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()
        self._fault = None
