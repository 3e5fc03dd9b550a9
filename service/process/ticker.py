"""The clock of a center: ticks once a second while anybody is connected, and costs nothing while nobody is."""

import asyncio

from service.core.center import Center

PERIOD_S = 1.0


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
        while self._center.hub.members:
            await asyncio.sleep(PERIOD_S)
            self._center.tick()
