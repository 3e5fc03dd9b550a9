"""The archive of `wsbundle bundle` for each kind of host; wheels that were downloaded once are kept in build/wheels."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock

from generator.config.load import Loaded
from generator.packing.archive import Archive, Member, archive, summed
from generator.packing.pack import ROOT, locks_of, members
from generator.packing.wheelhouse import Target, download
from generator.rendering.bundle import Bundle
from generator.rendering.write import hand_over, make_directory
from generator.report import Report

_WHEELS = Path("build/wheels")


class Kit:
    """What is sent to a host: an archive, which is packed when the first host lacks it.

    `directory` is what it unpacks to, `sums` the digest of its list of checksums.
    """

    def __init__(self, name: str, members: list[Member]) -> None:
        self.directory, whole = summed(name, members)
        self.sums = sha256(whole[-1].content).hexdigest()
        self._name, self._members, self._lock = name, members, Lock()

    @property
    def archive(self) -> Archive:
        with self._lock:  # several hosts may ask at once
            return self._archive

    @cached_property
    def _archive(self) -> Archive:
        return archive(self._name, self._members)


def kit(loaded: Loaded, rendered: Bundle, target: Target, with_uv: bool, report: Report) -> Kit:
    """The one for a Python on a machine: a host that has another changes nothing for the others.

    Raises:
        CommandError: there are no wheels for it.
    """
    with _alone():
        return Kit(loaded.deploy.name, members(ROOT, loaded, rendered, _wheels(loaded, target, with_uv, report)))


def deployment_of(loaded: Loaded, rendered: Bundle) -> str:
    """Names what is deployed, for whatever Python: code, application and settings."""
    with tempfile.TemporaryDirectory() as nothing:
        return summed("", members(ROOT, loaded, rendered, Path(nothing)))[0].lstrip("-")


@contextmanager
def _alone() -> Iterator[None]:
    """Two commands at once in one checkout would take each other's wheels away."""
    make_directory(_WHEELS)
    descriptor = os.open(_WHEELS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _wheels(loaded: Loaded, target: Target, with_uv: bool, report: Report) -> Path:
    """The directory that has them, which is complete or not there."""
    wanted = locks_of(loaded, with_uv)
    key = sha256(repr((str(target), wanted)).encode()).hexdigest()[:12]
    kind = f"{target.python}-{target.machine}-"
    directory = _WHEELS / f"{kind}{key}"
    if not directory.is_dir():
        others = list(_WHEELS.glob(f"{kind}*"))  # also what a command that was killed has left
        with (
            report.step(f"download wheels for Python {target.python} on {target.machine}"),
            tempfile.TemporaryDirectory(prefix=kind, dir=_WHEELS) as temporary,
        ):
            new = Path(temporary, "wheels")
            new.mkdir()
            for locks in wanted:
                download([target], locks, new)
            new.rename(directory)
        for path in (directory, *directory.iterdir()):
            hand_over(path)
        for other in others:
            shutil.rmtree(other)
    return directory
