"""How the runner begins, whatever it runs: its settings, and hangups.

Exit codes: 1 when the service cannot start, 2 when its settings are wrong. The reason is one line each on stderr.
"""

import logging
import signal
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

from service.process.journal import fail, prefix_stderr
from service.process.stops import Terminal
from service.settings import Settings, SettingsError, from_environ

logger = logging.getLogger("service")


def declared_settings_or_exit(environ: Mapping[str, str]) -> Settings:
    """The settings from an environment; when they are wrong, all faults are printed and the process ends."""
    prefix_stderr()
    try:
        return from_environ(environ)
    except SettingsError as error:
        exit_for(error)


def exit_for(error: SettingsError) -> NoReturn:
    """Print all faults of the settings, and end the process."""
    fail(error, status=2)


def ignore_hangups(is_worker: bool) -> None:
    """Survive SIGHUP, of which a process dies otherwise: many a service reads its settings anew, and admins try it.

    Where it comes because the terminal was closed it is a stop: Ctrl-C, with which the service ends, is gone as well.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    terminal = None if is_worker else Terminal()

    def ignore(signal_number: int, frame: FrameType | None) -> None:
        if terminal is not None and terminal.is_gone():
            signal.raise_signal(signal.SIGTERM)
            return
        logger.warning("SIGHUP is ignored: settings are read at the start; restart the service to change them")

    signal.signal(signal.SIGHUP, ignore)
