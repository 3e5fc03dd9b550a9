"""gunicorn's log in the service's own form: `logger_class = "service.process.gunicorn_log.Log"`."""

import os
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from service.process.entry import settings_or_exit
from service.process.logs import formatter


class Log(Logger):  # type: ignore[misc]
    """The log of the master and of its workers."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter(settings_or_exit(os.environ).log, getattr(handler, "stream", None)))
