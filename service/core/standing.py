"""How one worker is, all workers together, and other hosts as one worker sees them. Workers tell it each other."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from service.core.tally import Tally


class Footprint(NamedTuple):
    """Where a process is, and what it takes there: its resident memory, and CPU time since its start."""

    host: str
    pid: int
    memory_bytes: int
    cpu_s: float


class Abroad(msgspec.Struct, kw_only=True):
    """How a worker stands with other hosts. `since` is when `state` began, from the epoch."""

    state: str
    """`up`: what we publish on the engine comes back to us; `alone`: not now; `never`: not since the start."""
    since: float
    hosts: int
    links: int
    beat_s: float
    """How long what we publish takes to come back."""
    unacknowledged: int
    """Bytes that are on their way."""


class Elsewhere(NamedTuple):
    """Another host, as one of our workers sees it."""

    id: str
    """What the engine knows it by: no other host has the same."""
    name: str
    """Its host name, which others may have too."""
    since: float
    """Since when it can be reached, or cannot be reached any more; from the epoch."""
    workers: tuple[str, ...]
    """Those that are reached, by what the bus knows them by; none while the host is away."""
    connections: int


class Standing(msgspec.Struct, kw_only=True):
    """One worker now. `since` counts from the epoch, `loop_lag_s` is the longest of the last seconds."""

    host: str
    pid: int
    version: str
    server: str
    since: float
    connections: int
    queue_bytes: int
    """What waits to be sent to clients."""
    loop_lag_s: float
    memory_bytes: int
    tally: Tally
    """What this worker has counted itself."""
    inherited: Tally
    """What workers that have gone have left to it."""
    is_mailbox_failing: bool = False
    """Whether messages cannot be stored that should be."""
    abroad: Abroad | None = None
    """None without an engine."""


def together(standings: Sequence[Standing], silent: Iterable[Standing] = ()) -> Standing:
    """All workers as one, with all that was ever counted; where and what it is, is said of the first.

    Of `silent` ones, which do not answer now, only what they have counted is included, as far as it is known: without
    it, the counts of all would fall.
    """
    tally = Tally()
    for each in (*standings, *silent):
        tally.add(each.tally)
        tally.add(each.inherited)
    return msgspec.structs.replace(
        standings[0],
        since=min(each.since for each in standings),
        connections=sum(each.connections for each in standings),
        queue_bytes=sum(each.queue_bytes for each in standings),
        loop_lag_s=max(each.loop_lag_s for each in standings),
        memory_bytes=sum(each.memory_bytes for each in standings),
        tally=tally,
        is_mailbox_failing=any(each.is_mailbox_failing for each in standings),
        inherited=Tally(),
        abroad=_together([each.abroad for each in standings if each.abroad is not None]),
    )


def _together(all_of_them: Sequence[Abroad]) -> Abroad | None:
    """The engine is up when it is for each worker."""
    if not all_of_them:
        return None
    worst = min(all_of_them, key=lambda each: (each.state == "up", -each.since))
    return Abroad(
        state=worst.state,
        since=worst.since,
        hosts=min(each.hosts for each in all_of_them),
        links=sum(each.links for each in all_of_them),
        beat_s=max(each.beat_s for each in all_of_them),
        unacknowledged=sum(each.unacknowledged for each in all_of_them),
    )
