"""Has one process end, or stand still, at a certain step: with this imported by its `sitecustomize`.

`DIES_AT` is `module:name:before` or `:after`, `DIES_HOW` is `killed` or `stopped`, or `orphaned` if its parent is to be
killed, and `DIES_MARK` a file that only the first process to come there makes: it has its number.
"""

import contextlib
import functools
import importlib.abc
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def environment(directory: Path, step: str, how: str) -> dict[str, str]:
    """The variables by which all processes below learn it."""
    site = directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"import {__name__}\n{__name__}.begin()\n")
    mark = str(directory / "mark")
    return {"PYTHONPATH": f"{site}:{ROOT}", "DIES_AT": step, "DIES_HOW": how, "DIES_MARK": mark}


def begin() -> None:
    """Wait for the module to be imported."""
    module, name, when = os.environ["DIES_AT"].split(":")
    sys.meta_path.insert(0, _Finder(module, name, when == "before"))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, name: str, is_before: bool) -> None:
        self._module, self._name, self._is_before = module, name, is_before

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            owner: Any = module
            *classes, name = self._name.split(".")
            for each in classes:
                owner = getattr(owner, each)
            setattr(owner, name, _wrapped(getattr(owner, name), self._is_before))

        spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _step(is_before: bool) -> Iterator[None]:
    if is_before:
        _die()
    yield
    if not is_before:
        _die()


def _wrapped(function: Callable[..., Any], is_before: bool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def in_the_loop(*args: Any, **kwargs: Any) -> Any:
            with _step(is_before):
                return await function(*args, **kwargs)

        return in_the_loop

    @functools.wraps(function)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        with _step(is_before):
            return function(*args, **kwargs)

    return at_once


def _die() -> None:
    try:
        mark = os.open(os.environ["DIES_MARK"], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(mark, str(os.getpid()).encode())
    os.close(mark)
    pid = os.getppid() if os.environ["DIES_HOW"] == "orphaned" else os.getpid()
    os.kill(pid, signal.SIGSTOP if os.environ["DIES_HOW"] == "stopped" else signal.SIGKILL)


def processes(directory: Path) -> list[int]:
    """All that have come of an `environment` with this directory, and are alive."""
    found, variable = [], f"DIES_MARK={directory / 'mark'}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is somebody else's
            if variable in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found
