"""The texts still to be sent to one client: a bounded queue, and the one task that empties it.

A sender puts its message here and goes on: a client that does not read costs nobody else a moment,
and never more memory than the bounds below.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from service.core import drops
from service.core.bounds import CLOSE_GRACE_S
from service.core.center import PROBE_TIMEOUT_S
from service.core.close_codes import SLOW_CONSUMER, CloseReason
from service.core.pace import Stopwatch
from service.core.tally import Tally
from service.links.link import Link, LinkClosedError

# Bounds the burst of work when a client reads again after a pause.
MAX_QUEUED_MESSAGES = 8192
# The cost of a queued text beside its own length: the object's head and its place in the queue.
_OVERHEAD = 64


class Outbox:
    """The texts that wait for one client. `writer`, its task, ends when the client is gone or its close frame is sent.

    `farewell` is why it was closed, None as long as it was not.
    """

    def __init__(self, link: Link, max_bytes: int, tally: Tally, stopwatch: Stopwatch) -> None:
        self._link = link
        self._max_bytes = max_bytes
        self._tally = tally
        self._stopwatch = stopwatch
        self._texts: deque[bytes] = deque()
        self._bytes = 0
        self.written = 0
        self._taken = self._sent = 0
        self._leaving: deque[tuple[int, Callable[[bool], None]]] = deque()
        self.farewell: CloseReason | None = None
        self._wake = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        self.writer = asyncio.create_task(self._write())
        self.writer.add_done_callback(lambda _: self._give_up())

    def send(self, text: bytes) -> None:
        """Send `text` after all that waits already; a client that has let too much pile up is closed instead."""
        if self.farewell is not None:
            return
        self._texts.append(text)
        self._taken += 1
        self._bytes += len(text) + _OVERHEAD
        if self._bytes > self._max_bytes or len(self._texts) > MAX_QUEUED_MESSAGES:
            self._tally.dropped[drops.SLOW_CONSUMER] += len(self._texts)
            self._tally.close(SLOW_CONSUMER)
            self._texts.clear()
            self.close(SLOW_CONSUMER)
        elif self._stopwatch.is_due:
            self._stopwatch.time(self)
        self._wake.set()

    @property
    def queued(self) -> int:
        return sum(map(len, self._texts))

    def when_left(self, then: Callable[[bool], None]) -> None:
        """Tell later whether all that was sent so far has left for the client; see `service.core.center.Client`."""
        if self.farewell is not None or self.writer.done():
            asyncio.get_running_loop().call_soon(then, False)  # the last text was not even queued
            return
        self._leaving.append((self._taken, then))
        self._wake.set()

    def close(self, reason: CloseReason) -> None:
        """Send what waits, and close the connection; a client that does not take that in time is cut off."""
        if self.farewell is not None:
            return
        self.farewell = reason
        self._wake.set()
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self.writer.cancel)

    def abort(self) -> None:
        """End the connection at once."""
        self.writer.cancel()

    def probe(self, answered: Callable[[bool], None]) -> None:
        """Ping the client, and return whether it has answered within `PROBE_TIMEOUT_S`."""
        probe = asyncio.create_task(self._probe(answered))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, answered: Callable[[bool], None]) -> None:
        try:
            alive = await asyncio.wait_for(self._link.is_alive(), PROBE_TIMEOUT_S)
        except (LinkClosedError, asyncio.TimeoutError):
            alive = False
        answered(alive)

    async def _write(self) -> None:
        with contextlib.suppress(LinkClosedError):
            while True:
                while self._texts:
                    text = self._texts.popleft()
                    self._bytes -= len(text) + _OVERHEAD
                    self.written += len(text)
                    await self._link.send(text)
                    self._sent += 1
                    self._tell()
                self._tell()
                if self.farewell is not None:
                    break
                await self._wake.wait()
                self._wake.clear()
            await self._link.close(self.farewell)

    def _tell(self) -> None:
        while self._leaving and self._leaving[0][0] <= self._sent:
            self._leaving.popleft()[1](True)

    def _give_up(self) -> None:
        while self._leaving:
            self._leaving.popleft()[1](False)
