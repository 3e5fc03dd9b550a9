"""A connection without a network: the test plays the kernel and the client."""

import asyncio
import functools
import socket
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec

Arguments = ParamSpec("Arguments")

PEER = ("192.0.2.1", 50_000)


def in_a_loop(test: Callable[Arguments, Coroutine[Any, Any, None]]) -> Callable[Arguments, None]:
    """A test that needs an event loop to run."""

    @functools.wraps(test)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], object]) -> None:
    """Look again and again until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not come true in time")


class FakeTransport(asyncio.Transport):
    """Notes what is written to it and what is done to it; `buffered` bytes wait to be sent."""

    def __init__(self, peer: object = PEER, half_closes: bool = True) -> None:
        super().__init__()
        self.peer = peer
        self.half_closes = half_closes
        self.protocol: Any = None
        self.writes: list[bytes] = []
        self.done: list[str] = []
        self.buffered = 0
        self.most = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.peer if name == "peername" else self.ends[0] if name == "socket" else default

    @functools.cached_property
    def ends(self) -> tuple[socket.socket, socket.socket]:
        """Ours and the client's, for what only the kernel can tell."""
        ends = socket.socketpair()
        for end in ends:
            weakref.finalize(self, end.close)
        return ends

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.protocol
        return protocol

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def write(self, data: Any) -> None:
        assert "write_eof" not in self.done
        self.writes.append(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.most = high

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def can_write_eof(self) -> bool:
        return self.half_closes

    def write_eof(self) -> None:
        self.done.append("write_eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def pause_reading(self) -> None:
        self.done.append("pause_reading")

    def resume_reading(self) -> None:
        self.done.append("resume_reading")

    # What the test does

    def deliver(self, data: bytes) -> None:
        """The client has sent something."""
        rest = memoryview(data)
        while rest and not self.is_closing():
            if isinstance(self.protocol, asyncio.Protocol):
                self.protocol.data_received(bytes(rest))
                return
            room = self.protocol.get_buffer(-1)
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            self.protocol.buffer_updated(taken)
            rest = rest[taken:]

    def frames(self) -> list[tuple[int, bytes]]:
        """Opcode and payload of every frame written so far; a handshake's answer is not among them."""
        data = b"".join(self.writes)
        return list(frames_in(data.partition(b"\r\n\r\n")[2] if data.startswith(b"HTTP/") else data))


def frames_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every frame of a server, which masks none and splits none."""
    while data:
        assert data[0] & 0x80
        found = first_frame(data)
        assert found is not None, "the last frame is cut off"
        opcode, payload, end = found
        yield opcode, payload
        data = data[end:]


def first_frame(data: bytes) -> tuple[int, bytes, int] | None:
    """Opcode and payload of the first frame of a server, and where it ends; None where that has not come yet."""
    if len(data) < 2:
        return None
    length, begin = data[1], 2
    if length >= 126:
        begin += 2 if length == 126 else 8
        if len(data) < begin:
            return None
        length = int.from_bytes(data[2:begin], "big")
    end = begin + length
    return (data[0] & 0x0F, data[begin:end], end) if len(data) >= end else None


def frame(opcode: int, payload: bytes = b"", fin: bool = True, reserved: int = 0) -> bytes:
    """A frame of a client, masked."""
    mask = b"\x01\x02\x03\x04"
    length = len(payload)
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 0x10000:
        head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def waits_for_nobody_who_has_the_last_answer(transport: FakeTransport, shutdown: Callable[[], None]) -> None:
    """What a stop does to a connection that we have ended: it waits as long as its client has yet to take something."""
    transport.buffered = 1
    shutdown()
    assert transport.done[-1] == "write_eof"
    transport.buffered = 0
    shutdown()
    assert transport.done[-1] == "abort"
    transport.protocol.connection_lost(None)
