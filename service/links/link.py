"""What a shell that awaits offers for each client."""

import asyncio
from typing import Protocol

from service.core.close_codes import CloseReason


class LinkClosedError(Exception):
    """The client is gone: nothing can be sent."""


class Link(Protocol):
    """A client's WebSocket."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """Shows that the client hangs up though nothing is read of it; None where nothing shows that."""

    @property
    def fault(self) -> CloseReason | None:
        """Why the library below has closed it by itself; None where it has not, or does not say so."""

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the client is gone."""

    async def send(self, text: bytes) -> None:
        """Hand a text, in UTF-8, to the transport, waiting while its buffer is full.

        Raises:
            LinkClosedError
        """

    async def close(self, reason: CloseReason) -> None:
        """Send a close frame, waiting while the transport's buffer is full.

        Raises:
            LinkClosedError
        """

    async def is_alive(self) -> bool:
        """Whether the client answers a ping; may wait as long as it takes.

        Raises:
            LinkClosedError
        """
