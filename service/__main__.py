"""The runner, `python -m service`: uvicorn, with what a service manager needs of it.

It reads its settings from the environment, listens on systemd's socket or its own, says when it is ready and that it
is alive, and stops with status 0.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator

import uvicorn

from service.core.center import Center
from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import DrainingServer
from service.process.entry import (
    ignore_hangups,
    settings_or_exit,
)
from service.process.listen import BACKLOG, FDS_VARIABLE, ListenError, listening_sockets, name_of
from service.process.logs import configure_logging
from service.process.notify import Notifier
from service.process.stops import hold_stops, let_stops_through, stop_signals
from service.process.usage import take_no_arguments
from service.workers.manager import end_with_manager, run_workers

logger = logging.getLogger("service")


class Server(DrainingServer):
    """uvicorn's server, which keeps the service manager informed."""

    def __init__(self, config: uvicorn.Config, center: Center, notifier: Notifier) -> None:
        super().__init__(config, center)
        self._notifier = notifier

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # In place of uvicorn's: when it has stopped, that raises the signal again, and the process would die of it.
        for stopping in stop_signals():
            signal.signal(stopping, self.handle_exit)
        let_stops_through()
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        end_with_manager(os.environ)
        await super().startup(sockets)
        # Not earlier: the ASGI lifespan's start is over before anybody can connect.
        self._notifier.ready(self._center.status())
        self._alive = asyncio.create_task(self._notifier.keep_alive(self._center.status))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._notifier.stopping()
        await super().shutdown(sockets)
        # Only now: the manager wants signs of life while clients are drained, too.
        self._alive.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._alive


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    take_no_arguments(
        "python -m service",
        "Run the notification center, on uvicorn. Its settings are the WEBSOCKET_ variables of the environment.",
    )
    settings = settings_or_exit(os.environ)
    configure_logging(settings.log)
    is_worker = FDS_VARIABLE in os.environ
    hold_stops()
    ignore_hangups()
    try:
        sockets = listening_sockets(settings, os.environ)
    except ListenError as error:
        sys.exit(str(error))
    if settings.workers != 1 and not is_worker:
        run_workers("service", settings, sockets)
        return
    logger.info("listening on %s", ", ".join(map(name_of, sockets)))

    from service.app import app  # after the settings were found right: it reads them when it is imported

    only_proxies_connect = all(listener.family == socket.AF_UNIX for listener in sockets)
    options = uvicorn_options(settings, only_proxies_connect)
    config = uvicorn.Config(app, backlog=BACKLOG, log_config=None, **options)
    Server(config, app.center, Notifier(os.environ)).run(sockets)


if __name__ == "__main__":
    main()
