"""The service is about to stop, and sends its clients away."""

import asyncio
from typing import Any

import pytest

from service.core.close_codes import RESTART
from service.process.drain import drain
from service.process.drain_time import duration
from service.settings import Drain
from tests.service.centers import Party, World


@pytest.mark.parametrize(
    ("clients", "window", "rate", "expected"),
    [(0, 5, 500, 0), (50, 5, 500, 0.1), (2500, 5, 500, 5), (1_000_000, 5, 500, 5), (10, 0, 500, 0)],
)
def test_few_clients_are_gone_at_once_and_many_take_the_window(
    clients: int, window: float, rate: float, expected: float
) -> None:
    assert duration(clients, window, rate) == expected


def drained(world: World, parties: list[Party], monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """When how many clients had been closed, in seconds since the beginning."""
    closed: list[tuple[float, int]] = []
    began = world.time

    async def sleep(seconds: float) -> None:
        closed.append((round(world.time - began, 3), sum(bool(party.client.closed) for party in parties)))
        world.time += seconds

    monkeypatch.setattr("service.process.drain.asyncio.sleep", sleep)
    asyncio.run(drain(world.center))
    return closed


def test_clients_are_closed_one_after_another_over_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(drain=Drain(window=4, rate=1))
    parties = [world.v0() for _ in range(8)]
    assert drained(world, parties, monkeypatch) == [(number * 0.5, number) for number in range(8)]
    assert all(party.client.closed == [RESTART] for party in parties)
    assert world.time == 1_000_004.0


def test_clients_of_nc_v1_are_told_first_when_their_turn_is(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(drain=Drain(window=4, rate=1))
    parties = [world.v1(str(number)) for number in range(4)]
    drained(world, parties, monkeypatch)
    frames: list[Any] = [frame for party in parties for frame in party.heard()]
    assert sorted(frame["reconnect_in_ms"] for frame in frames) == [1000, 2000, 3000, 4000]
    assert {(frame["type"], frame["deadline_ms"]) for frame in frames} == {("goaway", 4000)}


def test_nobody_is_let_in_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    drained(world, [], monkeypatch)
    assert world.center.draining
