"""What a shell that awaits offers for each client, and the bounds that every shell keeps."""

import asyncio
import select
from typing import Protocol

from service.core.close_codes import CloseReason

# How long a client that is being closed has to take what was written to it. One that does not read never will.
CLOSE_GRACE_S = 3.0

# The pieces one message may come in. Clients that fragment at all send pieces of kilobytes; a piece costs us a
# hundred bytes even when it is empty, so that the bound on a message's length does not bound this.
MAX_FRAGMENTS = 1024

# How much of what a client has sent is kept until the client may go on; beyond this it is read no further.
READ_AHEAD_BYTES = 64 * 1024
READ_AHEAD_FRAMES = 512
# How long what a client had sent before it went is still carried out, at the pace that its limits allow: as long as a
# WebSocket library waits for the answer to its close frame.
LAST_WORDS_S = 10.0


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has closed the connection or its half of it, even if what it sent before is not read yet.

    Source: poll(2), POLLRDHUP.
    """
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


class LinkClosedError(Exception):
    """The client is gone: nothing can be sent."""


class Link(Protocol):
    """A client's WebSocket."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """Shows that the client hangs up though nothing is read of it; None where nothing shows that."""

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
