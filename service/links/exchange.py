"""Carries out what the sessions decide, for the shells that await: reads each client's link, and empties its outbox."""

import asyncio
import contextlib

from service.core.admission import Admission
from service.core.bounds import LAST_WORDS_S
from service.core.center import Center
from service.links.link import Link
from service.links.outbox import Outbox
from service.links.reading import Reading
from service.process.hangups import Hangups
from service.process.ticker import Ticker


class Exchange:
    """All clients of this process that have a `Link`."""

    def __init__(self, center: Center) -> None:
        self.center = center
        self._ticker = Ticker(center)
        self._hangups = Hangups()
        self._finishing: set[asyncio.Task[None]] = set()

    async def serve(self, link: Link, admission: Admission) -> None:
        """Serve one client to its end. On return the shell must drop the connection if it is still there."""
        center = self.center
        outbox = Outbox(link, center.settings.limits.queue, center.hub.tally, center.stopwatch)
        session = admission.open(self.center, outbox)
        reading = Reading(link, session, self.center.turns, self._hangups)
        self._ticker.wake()
        session.start()
        reader = asyncio.create_task(reading.run())
        tasks = (reader, outbox.writer)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            fault = None if outbox.farewell else link.fault
            if fault is not None:
                center.hub.tally.close(fault)
            session.end(outbox.farewell or fault)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()  # a fault of ours must not stay unseen
        # Sending to a client fails before everything that it had sent is received.
        if outbox.farewell is None and (reading.ahead or not reading.is_over):
            task = asyncio.create_task(self._finish(reading))
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)
        else:
            center.hub.drop_unsent(len(reading.ahead))

    async def _finish(self, reading: Reading) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reading.finish(), LAST_WORDS_S)
        self.center.hub.drop_unsent(len(reading.ahead))
