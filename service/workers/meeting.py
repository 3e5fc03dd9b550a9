"""Where workers wait for each other: each says how far it has come, and goes on when all have come as far.

What they say goes to the process that watches them, in the way of sd_notify(3), with the end of a pipe. That process
keeps the ends until the last worker is there, and then closes them all.
"""

import asyncio
import logging
import os
import select
from collections.abc import Mapping

from service.process.notify import Notifier

# The pipe whose end shows a worker that the process that watches it has ended.
LIFELINE_VARIABLE = "WEBSOCKET_LIFELINE_FD"
# What a worker says: `WORKER_IS_AT=POINT`.
AT = "WORKER_IS_AT"
# One that has died is not waited for; one that is stuck is not waited for any longer than this.
PATIENCE_S = 10.0

logger = logging.getLogger(__name__)


async def all_are_at(point: str, notifier: Notifier, environ: Mapping[str, str]) -> bool:
    """Wait until all workers have come to a point. Returns: whether they have; False as well if there are no others."""
    if LIFELINE_VARIABLE not in environ:
        return False
    loop, come = asyncio.get_running_loop(), asyncio.Event()
    ours, theirs = os.pipe()
    loop.add_reader(ours, come.set)
    try:
        try:
            notifier.transmit(f"{AT}={point}", [theirs])
        finally:
            os.close(theirs)
        await asyncio.wait_for(come.wait(), PATIENCE_S)
    except (OSError, asyncio.TimeoutError) as error:
        logger.warning("the other workers are not waited for any longer: %s", str(error) or "one is stuck")
        return False
    finally:
        loop.remove_reader(ours)
        os.close(ours)
    return True


def is_orphan(environ: Mapping[str, str]) -> bool:
    """Whether the process that watches this worker is gone. It will stop soon."""
    if LIFELINE_VARIABLE not in environ:
        return False
    lifeline = select.poll()
    lifeline.register(int(environ[LIFELINE_VARIABLE]))
    return bool(lifeline.poll(0))


class Meeting:
    """Knows for each point the workers that wait there."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[int, int]] = {}

    def come(self, worker: int, point: str, descriptor: int) -> None:
        """A worker has come to a point; it goes on when the descriptor is closed."""
        there = self._waiting.setdefault(point, {})
        if worker in there:
            os.close(there[worker])
        there[worker] = descriptor

    def leave(self, worker: int) -> None:
        """A worker has ended."""
        for there in self._waiting.values():
            if worker in there:
                os.close(there.pop(worker))

    def let_go(self, number: int) -> None:
        """Let those go on that wait where so many are."""
        for point in [point for point, there in self._waiting.items() if len(there) >= number]:
            for descriptor in self._waiting.pop(point).values():
                os.close(descriptor)

    def close(self) -> None:
        """Nobody waits any more."""
        self.let_go(0)
