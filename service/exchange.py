"""Carries out what the sessions decide: reads each client's link, and puts what it causes into the outboxes.

Every shell (ASGI, standalone) drives its clients through the one `Exchange` of its process.
"""

import asyncio
from collections.abc import Iterable
from uuid import uuid4

from service.hub import Address, ConnectionId, Hub
from service.link import Link
from service.outbox import Outbox
from service.session import Effect, Send, Session
from service.settings import Settings

# A client that has sent many messages at once gives way after this many, so that their recipients' writers can run:
# else a burst would fill the outbox of a client that reads as fast as it can.
FAIR_SHARE = 64


class Exchange:
    """All clients of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hub = Hub()
        self._outboxes: dict[ConnectionId, Outbox] = {}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._hub)

    @property
    def full(self) -> bool:
        """Whether the next client must be refused."""
        return self.connections >= self._settings.limits.connections

    def status(self) -> str:
        """One line for the service manager."""
        tally = self._hub.tally
        return (
            f"{self.connections} connections; messages: {tally.routed} routed, "
            f"{tally.unroutable} to nobody, {tally.plain} plain"
        )

    async def serve(self, link: Link) -> None:
        """Serve one client to its end. On return the shell must drop the connection if it is still there."""
        session = Session(self._hub, Address(str(uuid4())))
        outbox = Outbox(link, self._settings.limits.message_size)
        self._outboxes[session.connection] = outbox
        self._carry_out(session.welcome(self._settings.welcome))
        reader = asyncio.create_task(self._read(link, session))
        tasks = (reader, outbox.writer)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.end()
            del self._outboxes[session.connection]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            if not task.cancelled():
                task.result()  # a fault of ours must not stay unseen

    async def _read(self, link: Link, session: Session) -> None:
        taken = 0
        while (frame := await link.receive()) is not None:
            self._carry_out(session.receive(frame))
            taken += 1
            if taken % FAIR_SHARE == 0:
                await asyncio.sleep(0)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            outbox = self._outboxes[effect.connection]
            if isinstance(effect, Send):
                outbox.put(effect.text)
            else:
                outbox.close(effect.reason)
