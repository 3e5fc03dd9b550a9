"""One connection of a client, and the requests on it."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from wsbundle_client.losses import Lost
from wsbundle_client.messages import Sent
from wsbundle_client.wire import encode

# A silent service is pinged after one ping interval, and given up after this many.
SILENT_PING_INTERVALS = 1.5

Outcome = TypeVar("Outcome")


class Link:
    """One connection, from the answer to its hello to its end."""

    def __init__(self, socket: ClientConnection, server_time: float, ok: dict[str, Any], second: float) -> None:
        self.socket = socket
        self._ping_s = ok["ping_ms"] / 1000 * second
        self.message_size: int = ok["limits"]["message_size"]
        self.uuid: str = ok["uuid"]
        self.expires: float | None = ok.get("expires")
        self.server_time = server_time
        self.since = time.monotonic()
        self.is_open = True
        self.lost: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
        self.receipts: dict[int, Sent] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.is_silent = False
        self._timer: asyncio.TimerHandle | None = None

    async def next_frame(self) -> str | bytes:
        """A silent service is asked for a sign of life, and given up if it gives none."""
        self._after(self._ping_s, self._ask_for_a_sign_of_life)
        return await self.socket.recv()

    def _ask_for_a_sign_of_life(self) -> None:
        self._ping = asyncio.create_task(self.say(encode({"type": "ping"})))
        self._after(self._ping_s * (SILENT_PING_INTERVALS - 1), self._give_up)

    def _give_up(self) -> None:
        self.is_silent = True
        self.socket.transport.abort()

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, act)

    def end(self) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        self.socket.transport.abort()
        for sent in self.receipts.values():
            sent._give_up(self)
        for task in self.tasks:
            task.cancel()

    def forget_if_complete(self, number: int) -> None:
        if (sent := self.receipts.get(number)) and sent._complete.is_set():
            del self.receipts[number]

    async def say(self, text: bytes) -> None:
        # A frame that a lost connection does not take is kept by the client, or no longer matters.
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(text, text=True)


class Request:
    """A request, its answer, what follows from it, and the connection on which it was last sent."""

    def __init__(self, text: bytes, on_ok: Callable[[dict[str, Any]], object], sent: Sent | None, kept: bool) -> None:
        self.text, self.on_ok, self.sent, self.is_kept = text, on_ok, sent, kept
        self.link: Link | None = None
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()


def unless_ended(end: Callable[[Outcome], None], outcome: Outcome) -> None:
    """Give a future its outcome. To ask it first would not do: Ctrl-C cancels it between any two instructions.

    Source: "Handling Keyboard Interruption" in Python's asyncio.Runner.
    """
    with contextlib.suppress(asyncio.InvalidStateError):
        end(outcome)
