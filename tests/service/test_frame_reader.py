"""What we rely on in picows, whose class for a connection is not public: each test names what would have changed."""

import gc
import random
import subprocess
import sys
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from picows import WSFrame, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from service.fast.frame_reader import FrameReader, begun_frame, begun_length, feed
from tests.service.transports import frame, in_a_loop

ROOT = Path(__file__).resolve().parents[2]
MAX = 1000
TEXT, BINARY, CONTINUATION, CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION, WSMsgType.CLOSE


class Listener:
    """Notes what picows says of the frames of one client."""

    def __init__(self, shared: FrameReader | None = None) -> None:
        self.frames: list[tuple[WSMsgType, bool, bytes]] = []
        self.reserved: list[tuple[int, int, int]] = []
        self.faults: list[int] = []
        self.reasons: list[str] = []
        self.closed_with: list[int | None] = []
        self.failures = 0
        self.has_a_fault = False
        self.shared = shared or FrameReader(MAX)
        self.own: Any = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.shared.room if self.own is None else self.own.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self.own is None:
            self.own = self.shared.read(self, nbytes)
        else:
            self.own.buffer_updated(nbytes)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        assert not self.has_a_fault
        self.frames.append((frame.msg_type, bool(frame.fin), frame.get_payload_as_bytes()))
        self.reserved.append((frame.rsv1, frame.rsv2, frame.rsv3))

    def broken(self, code: int, reason: str, closed_with: int | None) -> None:
        self.faults.append(code)
        self.reasons.append(reason)
        self.closed_with.append(closed_with)

    def failed(self) -> None:
        self.failures += 1


def test_picows_is_the_version_that_these_tests_know() -> None:
    assert f"picows=={version('picows')}" in (ROOT / "requirements" / "service.in").read_text().split()


@in_a_loop
async def test_frames_are_told_unmasked_and_in_order() -> None:
    listener = Listener()
    feed(listener, frame(1, b"one") + frame(2, b"\xff", fin=False) + frame(0, b"x" * 300) + frame(9, b"ping"))
    assert listener.frames == [
        (TEXT, True, b"one"),
        (BINARY, False, b"\xff"),
        (CONTINUATION, True, b"x" * 300),
        (WSMsgType.PING, True, b"ping"),
    ]


@in_a_loop
async def test_types_of_frames_can_be_compared_by_identity() -> None:
    listener = Listener()
    feed(listener, frame(1))
    assert listener.frames[0][0] is TEXT


@in_a_loop
async def test_a_frame_may_come_byte_by_byte() -> None:
    listener = Listener()
    for byte in frame(1, b"x" * 200):
        feed(listener, bytes([byte]))
    assert listener.frames == [(TEXT, True, b"x" * 200)]


@in_a_loop
async def test_more_than_its_buffer_holds_may_come_at_once() -> None:
    listener = Listener()
    feed(listener, frame(1, b"x" * MAX) * 50)
    assert listener.frames == [(TEXT, True, b"x" * MAX)] * 50


@in_a_loop
async def test_however_fast_a_client_sends_its_buffer_does_not_grow_without_end() -> None:
    listener = Listener()
    feed(listener, frame(1, b"x" * MAX) * 5000)
    assert len(listener.frames) == 5000
    assert len(WSProtocol.get_buffer(listener.own, -1)) < 128 * 1024


@pytest.mark.parametrize("reserved", [0x40, 0x20, 0x10])
@in_a_loop
async def test_reserved_bits_are_told_and_left_to_us(reserved: int) -> None:
    listener = Listener()
    feed(listener, frame(1, reserved=reserved))
    assert listener.reserved == [(reserved == 0x40, reserved == 0x20, reserved == 0x10)]
    assert not listener.faults


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
    feed(listener, data)
    assert listener.frames == []
    assert set(listener.faults) == {code}
    assert all(0 < len(reason.encode()) <= 123 for reason in listener.reasons)


@in_a_loop
async def test_a_fault_of_the_listener_is_told_and_does_not_end_the_reader() -> None:
    listener = Listener()
    listener.has_a_fault = True
    feed(listener, frame(1))
    listener.has_a_fault = False
    feed(listener, frame(1))
    assert (listener.failures, len(listener.frames)) == (1, 1)


@in_a_loop
async def test_a_ping_is_left_to_us() -> None:
    listener = Listener()
    feed(listener, frame(9))
    assert len(listener.frames) == 1


# One reader for all


@in_a_loop
async def test_whole_frames_of_many_clients_are_read_by_one_reader_each_for_its_own_client() -> None:
    shared = FrameReader(MAX)
    clients = [Listener(shared) for _ in range(5)]
    for turn in range(3):
        for number, client in enumerate(clients):
            feed(client, frame(1, b"%d" % number) + frame(9, b"%d" % turn))
    for number, client in enumerate(clients):
        assert client.own is None
        assert [payload for kind, _, payload in client.frames if kind == TEXT] == [b"%d" % number] * 3


@in_a_loop
async def test_a_client_that_has_begun_a_frame_has_a_reader_of_its_own_and_disturbs_nobody() -> None:
    shared = FrameReader(MAX)
    alice, bob, carol = Listener(shared), Listener(shared), Listener(shared)
    half = frame(1, b"alice" * 20)
    feed(alice, frame(1, b"first") + half[:50])
    feed(bob, frame(1, b"bob"))
    feed(carol, b"\x81")
    feed(bob, frame(1, b"bob again"))
    assert (begun_frame(alice.own)[:2], begun_length(alice.own)) == (half[:2], 50)
    assert (begun_frame(carol.own), begun_frame(bob.own), begun_length(bob.own)) == (b"\x81", b"", 0)
    feed(alice, half[50:])
    feed(carol, frame(1, b"carol")[1:])
    assert [payload for _, _, payload in alice.frames] == [b"first", b"alice" * 20]
    assert [payload for _, _, payload in bob.frames] == [b"bob", b"bob again"]
    assert [payload for _, _, payload in carol.frames] == [b"carol"]
    assert begun_length(alice.own) == begun_length(carol.own) == 0


@in_a_loop
async def test_clients_that_close_leave_the_reader_to_the_others() -> None:
    shared = FrameReader(MAX)
    for code in (1000, 1001, 4321):
        client = Listener(shared)
        feed(client, frame(1, b"x") + frame(8, code.to_bytes(2, "big")))
        assert [kind for kind, _, _ in client.frames] == [TEXT, CLOSE]
        assert (client.own, client.faults) == (None, [])


@in_a_loop
async def test_the_fault_of_one_client_is_not_that_of_the_next() -> None:
    shared = FrameReader(MAX)
    for fault in (b"\x81\x00", frame(3), frame(1, b"x" * (MAX + 1)), frame(8, b"\x03"), frame(1) + frame(8, b"\x03")):
        mallory, alice = Listener(shared), Listener(shared)
        feed(mallory, fault)
        feed(alice, frame(1, b"x") + frame(8))
        assert mallory.faults
        assert ([kind for kind, _, _ in alice.frames], alice.faults) == ([TEXT, CLOSE], [])


@in_a_loop
async def test_a_fault_of_ours_with_one_client_is_not_one_with_the_next() -> None:
    shared = FrameReader(MAX)
    mallory, alice = Listener(shared), Listener(shared)
    mallory.has_a_fault = True
    feed(mallory, frame(1) + frame(8))
    feed(alice, frame(1) + frame(8))
    assert (mallory.failures, [kind for kind, _, _ in alice.frames], alice.faults) == (2, [TEXT, CLOSE], [])


class Hopeless(Listener):
    """Cannot even be told that it has made a mistake, or that its client has."""

    def broken(self, code: int, reason: str, closed_with: int | None) -> None:
        raise RuntimeError

    def failed(self) -> None:
        raise RuntimeError


@pytest.mark.parametrize(
    "secret",
    [frame(1, b"secret") * 3, frame(1, b"secret") + b"\x81\x00", b"\x81\x00"],
    ids=["frames", "a_broken_frame_behind", "a_broken_frame"],
)
@in_a_loop
async def test_what_is_behind_a_fault_of_ours_is_told_to_no_other_client(secret: bytes) -> None:
    shared = FrameReader(MAX)
    mallory, alice = Hopeless(shared), Listener(shared)
    mallory.has_a_fault = True
    with pytest.raises(RuntimeError):
        feed(mallory, secret)
    for _ in range(2):
        feed(alice, frame(1, b"her own"))
    assert (alice.frames, alice.faults) == ([(TEXT, True, b"her own")] * 2, [])


@in_a_loop
async def test_a_client_whose_reader_is_let_go_of_does_not_wait_for_the_garbage_collector() -> None:
    client = Listener(FrameReader(MAX))
    feed(client, frame(1)[:3])
    gone = weakref.ref(client)
    gc.disable()
    try:
        client.own = None
        del client
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("payload", "code"), [(b"", 0), ((4321).to_bytes(2, "big"), 4321)])
@in_a_loop
async def test_a_fault_behind_a_close_frame_is_told_with_its_code(payload: bytes, code: int) -> None:
    shared = FrameReader(MAX)
    client, other = Listener(shared), Listener(shared)
    feed(other, frame(8))
    feed(client, frame(8, payload) + b"\x81\x00")
    assert set(client.closed_with) == {code}
    feed(other, b"\x81\x00")
    assert set(other.closed_with) == {None}


@in_a_loop
async def test_nothing_that_a_client_may_send_at_once_makes_the_buffer_of_all_grow() -> None:
    shared = FrameReader(MAX)
    at, room = len(shared.room), len(WSProtocol.get_buffer(shared._reader, -1))
    feed(Listener(shared), (frame(1, b"x" * 58) * 100)[:at])
    assert len(WSProtocol.get_buffer(shared._reader, -1)) == room


def test_of_picows_and_uvicorn_nothing_else_is_loaded() -> None:
    program = """
import asyncio, sys
import service.fast.runner
from service.fast.frame_reader import FrameReader

async def read():
    FrameReader(1000)  # picows imports more when it has a connection

asyncio.run(read())
loaded = {name for name, module in sys.modules.items() if module is not None}
assert not {"aiofastnet", "python_socks", "click"} & loaded
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("seed", range(20))
@in_a_loop
async def test_however_their_bytes_come_in_turns_each_client_is_told_its_own_frames(seed: int) -> None:
    dice, shared = random.Random(seed), FrameReader(MAX)
    clients = [Listener(shared) for _ in range(4)]
    said = [[(BINARY, True, dice.randbytes(dice.choice((0, 1, 125, 126, MAX)))) for _ in range(30)] for _ in clients]
    rest = [b"".join(frame(2, payload) for _, _, payload in frames) for frames in said]
    while any(rest):
        at = dice.choice([number for number, bytes_ in enumerate(rest) if bytes_])
        length = dice.choice((1, 2, 7, 100, 1006, 5000))
        feed(clients[at], rest[at][:length])
        rest[at] = rest[at][length:]
        if not begun_length(clients[at].own):
            clients[at].own = None
    assert [client.frames for client in clients] == said
    assert [client.faults for client in clients] == [[]] * 4
