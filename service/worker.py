"""gunicorn's worker for the service: `worker_class = "service.worker.Worker"`.

gunicorn hands none of the WebSocket settings to its uvicorn worker; a class attribute is the only way to them.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import DrainingServer
from service.process.entry import settings_or_exit
from service.process.logs import formatter

# While a worker stops, uvicorn gives no signs of life any more, and gunicorn kills a worker that gives none.
_NOTIFY_PERIOD_S = 1.0

# By which gunicorn's master stops its workers.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_settings = settings_or_exit(os.environ)

# Until a worker has taken over its signals it has its master's handlers, which only put a signal in a queue that nobody
# reads there: a stop would be lost, and gunicorn would wait for all of graceful_timeout before it kills.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS),
)


class Server(DrainingServer):
    """uvicorn's server, which keeps gunicorn informed also while it stops."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        alive = asyncio.create_task(self._notify())
        await super().shutdown(sockets)
        alive.cancel()

    async def _notify(self) -> None:
        while self.config.callback_notify is not None:
            await self.config.callback_notify()
            await asyncio.sleep(_NOTIFY_PERIOD_S)


class Worker(UvicornWorker):  # type: ignore[misc]
    """One process of the service under gunicorn, which owns the listening socket, the log and the signals."""

    CONFIG_KWARGS = uvicorn_options(_settings)
    # The proxies whose X-Forwarded-For is believed are a setting of gunicorn itself, in gunicorn.conf.py.
    del CONFIG_KWARGS["forwarded_allow_ips"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service = logging.getLogger("service")
        service.handlers = self.log.error_log.handlers
        service.setLevel(self.log.error_log.level)
        service.propagate = False
        # For gunicorn without the rendered gunicorn.conf.py, whose logger_class does this.
        for handler in service.handlers:
            handler.setFormatter(formatter(_settings.log, getattr(handler, "stream", None)))

    def init_signals(self) -> None:
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    async def _serve(self) -> None:
        # As in the class above, except for the server.
        self.config.app = self.wsgi
        self.wsgi.center.server = "gunicorn"
        server = Server(self.config, self.wsgi.center)
        self._install_sigquit_handler()
        await server.serve(self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        await super().callback_notify()
        # The master was killed. Nobody would ever end this worker, and it would keep the listening socket.
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Of SIGINT and SIGQUIT gunicorn makes a SIGQUIT for its workers, which uvicorn does not know: it would go on
        # until gunicorn kills it.
        signal.raise_signal(signal.SIGTERM)
