"""The code and settings with which workers are started, read again for each reload.

An upgrade replaces the directory of code and .env, under the same paths. The process that watches the workers keeps its
own code and environment; the workers that it starts must not.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

from service.settings import Settings, SettingsError, from_environ

# By which the unit says where the settings are, and in which directory the code: `service`, with `venv` beside it and,
# if there is an application of your own, `app`.
ENV_FILE_VARIABLE = "WEBSOCKET_ENV_FILE"
CODE_VARIABLE = "WEBSOCKET_CODE"
# The directory with the code of your own application, if one is run in place of the notification center.
APP_VARIABLE = "WEBSOCKET_APP_DIRECTORY"
# Greater for each later release that one process has started workers of.
RELEASE_VARIABLE = "WEBSOCKET_RELEASE"
HERE = Path(__file__).resolve().parents[2]  # the directory of the code that this process runs


class ReleaseError(Exception):
    """There is nothing that workers could be started with; the message says where, what, and the fix."""


class Release(NamedTuple):
    """The code and settings of one generation of workers. `directory` has the code, and is where they run."""

    python: str
    directory: Path
    environ: Mapping[str, str]
    settings: Settings
    number: int = 0

    @property
    def workers(self) -> int:
        """How many there are to be."""
        number = self.settings.workers
        return len(os.sched_getaffinity(0)) if number == "auto" else number


class Deployment:
    """Finds the current release. Without the variables of a unit, it is the one that this process was started with."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises: ReleaseError: the file of settings cannot be read."""
        self._environ = environ
        self._env_file = environ.get(ENV_FILE_VARIABLE)
        self._numbers = count()
        self._code = environ.get(CODE_VARIABLE)
        # Variables that the old file set and the new one does not must not be inherited.
        self._names = frozenset(read_env(Path(self._env_file)) if self._env_file else ())

    def first(self, settings: Settings) -> Release:
        """The release of this process itself."""
        return self._release(self._environ, settings)

    def current(self, running: Release) -> Release:
        """The release that is current now; it must be compatible with the one that runs.

        Raises:
            ReleaseError
        """
        if self._env_file is None:
            return self._release(running.environ, running.settings)
        inherited = {name: value for name, value in self._environ.items() if name not in self._names}
        environ = {**inherited, **read_env(Path(self._env_file))}
        try:
            settings = from_environ(environ)
        except SettingsError as error:
            raise ReleaseError(f"{self._env_file}: {'; '.join(str(error).splitlines())}") from None
        for name in ("host", "port", "socket", "bus"):
            if getattr(settings, name) != getattr(running.settings, name):
                raise ReleaseError(f"{self._env_file}: `{name}` has changed; restart the service")
        return self._release(environ, settings)

    def _release(self, environ: Mapping[str, str], settings: Settings) -> Release:
        if self._code is None:
            python, directory, app = sys.executable, HERE, Path(self._environ.get(APP_VARIABLE, ""))
        else:
            # A worker that has begun with one directory must not import the rest from another.
            code = Path(self._code)
            python, directory = str((code / "venv").resolve() / "bin/python"), (code / "service").resolve().parent
            app = code / "app"
        if settings.app.callable is not None:
            environ = {**environ, APP_VARIABLE: str(app.resolve())}
        return Release(python, directory, environ, settings, next(self._numbers))


def read_env(path: Path) -> dict[str, str]:
    """The variables of a file that systemd and sh read alike, as `generator.quoting.env` writes it.

    Raises:
        ReleaseError
    """
    try:
        words = shlex.split(os.fsdecode(path.read_bytes()), comments=True)
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}; let the service's user read it") from None
    except ValueError as error:
        raise ReleaseError(f"{path}: {error}; write NAME='value' on each line") from None
    variables = {}
    for word in words:
        name, is_variable, value = word.partition("=")
        if not is_variable:
            raise ReleaseError(f"{path}: {name!r} is not a variable; write NAME='value' on each line")
        variables[name] = value
    return variables
