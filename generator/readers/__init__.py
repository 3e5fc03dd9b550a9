"""The programs that will read the bundle on the host judge it here, each with its own parser.

A tool that is not installed, fails or hangs gives a verdict "not checked"; it never passes for consent. Nothing but a
temporary directory is written, and that is gone afterwards.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from generator.readers import engine, gunicorn, logrotate, nginx, prometheus, shell, supervisor, systemd
from generator.readers.processes import TIME_LIMIT_S, side_by_side
from generator.readers.verdict import Fault, Verdict
from generator.rendering.bundle import Bundle

__all__ = ["Fault", "Verdict", "read_all"]


def read_all(
    bundle: Bundle, environment: Mapping[str, str] | None = None, time_limit_s: float = TIME_LIMIT_S
) -> tuple[Verdict, ...]:
    """What every tool says of what it reads of the bundle; tools that nothing is rendered for are left out.

    With `environment`, the variables that .env gives the service must be exactly these. `time_limit_s` is that of each
    program that is run; all run at once.
    """
    with TemporaryDirectory(prefix="wsbundle-", dir=_memory()) as directory:
        root = Path(directory).resolve()

        def own(name: str) -> Path:
            (root / name).mkdir()
            return root / name

        verdicts = side_by_side(
            [
                nginx.configuration(bundle, own("nginx")),
                systemd.units(bundle, own("units")),
                systemd.confinement(bundle, own("confinement")),
                supervisor.program(bundle, own("supervisor")),
                gunicorn.settings(bundle, own("gunicorn")),
                shell.environment(bundle, own("environment"), environment),
                shell.scripts(bundle, own("scripts")),
                systemd.user(bundle, own("user")),
                systemd.directories(bundle, own("directories")),
                logrotate.rotation(bundle, own("logrotate")),
                prometheus.monitoring(bundle, own("monitoring")),
                engine.configuration(bundle, own("engine")),
            ],
            time_limit_s,
        )
    return tuple(verdict for several in verdicts for verdict in several)


def _memory() -> str | None:
    """A file system in memory, where a hundred small files cost half as much; where TMPDIR is set, that it is."""
    return "/dev/shm" if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK | os.X_OK) else None
