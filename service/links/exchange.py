"""Carries out what the sessions decide, for the shells that await: reads each client's link, and empties its outbox."""

import asyncio

from service.core.admission import Admission
from service.core.center import Center
from service.core.session import Session
from service.links.link import Link
from service.links.outbox import Outbox
from service.process.ticker import Ticker

# A client that has sent many messages at once gives way after this many, so that their recipients' writers can run:
# else a burst would fill the outbox of a client that reads as fast as it can.
FAIR_SHARE = 64


class Exchange:
    """All clients of this process that have a `Link`."""

    def __init__(self, center: Center) -> None:
        self.center = center
        self._ticker = Ticker(center)

    async def serve(self, link: Link, admission: Admission) -> None:
        """Serve one client to its end. On return the shell must drop the connection if it is still there."""
        outbox = Outbox(link, self.center.settings.limits.queue, self.center.hub.tally)
        session = admission.open(self.center, outbox)
        self._ticker.wake()
        session.start()
        reader = asyncio.create_task(_read(link, session))
        tasks = (reader, outbox.writer)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.end(outbox.farewell)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()  # a fault of ours must not stay unseen


async def _read(link: Link, session: Session) -> None:
    taken = 0
    while (frame := await link.receive()) is not None:
        pause = session.receive(frame.encode()) if isinstance(frame, str) else session.receive_binary(frame)
        taken += 1
        if pause or taken % FAIR_SHARE == 0:
            await asyncio.sleep(pause)
