"""Directories that are dear to make: one of the processes of a run makes them for all."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], object]) -> Path:
    """The directory of this name, which `make` is given empty. It goes away with the other temporary ones."""
    own = factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = directory.with_name(f"{name}.made")
    with directory.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of one that has failed
            directory.mkdir()
            make(directory)
            made.touch()
    return directory
