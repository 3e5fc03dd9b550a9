"""Fill an environment with what is locked: by uv where it is at hand, else by pip.

The standard library only, and readable by Pythons back to 3.6, as `generator/environment.py`.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from generator import uv
from generator.pip import from_wheels, of_pip
from generator.progress import Progress, ended

# What Python says of itself, from here on.
_HIDDEN = ("Traceback (", "Exception ignored ", "--- Logging error ---")


def fill(directory: Path, requirements: "list[Path]") -> None:
    """Make the environment and fill it. pip is there as well: `wsbundle bundle` downloads with it.

    Raises:
        PipError
        CalledProcessError: pip failed; what it says on its errors is on the terminal, and all of it in `stderr`.
    """
    if not _filled_by_uv(directory, requirements):
        _fill_by_pip(directory, requirements)


def _filled_by_uv(directory: Path, requirements: "list[Path]") -> bool:
    """Whether uv is at hand and did it; says why not, where it is there."""
    try:
        found = uv.at_hand(os.environ)
        return found is not None and _synced(found, directory, requirements)
    except uv.UvError as error:
        print(error, file=sys.stderr)
    return False


def _synced(found: str, directory: Path, requirements: "list[Path]") -> bool:
    with _empty(directory) as (python, variables):
        program = uv.program(found, variables["TMPDIR"])
        words, reached = uv.syncing(program, python, list(map(str, requirements)), variables, _cache())
        try:
            _run("install Python packages with uv", words, reached, lambda: _so_far(directory))
        except subprocess.CalledProcessError:
            raise uv.UvError(f"{found} failed, see above") from None
        (directory / uv.LEFT).unlink(missing_ok=True)
        _install_pip(python, variables)
    return True


def _cache() -> "str | None":
    """Not uv's own: that may have been filled under another umask, whose modes all that is installed from it has.

    In nobody else's home, which `sudo -E` keeps: what root takes out of a cache there, its owner could have changed.
    """
    home = os.path.expanduser("~")
    is_ours = os.path.isdir(home) and os.stat(home).st_uid == os.geteuid() and os.access(home, os.W_OK)
    return os.path.join(home, ".cache/wsbundle/uv") if is_ours else None


def _fill_by_pip(directory: Path, requirements: "list[Path]") -> None:
    with _empty(directory) as (python, variables):
        for_pip = of_pip(variables)
        _install_pip(python, variables)
        locked = [word for file in requirements for word in ("--requirement", str(file))]
        # On stderr pip may say only that it has found nothing: whom it could not reach is in its log.
        log = Path(variables["TMPDIR"], "pip.log")
        options = ["--quiet", "--require-hashes", "--log", str(log)]
        pip = [python, "-I", "-m", "pip", "install", *options, *from_wheels(), *locked]
        try:
            _run("install Python packages with pip", pip, for_pip, lambda: _so_far(directory))
        except subprocess.CalledProcessError as error:
            error.stderr += log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise


def _install_pip(python: str, variables: "Mapping[str, str]") -> None:
    _run("install pip", [python, "-I", "-m", "ensurepip"], variables)


def _so_far(directory: Path) -> str:
    return f"{len(list(directory.glob('lib/python*/site-packages/*.dist-info')))} are there"


@contextmanager
def _empty(directory: Path) -> "Iterator[tuple[str, dict[str, str]]]":
    """The Python of an environment with nothing in it, and variables to work there."""
    import venv

    venv.create(directory, clear=True, symlinks=True)
    with room(directory) as temporary:
        yield str(directory / "bin" / "python"), {**of_no_python(os.environ), "TMPDIR": temporary}


def _run(
    step: str, command: "list[str]", variables: "Mapping[str, str]", detail: "Callable[[], str] | None" = None
) -> None:
    """Run a step and let its program say on stderr what it has to say; of a traceback, the last line.

    Raises:
        CalledProcessError: with all of it as `stderr`.
    """
    began, progress = time.monotonic(), Progress(sys.stderr.fileno(), step, detail)
    progress.start()
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stderr is not None
        is_for_us, said = True, []
        for line in child.stderr:
            said.append(line)
            is_for_us = is_for_us and not line.startswith(_HIDDEN)
            if is_for_us:
                with progress.aside():
                    print(line, end="", file=sys.stderr, flush=True)
    progress.stop()
    if child.returncode != 0 and not is_for_us:
        # What the traceback ends with; a log that could not be written adds more to it.
        print(next(filter(_is_error, reversed(said)), ""), end="", file=sys.stderr, flush=True)
    word = "failed" if child.returncode else "done"
    print(ended(step, time.monotonic() - began, f"{word:6}"), end="", file=sys.stderr, flush=True)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command, stderr="".join(said))


def _is_error(line: str) -> bool:
    """Whether a traceback ends so; a program that failed because another one did has nothing to add to its words."""
    return re.match(r"(?!subprocess\.)[\w.]+(Error|Exception)\b", line) is not None


@contextmanager
def room(directory: Path) -> "Iterator[str]":
    """A directory for temporary files beside what is made with them: /tmp may be full, or small."""
    temporary = directory / "tmp"
    temporary.mkdir()
    try:
        yield str(temporary)
    finally:
        shutil.rmtree(str(temporary))


def of_no_python(variables: "Mapping[str, str]") -> "dict[str, str]":
    """The variables that Python does not listen to."""
    return {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
