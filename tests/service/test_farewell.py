"""How we end a connection."""

import asyncio

import pytest

from service.fast.farewell import Farewell
from tests.service.transports import FakeTransport


def leave(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch) -> int:
    """Leave a peer that does not close, and do not wait for long; the result is how often the end was told."""
    monkeypatch.setattr("service.fast.farewell.CLOSE_GRACE_S", 0.01)
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
    monkeypatch.setattr("service.fast.farewell.CLOSE_GRACE_S", 0.01)
    transport = FakeTransport()

    async def play() -> None:
        farewell = Farewell(transport, lambda: None)
        assert not farewell.eof_received()  # so that the transport closes itself
        farewell.connection_lost(None)
        await asyncio.sleep(0.03)

    asyncio.run(play())
    assert "abort" not in transport.done
