"""What one client has yet to be sent: a bounded queue, and the one task that empties it.

Whoever has a message for a client puts it here and goes on: a client that does not read costs nobody else a moment,
and never more memory than the bounds below.
"""

import asyncio
import logging
from collections import deque
from sys import getsizeof

from service.close_codes import SLOW_CONSUMER, CloseReason
from service.link import CLOSE_GRACE_S, Link, LinkClosedError

# What may wait for one client, in bytes of memory: enough for a client that is away for seconds, and small enough
# that a thousand of them fit into a small host.
MAX_QUEUED_BYTES = 1024 * 1024
# However long messages may be, a healthy client must be able to get a few of them in one turn of the loop.
MAX_QUEUED_LONGEST_MESSAGES = 16
# Bounds the burst of work when a client reads again after a pause.
MAX_QUEUED_MESSAGES = 8192

logger = logging.getLogger(__name__)


class Outbox:
    """The texts that wait for one client. `writer`, its task, ends when the client is gone or has been told so."""

    def __init__(self, link: Link, longest_message: int) -> None:
        self._link = link
        self._max_bytes = max(MAX_QUEUED_BYTES, MAX_QUEUED_LONGEST_MESSAGES * longest_message)
        self._texts: deque[str] = deque()
        self._bytes = 0
        self._farewell: CloseReason | None = None
        self._wake = asyncio.Event()
        self.writer = asyncio.create_task(self._write())

    def put(self, text: str) -> None:
        """Send `text` after all that waits already; a client that has let too much pile up is closed instead."""
        if self._farewell is not None:
            return
        self._texts.append(text)
        self._bytes += getsizeof(text)
        if self._bytes > self._max_bytes or len(self._texts) > MAX_QUEUED_MESSAGES:
            self.close(SLOW_CONSUMER)
        self._wake.set()

    def close(self, reason: CloseReason) -> None:
        """Drop what waits, and close the connection; a client that does not take even that is cut off."""
        if self._farewell is not None:
            return
        logger.info("a client is closed: %d %s", *reason)
        self._farewell = reason
        self._texts.clear()
        self._wake.set()
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self.writer.cancel)

    async def _write(self) -> None:
        try:
            while self._farewell is None:
                await self._wake.wait()
                self._wake.clear()
                while self._texts:
                    text = self._texts.popleft()
                    self._bytes -= getsizeof(text)
                    await self._link.send(text)
            await self._link.close(self._farewell)
        except LinkClosedError:
            pass
