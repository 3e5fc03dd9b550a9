"""A client's WebSocket without a network: the test plays the client."""

import asyncio

from service.core.close_codes import CloseReason
from service.links.link import LinkClosedError


class FakeLink:
    """What the service sends lands in `sent` and `closed`; what the client sends is put into `incoming`, None last.

    While `reads` is not set, the client's buffers are full and every send waits; while `answers` is not, every ping.
    """

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.sent: list[str] = []
        self.closed: list[CloseReason] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.answers = asyncio.Event()
        self.gone = False
        self.transport: asyncio.BaseTransport | None = None
        self.fault: CloseReason | None = None

    async def receive(self) -> str | bytes | None:
        return await self.incoming.get()

    async def send(self, text: bytes) -> None:
        await self.reads.wait()
        if self.gone:
            raise LinkClosedError
        self.sent.append(text.decode())

    async def close(self, reason: CloseReason) -> None:
        await self.reads.wait()
        self.closed.append(reason)

    async def is_alive(self) -> bool:
        await self.answers.wait()
        if self.gone:
            raise LinkClosedError
        return True


async def turns(number: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)
