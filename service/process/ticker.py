"""The clock of a center: ticks once a second while anybody is connected, and costs nothing while nobody is."""

import asyncio
import logging

from service.core.center import Center

PERIOD_S = 1.0
# How often it is looked whether the loop is late, and a delivery is timed.
LOOK_S = 0.1

logger = logging.getLogger("service")


class Ticker:
    """Makes a center tick; every shell wakes it for each client."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Tick until nobody is connected."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time() + PERIOD_S
        while self._center.hub.members:
            due = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            now = loop.time()
            self._center.lag.note(max(0.0, now - due))
            self._center.stopwatch.is_due = True
            if now >= next_tick:
                next_tick = now + PERIOD_S
                try:
                    self._center.tick()
                except Exception:  # of one client, say: all others still need their pings
                    logger.exception("what was due could not be done")
