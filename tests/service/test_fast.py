"""One WebSocket of the fast shell, without a network."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from picows import WSMsgType

from service.core.admission import Admission
from service.core.bounds import MAX_FRAGMENTS, READ_AHEAD_BYTES
from service.core.close_codes import RESTART, CloseReason
from service.core.session import Session
from service.core.turns import LATER, NEXT_TURN
from service.fast.fast import FastShell, WebSocket
from tests.service.centers import World, limits
from tests.service.transports import FakeTransport, frame, in_a_loop

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Site:
    """A shell, and clients of it. To be made in a loop."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(**settings)
        self.connections: set[Any] = set()
        self.shell = FastShell(self.world.center, self.connections)

    def connect(self, rest: bytes = b"", address: str | None = None) -> "Guest":
        """A client that has been welcomed."""
        return Guest(self, rest, address)


class Guest:
    """One client of the site."""

    def __init__(self, site: Site, rest: bytes, address: str | None) -> None:
        self.site = site
        self.transport = FakeTransport()
        before = set(site.shell.clients)
        admission = Admission(None, None, address)
        site.shell.open(self.transport, admission, ACCEPT, rest)
        (self.client,) = site.shell.clients - before

    @property
    def session(self) -> Session:
        return self.client._session

    def say(self, *frames: bytes) -> None:
        """All in one segment."""
        self.transport.deliver(b"".join(frames))

    async def heard(self) -> list[tuple[int, bytes]]:
        """The frames of the service since the last call, but for the welcome."""
        await turn()
        frames = self.transport.frames()
        self.transport.writes.clear()
        return [frame for frame in frames if not frame[1].startswith(b"temporary-")]

    async def closed(self) -> CloseReason:
        """Why the service has closed, when it has done nothing else."""
        ((opcode, payload),) = [frame for frame in await self.heard() if frame[0] != PING]
        assert opcode == CLOSE
        return CloseReason(int.from_bytes(payload[:2], "big"), payload[2:].decode())

    def lose(self) -> None:
        """The connection is gone."""
        self.transport.protocol.connection_lost(None)


async def turn() -> None:
    """Let the loop turn until nobody waits for that."""
    for _ in range(64):
        await asyncio.sleep(0)


def to(address: str, message: object = "hello") -> bytes:
    return json.dumps({"recipient_uuid": address, "message": message}).encode()


@in_a_loop
async def test_the_handshake_is_answered_and_the_client_welcomed_in_one_write() -> None:
    guest = Site().connect()
    assert guest.transport.writes == [ACCEPT + b"\x81\x0btemporary-1"]


@in_a_loop
async def test_what_came_with_the_handshake_is_heard() -> None:
    site = Site()
    site.connect(rest=frame(TEXT, to("alice", "connected")))
    assert site.world.center.hub.owner_of("alice") is not None  # type: ignore[arg-type]


@in_a_loop
async def test_all_that_a_turn_of_the_loop_has_for_a_client_leaves_in_one_write() -> None:
    site = Site()
    alice, bob, carol = site.connect(), site.connect(), site.connect()
    alice.transport.writes.clear()
    bob.say(*[frame(TEXT, to("temporary-1", number)) for number in range(10)])
    carol.say(frame(TEXT, to("temporary-1", 10)))
    assert alice.transport.writes == []
    await asyncio.sleep(0)
    assert len(alice.transport.writes) == 1
    assert await alice.heard() == [(TEXT, to("temporary-1", number)) for number in range(11)]


@in_a_loop
async def test_the_pongs_of_a_turn_leave_in_one_write_and_in_their_place() -> None:
    guest = Site().connect()
    guest.transport.writes.clear()
    guest.say(frame(PING, b"1"), frame(TEXT, to("temporary-1", "x")), frame(PING, b"2"))
    await asyncio.sleep(0)
    assert len(guest.transport.writes) == 1
    assert await guest.heard() == [(PONG, b"1"), (TEXT, to("temporary-1", "x")), (PONG, b"2")]


@in_a_loop
async def test_many_messages_of_one_turn_are_written_before_it_ends() -> None:
    site = Site()
    alice, bob = site.connect(), site.connect()
    alice.transport.writes.clear()
    for number in range(300):
        bob.client._session._hub.owner_of("temporary-1").forward(b"%d" % number, bob.session, "temporary-1")  # type: ignore
    assert len(alice.transport.writes) == 2
    assert await alice.heard() == [(TEXT, b"%d" % number) for number in range(300)]


@in_a_loop
async def test_a_long_message_is_written_at_once_and_after_those_before_it() -> None:
    guest = Site().connect()
    guest.transport.writes.clear()
    guest.client.send(b"short")
    guest.client.send(b"x" * 5000)
    assert guest.transport.frames() == [(TEXT, b"short"), (TEXT, b"x" * 5000)]


@pytest.mark.parametrize("length", [0, 125, 126, 1023, 1024, 65_535, 65_536, 100_000])
@in_a_loop
async def test_a_message_of_any_length_arrives(length: int) -> None:
    guest = Site().connect()
    guest.client.send(b"x" * length)
    assert await guest.heard() == [(TEXT, b"x" * length)]


@in_a_loop
async def test_what_a_slow_client_has_not_taken_is_known_to_the_letter_however_much_was_written() -> None:
    guest = Site().connect()
    guest.transport.buffered = 0
    for number in range(300):
        guest.client.send(b"%d" % number)
        guest.client.flush()
        guest.transport.buffered += len(guest.transport.writes[-1])
        assert guest.client._unsent() == b"".join(guest.transport.writes[1:])
    guest.transport.buffered = 1000
    assert guest.client._unsent() == b"".join(guest.transport.writes)[-1000:]


# What a client says


@in_a_loop
async def test_a_message_in_fragments_is_one_message_whatever_comes_in_between() -> None:
    guest = Site().connect()
    text = to("temporary-1", "é")
    guest.say(
        frame(TEXT, text[:-3], fin=False),
        frame(PING, b"?"),
        frame(CONTINUATION, b"", fin=False),
        frame(CONTINUATION, text[-3:]),
    )
    assert sorted(await guest.heard()) == [(TEXT, text), (PONG, b"?")]


@in_a_loop
async def test_binary_is_the_text_that_it_is_or_none() -> None:
    guest = Site().connect()
    guest.say(frame(BINARY, to("temporary-1")), frame(BINARY, b"\xff"))
    assert await guest.heard() == [(TEXT, to("temporary-1"))]
    assert guest.site.world.dropped("plain") == 1


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, b"\xff")], 1007),
        ([frame(TEXT, b"\xc3", fin=False), frame(CONTINUATION, b"(")], 1007),
        ([frame(TEXT, b"\xed\xa0\x80")], 1007),
        ([frame(CONTINUATION, b"x")], 1002),
        ([frame(TEXT, b"x", fin=False), frame(TEXT, b"x")], 1002),
        ([frame(TEXT, b"x", fin=False), frame(BINARY, b"x")], 1002),
        ([frame(TEXT, b"x", reserved=0x40)], 1002),
        ([frame(PING, b"x", reserved=0x10)], 1002),
        ([frame(TEXT, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 600, fin=False)], 1009),
        ([frame(TEXT, b"x" * 600, fin=False), frame(CONTINUATION, b"x" * 600)], 1009),
        ([frame(TEXT, b"x" * 1001)], 1009),
        ([frame(TEXT, b"", fin=False), *[frame(CONTINUATION, b"", fin=False)] * MAX_FRAGMENTS], 1009),
        ([b"\x81\x00"], 1002),
        ([frame(CLOSE, (1005).to_bytes(2, "big"))], 1002),
        ([frame(CLOSE, (1006).to_bytes(2, "big"))], 1002),
        ([frame(CLOSE, (0).to_bytes(2, "big"))], 1002),
        ([frame(CLOSE, (5000).to_bytes(2, "big"))], 1002),
    ],
    ids=[
        *("not_utf8", "not_utf8_in_fragments", "a_surrogate", "continues_nothing", "text_in_text", "binary_in_text"),
        *("reserved_bit", "reserved_bit_of_a_control", "too_long_in_fragments", "too_long_at_last", "too_long"),
        *("too_many_fragments", "no_frame", "code_1005", "code_1006", "code_0", "code_5000"),
    ],
)
@in_a_loop
async def test_what_no_client_may_send_closes_with_its_code_and_nothing_after_it_is_heard(
    frames: list[bytes], code: int
) -> None:
    site = Site(limits=limits(message_size=1000, messages_per_second=10_000))
    alice, mallory = site.connect(), site.connect()
    await alice.heard()
    mallory.say(*frames, frame(TEXT, to("temporary-1")))
    mallory.say(frame(TEXT, to("temporary-1")))
    assert (await mallory.closed()).code == code
    assert await alice.heard() == []
    assert mallory.transport.done[-1] == "write_eof"
    assert site.world.center.hub.tally.closed == {code: 1}


@in_a_loop
async def test_as_many_fragments_as_are_allowed_are_a_message() -> None:
    guest = Site(limits=limits(messages_per_second=10_000)).connect()
    text = to("temporary-1")
    pieces = [frame(CONTINUATION, b"", fin=False)] * (MAX_FRAGMENTS - 2)
    guest.say(frame(TEXT, text, fin=False), *pieces, frame(CONTINUATION))
    assert [heard for heard in await guest.heard() if heard[0] != PING] == [(TEXT, text)]


@in_a_loop
async def test_a_ping_is_answered_with_what_it_says() -> None:
    guest = Site().connect()
    guest.say(frame(PING, b"x" * 125), frame(PONG, b"nobody asked"))
    assert await guest.heard() == [(PONG, b"x" * 125)]


@in_a_loop
async def test_pings_count_as_messages() -> None:
    guest = Site(limits=limits(messages_per_second=5)).connect()
    guest.say(*[frame(PING)] * 20)
    assert len(await guest.heard()) < 12


@in_a_loop
async def test_a_pong_counts_as_a_message_unless_we_have_asked_for_it() -> None:
    site = Site(limits=limits(messages_per_second=5))
    for asked in (True, False):
        guest = site.connect()
        guest.client._pings = int(asked)
        guest.say(frame(PONG), frame(PONG, b"?"), *[frame(PING)] * 20)
        assert len(await guest.heard()) == 4 + asked


@in_a_loop
async def test_pieces_of_messages_count_as_messages() -> None:
    guest = Site(limits=limits(messages_per_second=5)).connect()
    guest.say(frame(TEXT, b"", fin=False), *[frame(CONTINUATION, fin=False)] * 20, frame(PING))
    assert await guest.heard() == []
    assert guest.client._fragments is not None
    assert len(guest.client._fragments.pieces) < 12


@pytest.mark.parametrize("payload", [b"", (1000).to_bytes(2, "big"), (4321).to_bytes(2, "big")])
@in_a_loop
async def test_a_close_is_answered_with_its_code_and_ends_the_connection(payload: bytes) -> None:
    guest = Site().connect()
    guest.say(frame(CLOSE, payload + (b"bye" if payload else b"")), frame(TEXT, to("temporary-1")))
    assert await guest.heard() == [(CLOSE, payload)]
    assert guest.transport.done == ["close"]
    assert guest.site.world.center.connections == 0
    guest.lose()
    assert guest.site.world.keeps() == []


@pytest.mark.parametrize("given", [b"", (1000).to_bytes(2, "big"), (3001).to_bytes(2, "big")])
@pytest.mark.parametrize("rest", [frame(CLOSE), b"\x81\x00", frame(3)], ids=["close", "unmasked", "unknown"])
@in_a_loop
async def test_what_follows_a_close_frame_is_not_looked_at(given: bytes, rest: bytes) -> None:
    guest = Site().connect()
    guest.say(frame(CLOSE, given), rest)
    assert await guest.heard() == [(CLOSE, given)]
    assert guest.transport.done == ["close"]
    assert guest.site.world.keeps() == []


@in_a_loop
async def test_a_client_that_closes_and_does_not_read_is_cut_off_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.process.farewell.CLOSE_GRACE_S", 0.01)
    guest = Site().connect()
    guest.transport.buffered = 1
    guest.say(frame(CLOSE))
    await asyncio.sleep(0.03)
    assert guest.transport.done[-1] == "abort"


@in_a_loop
async def test_a_fault_of_ours_closes_with_1011_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: Session, text: bytes) -> float:
        raise KeyError("a fault")

    monkeypatch.setattr("service.core.session.SessionV0.receive", fail)
    guest = Site().connect()
    guest.say(frame(TEXT, b"x"))
    assert (await guest.closed()).code == 1011
    assert "KeyError: 'a fault'" in caplog.text


# What has left


async def decided(verdicts: list[bool], within_s: float = 1.0) -> list[bool]:
    """What was told about whether something has left, as soon as it is."""
    for _ in range(round(within_s / 0.01)):
        if verdicts:
            break
        await asyncio.sleep(0.01)
    return verdicts


@in_a_loop
async def test_what_the_system_has_taken_has_left() -> None:
    guest = Site().connect()
    verdicts: list[bool] = []
    guest.client.send(b"x")
    guest.client.when_left(verdicts.append)
    assert verdicts == []
    assert await decided(verdicts) == [True]


@in_a_loop
async def test_what_the_client_does_not_take_has_left_when_it_does() -> None:
    guest = Site().connect()
    verdicts: list[bool] = []
    guest.client.send(b"first")
    guest.client.when_left(verdicts.append)
    await asyncio.sleep(0)
    second = len(b"second") + 2  # with the head of its frame
    guest.transport.buffered = 1 + second
    guest.client.send(b"second")
    guest.client.when_left(verdicts.append)
    assert await decided(verdicts, 0.1) == []
    guest.transport.buffered = second
    assert await decided(verdicts) == [True]
    guest.transport.buffered = 0
    verdicts.clear()
    assert await decided(verdicts) == [True]


@in_a_loop
async def test_who_does_not_read_keeps_nobody_else_waiting_and_costs_one_look_however_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.fast.fast._LOOK_S", 1000)
    site = Site()
    slow, quick = site.connect(), site.connect()
    slow.transport.buffered = 1_000_000
    verdicts: list[bool] = []
    for _ in range(500):
        slow.client.send(b"x")
        slow.client.when_left(verdicts.append)
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return slow.transport.buffered

    monkeypatch.setattr(slow.transport, "get_write_buffer_size", look)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (looks, verdicts) == (2, [])  # one of them before what waited was written
    quick.client.send(b"x")
    quick.client.when_left(verdicts.append)
    for _ in range(5):
        await asyncio.sleep(0)
    assert verdicts == [True]
    slow.transport.buffered = 0
    site.shell._look_again()
    assert verdicts == [True] * 501


@pytest.mark.parametrize("end", [lambda guest: guest.transport.abort(), lambda guest: guest.client.abort()])
@in_a_loop
async def test_what_waits_for_a_client_that_is_lost_never_leaves(end: Callable[[Guest], None]) -> None:
    guest = Site().connect()
    verdicts: list[bool] = []
    guest.client.send(b"x")
    guest.client.when_left(verdicts.append)
    end(guest)
    assert await decided(verdicts) == [False]
    guest.client.when_left(verdicts.append)
    assert await decided([]) == []
    assert verdicts == [False, False]


@in_a_loop
async def test_what_was_sent_before_the_close_frame_leaves_with_it() -> None:
    guest = Site().connect()
    verdicts: list[bool] = []
    guest.client.send(b"x")
    guest.client.when_left(verdicts.append)
    guest.session.close(RESTART)
    guest.client.send(b"never written")
    refused: list[bool] = []
    guest.client.when_left(refused.append)
    assert refused == []
    assert (await decided(verdicts), await decided(refused)) == ([True], [False])


# How a connection ends


@in_a_loop
async def test_to_close_writes_what_waits_and_says_that_nothing_follows() -> None:
    guest = Site().connect()
    guest.client.send(b"in time")
    guest.session.close(RESTART)
    guest.client.send(b"too late")
    guest.client.close(CloseReason(4321, "again"))
    text, (opcode, payload) = await guest.heard()
    assert (text, opcode, payload[2:]) == ((TEXT, b"in time"), CLOSE, RESTART.reason.encode())
    assert guest.transport.done == ["resume_reading", "write_eof"]


@in_a_loop
async def test_uvicorn_stopping_closes_with_1012() -> None:
    guest = Site().connect()
    guest.client.shutdown()
    assert await guest.closed() == RESTART


@pytest.mark.parametrize("leave", [Guest.lose, lambda guest: guest.session.abandon()])
@in_a_loop
async def test_of_a_client_that_is_gone_nothing_is_kept(leave: Callable[[Guest], None]) -> None:
    guest = Site().connect(address="192.0.2.1")
    assert guest.site.connections == guest.site.shell.clients == {guest.client}
    guest.client.send(b"too late")
    leave(guest)
    if guest.transport.done:
        assert guest.transport.done == ["abort"]
        guest.lose()
    assert guest.site.connections == guest.site.shell.clients == set()
    assert guest.site.world.keeps() == []
    guest.client.send(b"far too late")
    assert await guest.heard() == []


@in_a_loop
async def test_a_client_that_has_been_closed_stays_uvicorns_until_it_is_gone() -> None:
    guest = Site().connect()
    guest.session.close(RESTART)
    assert guest.site.connections == {guest.client}
    guest.lose()
    assert guest.site.connections == set()


# Clients that are too slow, or too fast


@in_a_loop
async def test_a_client_for_whom_too_much_waits_is_closed_with_4101() -> None:
    guest = Site(limits=limits(queue=65_536)).connect()
    assert guest.transport.most == 65_536
    guest.transport.protocol.pause_writing()
    guest.transport.protocol.resume_writing()
    assert (await guest.closed()).code == 4101
    assert guest.site.world.dropped("slow_consumer") == 1


@in_a_loop
async def test_that_a_close_frame_waits_as_well_is_told_of_nobody() -> None:
    guest = Site().connect()
    reader = guest.transport.protocol
    guest.session.close(RESTART)
    reader.pause_writing()
    assert guest.site.world.dropped("slow_consumer") == 0


# A client that has sent more than it may


@in_a_loop
async def test_what_a_client_may_not_do_yet_waits_in_order_and_is_done_in_time() -> None:
    site = Site(limits=limits(messages_per_second=1000))
    alice, bob = site.connect(), site.connect()
    await alice.heard()
    texts = [to("temporary-1", number) for number in range(1030)]
    bob.say(*[frame(TEXT, text) for text in texts[:-1]])
    bob.say(frame(TEXT, texts[-1]))
    heard = await alice.heard()
    assert 1000 <= len(heard) < 1030
    while len(heard) < 1030:
        await asyncio.sleep(0.01)
        heard += await alice.heard()
    assert heard == [(TEXT, text) for text in texts]


@in_a_loop
async def test_of_a_client_that_goes_on_and_on_no_more_is_read_than_is_kept() -> None:
    guest = Site(limits=limits(messages_per_second=1)).connect()
    guest.say(*[frame(TEXT, b"x" * 1000)] * 60)
    assert guest.transport.done == []
    guest.say(*[frame(TEXT, b"x" * 1000)] * 10)
    assert guest.transport.done == ["pause_reading"]
    assert len(guest.client._kept) < 2 * READ_AHEAD_BYTES
    guest.client._session._messages_left = 50
    guest.client._go_on()
    await turn()
    assert guest.transport.done == ["pause_reading", "resume_reading"]


@in_a_loop
async def test_a_message_in_pieces_may_wait_and_a_message_too_expensive_for_the_turn_comes_again() -> None:
    site = Site()
    alice, bob = site.connect(), site.connect()
    await alice.heard()
    later = [LATER, LATER]
    receive = bob.session.receive
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bob.session), "receive", lambda self, text: later.pop() if later else receive(text))
        text = to("temporary-1")
        bob.say(frame(BINARY, text[:5], fin=False), frame(CONTINUATION, text[5:]), frame(TEXT, to("temporary-1", 2)))
        assert await alice.heard() == [(TEXT, text), (TEXT, to("temporary-1", 2))]


def owing(site: Site) -> Guest:
    """A client that has sent more than it may, with a last message to the first client."""
    guest = site.connect(address="192.0.2.7")
    guest.say(*[frame(PING)] * 20, frame(TEXT, to("temporary-1", "goodbye")))
    return guest


@pytest.mark.parametrize("end", ["close", "loss"])
@in_a_loop
async def test_a_client_that_owes_and_goes_is_gone_at_once_and_what_it_has_said_goes_out(end: str) -> None:
    site = Site(limits=limits(messages_per_second=50))
    alice = site.connect()
    guest = owing(site)
    guest.say(*[frame(PING)] * 100, frame(TEXT, to("temporary-1", "and good luck")))
    await alice.heard()
    if end == "close":
        guest.say(frame(CLOSE, b"\x03\xe8"))
        assert (await guest.heard())[-1] == (CLOSE, b"\x03\xe8")
    else:
        guest.lose()
    assert list(site.shell.center.hub.members) == [alice.session]
    assert site.shell.center.connections_of == {}
    assert site.connections - {alice.client} == ({guest.client} if end == "close" else set())
    assert await alice.heard() == []
    guest.session._messages_left = 1e6
    guest.client._go_on()
    assert await alice.heard() == [(TEXT, to("temporary-1", "and good luck"))]


@in_a_loop
async def test_what_a_client_has_said_goes_out_though_it_goes_while_it_is_frozen() -> None:
    site = Site(limits=limits(messages_per_second=50))
    alice = site.connect()
    guest = owing(site)
    guest.say(*[frame(PING)] * 100, frame(TEXT, to("temporary-1", "and good luck")))
    assert guest.client.freeze()
    guest.lose()
    guest.client._go_on()  # its turn comes, and passes
    await alice.heard()
    guest.session._messages_left = 1e6
    guest.client.thaw()
    assert await alice.heard() == [(TEXT, to("temporary-1", "and good luck"))]


@in_a_loop
async def test_what_a_client_has_said_before_it_went_is_dropped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fast.fast.LAST_WORDS_S", 0.01)
    site = Site(limits=limits(messages_per_second=1))
    alice = site.connect()
    guest = owing(site)
    guest.lose()
    await asyncio.sleep(0.05)
    guest.client._go_on()
    assert await alice.heard() == []
    assert site.world.dropped("limit") > 0


@in_a_loop
async def test_what_a_client_has_said_before_it_is_closed_is_counted() -> None:
    site = Site(limits=limits(messages_per_second=1))
    guest = site.connect()
    guest.say(*[frame(TEXT, b"x")] * 20)
    guest.session.expired()
    assert site.world.dropped("plain") + site.world.dropped("limit") == 20


def read_no_further(site: Site) -> tuple[Guest, socket.socket]:
    """A client that has sent so much more than it may that nothing is read of it, and the client's end."""
    guest = site.connect(address="192.0.2.7")
    guest.say(*[frame(TEXT, b"x" * 1000)] * 70)
    assert guest.transport.done == ["pause_reading"]
    return guest, guest.transport.ends[1]


async def gone(site: Site, guest: Guest) -> None:
    """Wait until a client is gone for all others."""
    for _ in range(1000):
        if guest.session not in site.shell.center.hub.members:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it is still there")


@pytest.mark.parametrize("hangs_up", ["shutdown", "close"])
@in_a_loop
async def test_the_end_of_a_client_that_is_not_read_is_seen(hangs_up: str) -> None:
    site = Site(limits=limits(messages_per_second=1))
    guest, far = read_no_further(site)
    far.send(b"what nobody reads yet")
    await turn()
    assert guest.transport.done == ["pause_reading"]
    far.shutdown(socket.SHUT_WR) if hangs_up == "shutdown" else far.close()
    await gone(site, guest)
    assert site.shell.center.connections_of == {}
    assert guest.transport.done == ["pause_reading"]


@in_a_loop
async def test_what_a_client_had_sent_and_nobody_had_read_goes_out_behind_it() -> None:
    site = Site(limits=limits(messages_per_second=1))
    alice = site.connect()
    guest, far = read_no_further(site)
    far.close()
    await gone(site, guest)
    await alice.heard()
    guest.session._messages_left = 1e6
    guest.client._go_on()
    await turn()
    assert guest.transport.done == ["pause_reading", "resume_reading"]
    guest.transport.writes.clear()
    # As much again, so that it is held up once more; and it is asked for nothing that it cannot answer.
    guest.session._messages_left = 0
    guest.say(*[frame(PING, b"x" * 100)] * 700, frame(TEXT, to("temporary-1", "goodbye")))
    assert guest.transport.done[2:] == ["pause_reading"]
    guest.session._messages_left = 1e6
    guest.client._go_on()
    assert await alice.heard() == [(TEXT, to("temporary-1", "goodbye"))]
    assert guest.transport.writes == []
    guest.lose()
    assert site.connections == {alice.client}


@pytest.mark.parametrize(
    "fault", [frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"\xff"), frame(0, b"a piece of nothing"), b"\xff\xff"]
)
@in_a_loop
async def test_nothing_goes_out_behind_the_fault_of_a_client_that_has_hung_up(fault: bytes) -> None:
    site = Site(limits=limits(messages_per_second=1))
    alice = site.connect()
    guest, far = read_no_further(site)
    far.close()
    await gone(site, guest)
    guest.session._messages_left = 1e6
    guest.client._go_on()
    await turn()
    guest.say(fault)
    guest.say(frame(TEXT, to("temporary-1", "goodbye")))
    assert guest.transport.done[-1] == "abort"
    assert await alice.heard() == []


@pytest.mark.parametrize("ends", ["shutdown", "time"])
def test_a_client_that_has_hung_up_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr("service.fast.fast.LAST_WORDS_S", 60.0 if ends == "shutdown" else 0.01)

    @in_a_loop
    async def scenario() -> None:
        site = Site(limits=limits(messages_per_second=1))
        guest, far = read_no_further(site)
        far.close()
        await gone(site, guest)
        if ends == "shutdown":
            guest.client.shutdown()
        await asyncio.sleep(0.05)
        assert guest.transport.done == ["pause_reading", "abort"]
        assert (site.world.dropped("limit") > 0) == (ends == "time")

    scenario()


@in_a_loop
async def test_what_is_no_frame_ends_the_connection_when_it_is_its_turn() -> None:
    site = Site(limits=limits(messages_per_second=50))
    alice = site.connect()
    guest = owing(site)
    guest.say(*[frame(PING)] * 100, frame(TEXT, to("temporary-1", "last")))
    guest.say(b"\x81\x00", frame(PING), frame(PING))
    assert CLOSE not in dict(await guest.heard())
    guest.session._messages_left = 1e6
    guest.client._go_on()
    assert (await alice.heard())[-1] == (TEXT, to("temporary-1", "last"))
    fault = b"\x03\xeaReceived un-masked frame from client, RFC 6455 section 5.1 forbids this"
    assert (await guest.heard())[-1] == (CLOSE, fault)


@in_a_loop
async def test_of_a_client_that_is_closed_nothing_more_is_done() -> None:
    site = Site(limits=limits(messages_per_second=1))
    alice = site.connect()
    guest = owing(site)
    await alice.heard()
    guest.session.close(RESTART)
    guest.client._go_on()
    assert await alice.heard() == []
    assert guest.transport.done == ["resume_reading", "write_eof"]


@in_a_loop
async def test_a_fault_of_ours_in_what_was_kept_closes_one_client_and_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site()
    guest, other = site.connect(), site.connect()
    monkeypatch.setattr(type(guest.session), "receive", lambda self, text: 1 / (self is other.session))
    monkeypatch.setattr("service.fast.fast.logger.exception", lambda _: None)
    for each in (guest, other):
        each.client._kept.put_back(WSMsgType.TEXT, b"x")
        each.client._hold(NEXT_TURN)
    assert [opcode for opcode, _ in await guest.heard()][-1] == CLOSE
    assert CLOSE not in dict(await other.heard())
    assert len(other.client._kept) == 0


@in_a_loop
async def test_clients_that_keep_pace_with_each_other_do_not_all_read_on_in_one_turn() -> None:
    site = Site()
    guests = [site.connect(address=f"192.0.2.{number}") for number in range(100)]
    for guest in guests:
        guest.client._is_paused = True
        guest.client._hold(NEXT_TURN)

    def reading() -> int:
        return sum(guest.transport.done[-1:] == ["resume_reading"] for guest in guests)

    most = 0
    for _ in range(100):
        before = reading()
        await asyncio.sleep(0)
        most = max(most, reading() - before)
    assert reading() == 100
    assert most < 10


# Signs of life


def at(client: WebSocket, *times: float) -> None:
    """Look for signs of life so many seconds after the last one, with an interval of 60 and a timeout of 30."""
    client._heard_at = float(round(client._heard_at))  # so that sums are exact
    for time in times:
        client.keep_alive(client._heard_at + time, 60, 30)


@in_a_loop
async def test_a_client_is_pinged_once_after_a_silence_and_given_up_after_another() -> None:
    guest = Site().connect()
    at(guest.client, 59.9)
    assert await guest.heard() == []
    at(guest.client, 60, 61, 89.9)
    assert await guest.heard() == [(PING, b"")]
    at(guest.client, 90)
    assert await guest.closed() == (1011, "keepalive ping timeout")
    at(guest.client, 200)
    assert await guest.heard() == []


@pytest.mark.parametrize("sign", [frame(PONG), frame(PING), frame(TEXT, b"x"), frame(TEXT, b"x", fin=False)])
@in_a_loop
async def test_whatever_a_client_says_is_a_sign_of_life(sign: bytes) -> None:
    guest = Site().connect()
    at(guest.client, 60)
    guest.say(sign)
    at(guest.client, 89)
    await guest.heard()
    at(guest.client, 59)
    assert await guest.heard() == []
    at(guest.client, 60)
    assert await guest.heard() == [(PING, b"")]


@in_a_loop
async def test_a_silent_client_that_does_not_read_is_cut_off() -> None:
    guest = Site().connect()
    guest.transport.buffered = 1
    at(guest.client, 60, 90)
    assert guest.transport.done[-1] == "abort"


@in_a_loop
async def test_a_client_that_we_do_not_read_is_not_silent() -> None:
    guest = Site(limits=limits(messages_per_second=1)).connect()
    guest.say(*[frame(TEXT, b"x" * 1000)] * 70)
    guest.client._has_spoken = False
    for _ in range(3):
        guest.transport.ends[1].send(b"more")
        at(guest.client, 90)
    assert [opcode for opcode, _ in await guest.heard()] == [PING] * 3
    at(guest.client, 60, 90)
    assert (await guest.heard())[-1][0] == CLOSE


@in_a_loop
async def test_what_is_carried_out_late_is_no_sign_of_life() -> None:
    guest = owing(Site(limits=limits(messages_per_second=5)))
    guest.client._has_spoken = False
    guest.session._messages_left = 1e6
    guest.client._go_on()
    at(guest.client, 60)
    assert (PING, b"") in await guest.heard()


@in_a_loop
async def test_one_sweep_looks_after_all_clients_while_there_are_any() -> None:
    site = Site()
    assert not site.shell._is_sweeping
    guest = site.connect()
    site.connect().lose()
    assert site.shell._is_sweeping
    guest.lose()
    site.shell._sweep()
    assert not site.shell._is_sweeping


# Probes


async def probe(guest: Guest) -> tuple[list[bool], bytes]:
    """Ask whether the client is alive: where the answer will stand, and what the ping says."""
    answers: list[bool] = []
    guest.client.probe(answers.append)
    opcode, payload = (await guest.heard())[-1]
    assert opcode == PING
    return answers, payload


@in_a_loop
async def test_a_client_that_answers_the_ping_of_a_probe_is_alive() -> None:
    guest = Site().connect()
    first, ping = await probe(guest)
    second, other = await probe(guest)
    assert ping != other
    guest.say(frame(PONG, b"something else"), frame(TEXT, b"x"))
    assert first == second == []
    guest.say(frame(PONG, other), frame(PONG, ping), frame(PONG, ping))
    assert first == second == [True]


@in_a_loop
async def test_a_client_that_does_not_answer_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fast.fast.PROBE_TIMEOUT_S", 0.01)
    guest = Site().connect()
    answers, ping = await probe(guest)
    await asyncio.sleep(0.03)
    assert answers == [False]
    guest.say(frame(PONG, ping))
    assert answers == [False]


@in_a_loop
async def test_a_client_that_we_do_not_read_is_alive_and_one_that_we_have_closed_is_dead() -> None:
    guest = Site(limits=limits(messages_per_second=1)).connect()
    guest.say(*[frame(TEXT, b"x" * 1000)] * 70)
    answers: list[bool] = []
    guest.client.probe(answers.append)
    guest.session.close(RESTART)
    guest.client.probe(answers.append)
    assert answers == [True, False]


@in_a_loop
async def test_a_client_that_we_do_not_read_and_that_has_hung_up_is_dead() -> None:
    guest = Site(limits=limits(messages_per_second=1)).connect()
    guest.say(*[frame(TEXT, b"x" * 1000)] * 70)
    guest.transport.ends[1].close()
    answers: list[bool] = []
    guest.client.probe(answers.append)
    assert answers == [False]


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_client_that_is_held_up_while_it_is_asked_is_alive_unless_it_hangs_up(
    monkeypatch: pytest.MonkeyPatch, hangs_up: bool
) -> None:
    monkeypatch.setattr("service.fast.fast.PROBE_TIMEOUT_S", 0.01)

    @in_a_loop
    async def asked() -> None:
        guest = Site(limits=limits(messages_per_second=1)).connect()
        answers: list[bool] = []
        guest.client.probe(answers.append)
        guest.say(*[frame(TEXT, b"x" * 1000)] * 70)
        if hangs_up:
            guest.transport.ends[1].close()
        await asyncio.sleep(0.05)
        assert answers == [not hangs_up]

    asked()


@pytest.mark.parametrize("is_asked_before", [True, False])
def test_a_client_that_another_process_is_about_to_serve_is_alive_unless_it_hangs_up(
    monkeypatch: pytest.MonkeyPatch, is_asked_before: bool
) -> None:
    monkeypatch.setattr("service.fast.fast.PROBE_TIMEOUT_S", 0.01)

    @in_a_loop
    async def asked(hangs_up: bool) -> None:
        guest = Site().connect()
        answers: list[bool] = []
        if is_asked_before:
            guest.client.probe(answers.append)
        assert guest.client.freeze()
        if hangs_up:
            guest.transport.ends[1].close()
        if not is_asked_before:
            guest.client.probe(answers.append)
        await asyncio.sleep(0.05)
        assert answers == [not hangs_up]

    asked(hangs_up=False)
    asked(hangs_up=True)
