"""How we end a connection."""

import asyncio

import pytest

from service.core.bounds import CLOSE_GRACE_S
from service.process.farewell import STALL_S, Farewell, PatientFarewell
from tests.service.transports import FakeTransport, in_a_loop


def leave(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave a peer that does not close, and do not wait for long; the result is how often the end was told."""
    monkeypatch.setattr("service.process.farewell.CLOSE_GRACE_S", 0.01)
    ends: list[None] = []

    async def play() -> None:
        farewell = Farewell(transport, lambda: ends.append(None))
        assert transport.protocol is farewell
        transport.deliver(b"too late")
        await asyncio.sleep(0.03)
        farewell.connection_lost(None)

    asyncio.run(play())
    return len(ends)


def test_the_peer_is_told_that_nothing_follows_read_for_a_while_and_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport()
    assert leave(transport, monkeypatch) == 1
    assert transport.done == ["resume_reading", "write_eof", "abort"]


def test_a_transport_that_cannot_be_half_closed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport(half_closes=False)
    leave(transport, monkeypatch)
    assert transport.done == ["resume_reading", "close", "abort"]


def test_a_connection_that_is_ending_already_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport()
    transport.close()
    leave(transport, monkeypatch)
    assert transport.done == ["close", "abort"]


def test_a_peer_that_closes_in_time_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.process.farewell.CLOSE_GRACE_S", 0.01)
    transport = FakeTransport()

    async def play() -> None:
        farewell = Farewell(transport, lambda: None)
        assert not farewell.eof_received()  # so that the transport closes itself
        farewell.connection_lost(None)
        await asyncio.sleep(0.03)

    asyncio.run(play())
    assert "abort" not in transport.done


def looks(farewell: PatientFarewell, transport: FakeTransport) -> int:
    """After how many looks it is cut off, of those that a peer has that takes nothing."""
    for number in range(100):
        if transport.is_closing():
            return number
        farewell._timer._run()
    raise AssertionError("it is waited for without end")


@in_a_loop
async def test_a_peer_may_take_a_long_answer_slowly_and_not_stop() -> None:
    transport = FakeTransport()
    farewell = PatientFarewell(transport, lambda: None)
    for left in range(200, 100, -1):
        transport.buffered = left
        farewell._timer._run()
        assert not transport.is_closing()
    assert looks(farewell, transport) == STALL_S / CLOSE_GRACE_S
    farewell.connection_lost(None)


@in_a_loop
async def test_what_the_system_has_and_the_peer_does_not_is_not_taken() -> None:
    transport = FakeTransport()
    transport.ends[0].send(b"answer")
    farewell = PatientFarewell(transport, lambda: None)
    farewell._timer._run()
    farewell._timer._run()
    assert not transport.is_closing()
    transport.ends[1].recv(100)
    assert looks(farewell, transport) == 2  # it has just taken the rest
    farewell.connection_lost(None)


@in_a_loop
async def test_a_peer_that_has_all_may_go_on_with_what_it_sends_for_a_while() -> None:
    transport = FakeTransport()
    farewell = PatientFarewell(transport, lambda: None)
    for _ in range(int(STALL_S / CLOSE_GRACE_S) - 1):
        transport.deliver(b"more")
        farewell._timer._run()
        assert not transport.is_closing()
    transport.deliver(b"more")
    assert looks(farewell, transport) == 1
    farewell.connection_lost(None)


@in_a_loop
async def test_a_peer_that_has_all_and_sends_nothing_is_cut_off_at_once() -> None:
    transport = FakeTransport()
    farewell = PatientFarewell(transport, lambda: None)
    assert looks(farewell, transport) == 1
    farewell.connection_lost(None)
