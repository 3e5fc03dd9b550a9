"""What is made once and shared by generations, a runtime or an application's files; and whether it is still whole."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from generator.host.directories import make_directory
from generator.host.programs import run
from generator.host.store import READY, Store
from generator.report import Report


def make_once(directory: Path, fill: Callable[[], None], report: Report) -> None:
    """Make a directory and fill it, unless it is there; what is damaged is made again, and kept until that has worked.

    Raises: what `fill` raises; then all is as before.
    """
    if is_whole(directory):
        return
    aside = directory.with_suffix(".damaged")
    if (directory / READY).exists():
        report.line(f"{directory} is damaged, and is made again")
        shutil.rmtree(aside, ignore_errors=True)
        directory.rename(aside)
    shutil.rmtree(directory, ignore_errors=True)  # a run that was killed has left it
    try:
        make_directory(directory)
        fill()
        run("sync", "--file-system", str(directory), timeout_s=300)  # what is said to be ready must outlive a power cut
        (directory / READY).write_text(_contents(directory), encoding="utf-8")
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        if aside.exists():
            aside.rename(directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def is_whole(directory: Path) -> bool:
    """Whether it was made to its end, and has as much in it as then. Nobody but root can tell."""
    try:
        made = (directory / READY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return made in ("", _contents(directory))  # up to 0.1 it had no text


def damage(store: Store, number: int) -> list[str]:
    """What of a generation's code, packages and application is not as it was made, in words."""
    return [
        f"{path} is {'damaged' if path.exists() else 'gone'}" for path in store.made_of(number) if not is_whole(path)
    ]


def _contents(directory: Path) -> str:
    """But for what Python compiles by itself."""
    number = size = 0
    for place, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name != "__pycache__"]
        paths = [path for name in files if (path := Path(place, name)) != directory / READY]
        number += len(directories) + len(paths)
        size += sum(path.lstat().st_size for path in paths)
    return f"{number} names, {size} bytes\n"
