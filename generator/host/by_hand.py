"""What was set up by hand and makes way for a deployment: its units, programs and sites are put away, and brought back.

Their files are moved to /var/backups/<name>.by-hand, with the paths that they had, and are never removed there but by
being moved back. A unit takes the links along that start it at boot. What ran is written down before it is stopped.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from generator.host.directories import make_directory
from generator.host.facts import is_active
from generator.host.programs import must, run
from generator.host.store import Store, sync
from generator.paths import UNITS
from generator.readers.supervisor import entries
from generator.rendering.write import put_text, temporary_of

_RAN = "ran"
_RUNNING = ("active", "activating", "reloading")
_STOP_S = 300.0
_SITES, _PROGRAMS = "/etc/nginx/", "/etc/supervisor/"


class ByHand:
    """The files of old services, on the host and put away. Paths are absolute, as deploy.yaml has them."""

    def __init__(self, store: Store) -> None:
        self.root = store.root
        self.away = store.root / f"var/backups/{store.name}.by-hand"

    @property
    def place(self) -> str:
        """Where they are put, as it is said."""
        return f"/{self.away.relative_to(self.root)}"

    def standing(self, paths: Iterable[str]) -> list[str]:
        """Those that are on the host."""
        return [path for path in paths if os.path.lexists(self._here(path))]

    def sites(self, paths: Iterable[str]) -> list[str]:
        return [path for path in self.standing(paths) if path.startswith(_SITES)]

    def services(self, paths: Iterable[str]) -> list[str]:
        return [path for path in self.standing(paths) if not path.startswith(_SITES)]

    def kept(self, paths: Iterable[str]) -> list[str]:
        """Those that are put away."""
        return [path for path in paths if os.path.lexists(self._there(path))]

    def was_touched(self, paths: Iterable[str]) -> bool:
        """Whether any is put away, or was about to be."""
        wanted = list(paths)
        return bool(wanted) and (bool(self.kept(wanted)) or (self.away / _RAN).exists())

    def put_away(self, paths: Iterable[str]) -> None:
        """Move files, and the links that start them."""
        for path in paths:
            for each in (*self._starting(self.root, path), path):
                self._make_room(each)
                _move(self._here(each), self._there(each))

    def retire(self, paths: Iterable[str]) -> None:
        """Stop services, and put them away.

        Raises:
            StepFailed: one does not stop.
        """
        there = list(paths)
        units = [Path(path).name for path in there if not path.startswith(_PROGRAMS)]
        active = [unit for unit in units if run("systemctl", "is-active", unit).output in _RUNNING]
        self.away.mkdir(mode=0o700, parents=True, exist_ok=True)
        put_text(self.away / _RAN, "".join(f"{unit}\n" for unit in dict.fromkeys((*self._ran(), *active))))
        programs = list(self._programs(there))
        if units:
            _stop(sorted(units, key=lambda unit: unit.endswith(".service")))
        self.put_away(there)
        self._reload(bool(units), programs)

    def revive(self, paths: Iterable[str]) -> None:
        """Bring back what is put away, unless something else is in its place, and start what ran.

        Raises:
            StepFailed: one does not start.
        """
        wanted = list(paths)
        for path in wanted:
            for each in (path, *self._starting(self.away, path)):
                if os.path.lexists(self._there(each)) and not os.path.lexists(self._here(each)):
                    _move(self._there(each), self._here(each))
        back = self.standing(wanted)
        units = {Path(path).name for path in back if path.startswith(f"/{UNITS}")}
        self._reload(bool(units), list(self._programs(back)))
        # The socket before the service, which would open it itself.
        ran = sorted((unit for unit in self._ran() if unit in units), key=lambda unit: unit.endswith(".service"))
        for unit in ran:
            must(run("systemctl", "start", unit, timeout_s=_STOP_S), f"starting {unit}")
        (self.away / _RAN).unlink(missing_ok=True)

    def way_back(self) -> list[str]:
        """What is put away, and the commands that put it back by hand; nothing where there is nothing."""
        kept = [path for path in self.away.rglob("*") if path.is_symlink() or path.is_file()]
        if not any(path.parent != self.away for path in kept):
            return []
        steps = [f"cp -a {self.place}/etc /"]
        if units := " ".join(self._ran()):
            steps += ["systemctl daemon-reload", f"systemctl start {units}"]
        if any("supervisor" in path.parts for path in kept):
            steps.append("supervisorctl update")
        return [
            f"What was set up by hand is kept in {self.place}. To put it back:",
            f"  {' && '.join([*steps, 'nginx -t', 'systemctl reload nginx'])}",
        ]

    def _here(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _there(self, path: str) -> Path:
        return self.away / path.lstrip("/")

    def _ran(self) -> list[str]:
        try:
            return (self.away / _RAN).read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return []

    def _starting(self, root: Path, path: str) -> list[str]:
        """The links that start a unit, below the host's root or where it is put away."""
        if not path.startswith(f"/{UNITS}"):
            return []
        # glob() itself passes over links that lead nowhere, as they do while their unit is away.
        folders = [folder for kind in ("wants", "requires") for folder in sorted(root.glob(f"{UNITS}*.{kind}"))]
        links = [folder / Path(path).name for folder in folders]
        return [f"/{link.relative_to(root)}" for link in links if os.path.lexists(link)]

    def _programs(self, paths: Iterable[str]) -> Iterator[str]:
        """The groups of processes that files of supervisor define: each program is one of its own name."""
        for path in (each for each in paths if each.startswith(_PROGRAMS)):
            text = self._here(path).read_text(encoding="utf-8", errors="replace")
            for head in dict.fromkeys(entry.context[0] for entry in entries(text, path) if entry.context):
                kind, _, name = head.partition(":")
                if kind in ("program", "group", "fcgi-program", "eventlistener"):
                    yield name.strip()

    def _reload(self, units: bool, programs: list[str]) -> None:
        if units:
            must(run("systemctl", "daemon-reload"), "systemctl daemon-reload")
        if programs and is_active("supervisor.service"):
            outcome = run("supervisorctl", "update", *programs, timeout_s=_STOP_S)
            if "no such group" not in outcome.output:  # it is not there any more, or was never started
                must(outcome, "supervisorctl update")

    def _make_room(self, path: str) -> None:
        """What was put away before stays, below a number: beside the new one nginx would read it, once it is back."""
        if os.path.lexists(self._there(path)):
            places = (self.away / str(number) / path.lstrip("/") for number in count(1))
            _move(self._there(path), next(place for place in places if not os.path.lexists(place)))


def _stop(units: list[str]) -> None:
    """Stop units, also those that ask for a signal which workers of uvicorn's take for nothing: SIGQUIT."""
    run("systemctl", "stop", "--no-block", *units)
    run("systemctl", "kill", "--signal=SIGTERM", *(unit for unit in units if unit.endswith(".service")))
    must(run("systemctl", "stop", *units, timeout_s=_STOP_S), f"stopping {' and '.join(units)}")
    run("systemctl", "reset-failed", *units)


def _move(source: Path, target: Path) -> None:
    """Whole or not at all, also to another file system, and across a power cut."""
    make_directory(target.parent)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = temporary_of(target)
        temporary.unlink(missing_ok=True)
        shutil.copy2(source, temporary, follow_symlinks=False)
        status = source.lstat()
        os.chown(temporary, status.st_uid, status.st_gid, follow_symlinks=False)
        temporary.rename(target)
        sync(target.parent)
        source.unlink()
    sync(target.parent)
    sync(source.parent)
