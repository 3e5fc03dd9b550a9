"""gunicorn's worker for the service: `worker_class = "service.worker.Worker"`.

gunicorn hands none of the WebSocket settings to its uvicorn worker; a class attribute is the only way to them.
"""

import logging
import os
import signal
from types import FrameType
from typing import Any

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from service.entry import settings_or_exit
from service.uvicorn_options import uvicorn_options

_settings = settings_or_exit(os.environ)


class Worker(UvicornWorker):  # type: ignore[misc]
    """One process of the service under gunicorn, which owns the listening socket, the log and the signals."""

    CONFIG_KWARGS = uvicorn_options(_settings, only_proxies_connect=_settings.socket is not None)
    # Whose X-Forwarded-For is believed is a setting of gunicorn itself, and stands in gunicorn.conf.py.
    del CONFIG_KWARGS["forwarded_allow_ips"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service = logging.getLogger("service")
        service.handlers = self.log.error_log.handlers
        service.setLevel(self.log.error_log.level)
        service.propagate = False

    async def callback_notify(self) -> None:
        await super().callback_notify()
        # The master was killed. Nobody would ever end this worker, and it would keep the listening socket.
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Of SIGINT and SIGQUIT gunicorn makes a SIGQUIT for its workers, which uvicorn does not know: it would go on
        # until gunicorn kills it.
        signal.raise_signal(signal.SIGTERM)
