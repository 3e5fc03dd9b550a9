"""How one worker is, and all workers together. Workers tell it each other."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from service.core.tally import Tally


class Footprint(NamedTuple):
    """Where a process is, and what it takes there: its resident memory, and CPU time since its start."""

    host: str
    pid: int
    memory_bytes: int
    cpu_s: float


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
        inherited=Tally(),
    )
