"""The programs that will read the bundle on the host judge it here, each with its own parser.

A tool that is not installed, fails or hangs gives a verdict "not checked"; it never passes for consent. Nothing but a
temporary directory is written, and that is gone afterwards.
"""

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generator.readers.processes import TIME_LIMIT_S, Running, side_by_side
from generator.readers.verdict import Fault, Verdict
from generator.rendering.bundle import Bundle

__all__ = ["READERS", "Fault", "Verdict", "read_all", "read_with"]

# By the name of the reader: where it is, in this package. It is imported when it is asked, which may be never.
READERS = {
    "nginx": "nginx.configuration",
    "units": "systemd.units",
    "confinement": "systemd.confinement",
    "supervisor": "supervisor.program",
    "gunicorn": "gunicorn.settings",
    "environment": "shell.environment",
    "scripts": "shell.scripts",
    "user": "systemd.user",
    "directories": "systemd.directories",
    "logrotate": "logrotate.rotation",
    "monitoring": "prometheus.monitoring",
    "engine": "engine.configuration",
}
_Reader = Callable[..., Running[list[Verdict]]]


def read_all(
    bundle: Bundle, environment: Mapping[str, str] | None = None, time_limit_s: float = TIME_LIMIT_S
) -> tuple[Verdict, ...]:
    """What every tool says of what it reads of the bundle; tools that nothing is rendered for are left out.

    With `environment`, the variables that .env gives the service must be exactly these. `time_limit_s` is that of each
    program that is run; all run at once.
    """
    said = read_with(READERS, bundle, environment, time_limit_s)
    return tuple(verdict for several in said.values() for verdict in several)


def read_with(
    names: Collection[str],
    bundle: Bundle,
    environment: Mapping[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> dict[str, list[Verdict]]:
    """The same of some of `READERS`, by their names."""
    with TemporaryDirectory(prefix="wsbundle-", dir=_memory()) as directory:
        root = Path(directory).resolve()
        tasks = []
        for name in names:
            (root / name).mkdir()
            tasks.append(_reader(name, environment)(bundle, root / name))
        return dict(zip(names, side_by_side(tasks, time_limit_s), strict=True))


def _reader(name: str, environment: Mapping[str, str] | None) -> _Reader:
    module, _, function = READERS[name].partition(".")
    reader: Any = getattr(import_module(f"{__name__}.{module}"), function)
    return partial(reader, wanted=environment) if name == "environment" else reader


def _memory() -> str | None:
    """A file system in memory, where a hundred small files cost half as much; where TMPDIR is set, that it is."""
    return "/dev/shm" if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK | os.X_OK) else None
