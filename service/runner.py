"""What the runner adds to uvicorn's server, whatever it runs: it says when it is ready, alive and stopping."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Generator

import uvicorn.server

from service.process.notify import Notifier
from service.process.stops import hold_signals, let_signals_through, stop_signals
from service.workers.manager import end_with_manager


class InformingServer(uvicorn.server.Server):
    """Keeps the service manager informed, which is another process of ours if there are several workers."""

    def status(self) -> str:
        """One line for the service manager."""
        raise NotImplementedError

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # In place of uvicorn's: when it has stopped, that raises the signal again, and the process would die of it.
        for stopping in stop_signals():
            signal.signal(stopping, self.handle_exit)
        let_signals_through()
        yield
        hold_signals()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        end_with_manager(os.environ)
        await super().startup(sockets)
        self._notifier = Notifier(os.environ)
        # Not earlier: the ASGI lifespan's start is over before anybody can connect.
        self._notifier.ready(self.status())
        self._alive = asyncio.create_task(self._notifier.keep_alive(self.status))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.stopping()
        await super().shutdown(sockets)
        # Only now: the manager wants signs of life while clients are drained, too.
        self._alive.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._alive
