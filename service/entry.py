"""What every way to start the service has in common: settings, log, hangups, and how a fault is told.

Exit codes: 1 when the service cannot start, 2 when its settings are wrong. The reason is one line each on stderr.
"""

import logging
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from uuid import uuid4

from service.center import Center
from service.identity import Identity, TokenError
from service.settings import Settings, SettingsError, from_environ

logger = logging.getLogger("service")


def settings_or_exit(environ: Mapping[str, str]) -> Settings:
    """The settings from an environment; when they are wrong, all faults are printed and the process ends."""
    try:
        return from_environ(environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def center_of(settings: Settings) -> Center:
    """The notification center of this process."""

    def verify(token: str) -> Identity:
        raise TokenError("no keys are configured")

    return Center(
        settings,
        verify,
        clock=time.monotonic,
        now=time.time,
        draw_address=lambda: str(uuid4()),
        draw_secret=lambda: secrets.token_urlsafe(16),
    )


def configure_logging(level: str) -> None:
    """One stream, stderr, for all that this process has to say."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def ignore_hangups() -> None:
    """Survive SIGHUP, of which a process dies otherwise: many a service reads its settings anew, and admins try it."""

    def ignore(signal_number: int, frame: FrameType | None) -> None:
        logger.warning("SIGHUP is ignored: settings are read at the start; restart the service to change them")

    signal.signal(signal.SIGHUP, ignore)
