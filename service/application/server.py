"""uvicorn's server for your application: it stops in time, and no request is lost when it does."""

import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn.server
from uvicorn.lifespan.on import LifespanOn

from service.application.connections import HttpConnection, State
from service.application.load import in_one_line
from service.core.status import application_line
from service.process.descriptors import have_leaked
from service.process.stops import end, stop_signals
from service.runner import InformingServer
from service.workers.acceptor import Acceptor

# Beyond `drain.timeout`: for what requests that were cut, and the lifespan, have to clean up.
CLEANUP_S = 2.0
# uvicorn ticks ten times a second.
_TICKS_BETWEEN_LOOKS = 50

logger = logging.getLogger("service")


class Lifespan(LifespanOn):
    """uvicorn's lifespan, whose failures are one line each."""

    async def send(self, message: Any) -> None:
        what = {"lifespan.startup.failed": "start", "lifespan.shutdown.failed": "stop"}.get(message["type"])
        if what is not None:
            # Most frameworks send a whole traceback.
            reason = in_one_line(message.get("message") or "it gives no reason", Path.cwd())
            message = {**message, "message": f"the application fails to {what}: {reason}"}
        await super().send(message)


class _Server(uvicorn.server.Server):
    server_state: State

    def __init__(self, config: uvicorn.Config, state: State, drain_s: float, begins: Callable[[], None]) -> None:
        """`begins` is called when it begins to serve."""
        super().__init__(config)
        self._begins = begins
        self._stops = stop_signals()  # before its lifespan begins, which may ignore them
        self.server_state = state
        self._drain_s = drain_s
        self.has_failed = False
        """Whether it has stopped because the application has made it useless."""
        self._deadline: threading.Thread | None = None
        self._process = os.getpid()
        self._handlers_of_the_application: dict[int, Any] = {}
        config.load()
        config.lifespan_class = Lifespan

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self._take_signals_back()
        if self.lifespan.should_exit:
            self._end_in_time()
            for listener in sockets or ():
                listener.close()
            sys.exit(1)
        connection = functools.partial(
            HttpConnection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        # asyncio's own servers lose what they have accepted in the moment in which they are closed.
        servers: list[Any] = [Acceptor(self.server_state.is_full, connection, each) for each in sockets or ()]
        self.servers = servers
        self.started = True
        self._begins()

    def _take_signals_back(self) -> None:
        """An application that has handlers of its own for them, or ignores them, would not be stopped.

        Its handlers are called as well.
        """
        for stopping in self._stops:
            handler = signal.getsignal(stopping)
            if handler != self.handle_exit:
                self._handlers_of_the_application[stopping] = handler
                signal.signal(stopping, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        handler = self._handlers_of_the_application.get(sig, signal.SIG_DFL)
        if os.getpid() != self._process:
            # Forked by the application, as multiprocessing does. It serves nobody, and who asks it to end waits for it.
            signal.signal(sig, handler)
            signal.raise_signal(sig)
            return
        self._end_in_time()
        super().handle_exit(sig, frame)
        if callable(handler):
            handler(sig, frame)

    def _end_in_time(self) -> None:
        # In a thread: an application may hold up the loop, or leave threads of its own behind.
        if self._deadline is None:
            self._deadline = threading.Thread(target=self._wait_and_end, daemon=True)
            self._deadline.start()

    def _wait_and_end(self) -> None:
        time.sleep(self._drain_s + CLEANUP_S)
        logger.error(
            "the application has not stopped within %g s, and is ended: it ignores that its tasks are cancelled, "
            "holds up the event loop, or has threads that do not end",
            self._drain_s + CLEANUP_S,
        )
        end(0 if self.started and not self.has_failed else 1)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_LOOKS == 0 and not self.has_failed:
            self._take_signals_back()
            self.has_failed = have_leaked(len(self.server_state.connections))
            if self.has_failed:
                logger.error(
                    "hardly any descriptor is free: the application opens more than it closes; it is restarted"
                )
                self._end_in_time()
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.server_state.begin_to_stop()
        await super().shutdown(sockets)


class ApplicationServer(InformingServer, _Server):
    """Serves an application, and keeps the service manager informed."""

    def status(self) -> str:
        state = self.server_state
        websockets = state.websockets
        return application_line(len(state.connections), websockets, max(0, len(state.tasks) - websockets))
