"""What we rely on in picows, whose class for a connection is not public: each test names what would have changed."""

import asyncio
from importlib.metadata import version
from pathlib import Path

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from service.fast.frame_reader import feed, frame_reader
from tests.service.transports import frame, in_a_loop

ROOT = Path(__file__).resolve().parents[2]
MAX = 1000
TEXT, BINARY, CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION


class Listener(WSListener):
    """Notes what picows says."""

    def __init__(self) -> None:
        self.frames: list[tuple[WSMsgType, bool, bytes]] = []
        self.reserved: list[tuple[int, int, int]] = []
        self.broken: list[int] = []
        self.reasons: list[str] = []
        self.failed = self.ended = self.paused = self.resumed = 0
        self.has_a_fault = False
        self.reader = frame_reader(self, MAX, self.on_broken, self.on_failed)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        assert not self.has_a_fault
        self.frames.append((frame.msg_type, bool(frame.fin), frame.get_payload_as_bytes()))
        self.reserved.append((frame.rsv1, frame.rsv2, frame.rsv3))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ended += 1

    def pause_writing(self) -> None:
        self.paused += 1

    def resume_writing(self) -> None:
        self.resumed += 1

    def on_broken(self, code: int, reason: str) -> None:
        self.broken.append(code)
        self.reasons.append(reason)

    def on_failed(self) -> None:
        self.failed += 1


def test_picows_is_the_version_that_these_tests_know() -> None:
    assert f"picows=={version('picows')}" in (ROOT / "requirements" / "service.in").read_text().split()


@in_a_loop
async def test_a_reader_is_a_buffered_protocol() -> None:
    # uvloop takes it for one by its methods, asyncio by its class.
    assert isinstance(Listener().reader, asyncio.BufferedProtocol)


@in_a_loop
async def test_frames_are_told_unmasked_and_in_order() -> None:
    listener = Listener()
    feed(listener.reader, frame(1, b"one") + frame(2, b"\xff", fin=False) + frame(0, b"x" * 300) + frame(9, b"ping"))
    assert listener.frames == [
        (TEXT, True, b"one"),
        (BINARY, False, b"\xff"),
        (CONTINUATION, True, b"x" * 300),
        (WSMsgType.PING, True, b"ping"),
    ]


@in_a_loop
async def test_types_of_frames_can_be_compared_by_identity() -> None:
    listener = Listener()
    feed(listener.reader, frame(1))
    assert listener.frames[0][0] is TEXT


@in_a_loop
async def test_a_frame_may_come_byte_by_byte() -> None:
    listener = Listener()
    for byte in frame(1, b"x" * 200):
        feed(listener.reader, bytes([byte]))
    assert listener.frames == [(TEXT, True, b"x" * 200)]


@in_a_loop
async def test_more_than_its_buffer_holds_may_come_at_once() -> None:
    listener = Listener()
    feed(listener.reader, frame(1, b"x" * MAX) * 50)
    assert listener.frames == [(TEXT, True, b"x" * MAX)] * 50


@in_a_loop
async def test_however_fast_a_client_sends_its_buffer_does_not_grow_without_end() -> None:
    listener = Listener()
    feed(listener.reader, frame(1, b"x" * MAX) * 5000)
    assert len(listener.frames) == 5000
    assert len(WSProtocol.get_buffer(listener.reader, -1)) < 128 * 1024


@pytest.mark.parametrize("reserved", [0x40, 0x20, 0x10])
@in_a_loop
async def test_reserved_bits_are_told_and_left_to_us(reserved: int) -> None:
    listener = Listener()
    feed(listener.reader, frame(1, reserved=reserved))
    assert listener.reserved == [(reserved == 0x40, reserved == 0x20, reserved == 0x10)]
    assert not listener.broken


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x00", 1002),
        (frame(3), 1002),
        (frame(0xB), 1002),
        (frame(9, fin=False), 1002),
        (frame(9, b"x" * 126), 1002),
        (b"\x81\xfe\x00\x05" + bytes(9), 1002),
        (b"\x81\xff" + bytes(7) + b"\x05" + bytes(9), 1002),
        (b"\x81\xff\x80" + bytes(20), 1002),
        (frame(8, b"\x03"), 1002),
        (frame(8, (1004).to_bytes(2, "big")), 1002),
        (frame(8, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (frame(1, b"x" * (MAX + 1)), 1009),
        (b"\x81\xff\x00\xff" + bytes(10), 1009),
    ],
    ids=[
        *("no_mask", "unknown_opcode", "unknown_control", "control_in_fragments", "long_control"),
        *("length_in_2_bytes_for_no_reason", "length_in_8_bytes_for_no_reason", "length_beyond_63_bits"),
        *("close_of_1_byte", "close_code_nobody_may_send", "reason_not_utf8", "too_long", "absurdly_long"),
    ],
)
@in_a_loop
async def test_what_is_no_frame_is_told_with_a_close_code_before_it_is_there_in_full(data: bytes, code: int) -> None:
    listener = Listener()
    feed(listener.reader, data)
    assert listener.frames == []
    assert set(listener.broken) == {code}
    assert all(0 < len(reason.encode()) <= 123 for reason in listener.reasons)


@in_a_loop
async def test_a_fault_of_the_listener_is_told_and_does_not_end_the_reader() -> None:
    listener = Listener()
    listener.has_a_fault = True
    feed(listener.reader, frame(1))
    listener.has_a_fault = False
    feed(listener.reader, frame(1))
    assert (listener.failed, len(listener.frames)) == (1, 1)


@in_a_loop
async def test_a_ping_is_left_to_us() -> None:
    listener = Listener()
    feed(listener.reader, frame(9))
    assert len(listener.frames) == 1


@in_a_loop
async def test_a_full_buffer_and_the_end_are_told() -> None:
    listener = Listener()
    listener.reader.pause_writing()
    listener.reader.resume_writing()
    listener.reader.connection_lost(None)
    assert (listener.paused, listener.resumed, listener.ended) == (1, 1, 1)


@in_a_loop
async def test_a_client_that_says_that_nothing_follows_is_closed() -> None:
    assert not Listener().reader.eof_received()


@in_a_loop
async def test_nothing_is_kept_of_the_handshake() -> None:
    assert not hasattr(Listener().reader.transport.request, "headers")
