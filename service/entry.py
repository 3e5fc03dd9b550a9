"""What every way to start the service has in common: settings, log, and how a fault is told.

Exit codes: 1 when the service cannot start, 2 when its settings are wrong. The reason is one line each on stderr.
"""

import logging
import sys
from collections.abc import Mapping

from service.settings import Settings, SettingsError, from_environ


def settings_or_exit(environ: Mapping[str, str]) -> Settings:
    """The settings from an environment; when they are wrong, all faults are printed and the process ends."""
    try:
        return from_environ(environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def configure_logging(level: str) -> None:
    """One stream, stderr, for all that this process has to say."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
