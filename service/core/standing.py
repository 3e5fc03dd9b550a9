"""How one worker is, and all workers together. Workers tell it each other."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from service.core.tally import Tally, add_counts


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
    batches: int
    ends: dict[str, int]
    """Links that have ended, by reason."""


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
    cpu_s: float
    tally: Tally
    """What this worker has counted itself."""
    inherited: Tally
    """What workers that have gone have left to it."""
    is_mailbox_failing: bool = False
    """Whether messages cannot be stored that should be."""
    abroad: Abroad | None = None
    """None without an engine."""


def together(standings: Sequence[Standing]) -> Standing:
    """All workers as one, with all that was ever counted; where and what it is, is said of the first."""
    tally = Tally()
    for each in standings:
        tally.add(each.tally)
        tally.add(each.inherited)
    return msgspec.structs.replace(
        standings[0],
        since=min(each.since for each in standings),
        connections=sum(each.connections for each in standings),
        queue_bytes=sum(each.queue_bytes for each in standings),
        loop_lag_s=max(each.loop_lag_s for each in standings),
        memory_bytes=sum(each.memory_bytes for each in standings),
        cpu_s=sum(each.cpu_s for each in standings),
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
    ends: dict[str, int] = {}
    for each in all_of_them:
        add_counts(ends, each.ends)
    return Abroad(
        state=worst.state,
        since=worst.since,
        hosts=min(each.hosts for each in all_of_them),
        links=sum(each.links for each in all_of_them),
        beat_s=max(each.beat_s for each in all_of_them),
        unacknowledged=sum(each.unacknowledged for each in all_of_them),
        batches=sum(each.batches for each in all_of_them),
        ends=ends,
    )
