"""Make a virtual environment from locked requirements: `python3 -m generator.environment DIR REQUIREMENTS...`.

Runs before anything is installed, so it needs the standard library only, and says plainly what the machine lacks.
Pythons that are too old read it too, back to 3.6: that is why some annotations are text.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 10)
WHEELS = Path(__file__).resolve().parent.parent / "wheels"  # an archive of `wsbundle bundle` has them
READY = "ready"  # written last; make compares its age with the requirements


class MissingError(Exception):
    """The machine lacks something that the operator can install."""


def main(arguments: "list[str]") -> int:
    directory, *requirements = map(Path, arguments)
    try:
        make_environment(directory, requirements)
    except MissingError as error:
        print(f"wsbundle: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"wsbundle: setting up {directory} failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wsbundle: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def make_environment(directory: Path, requirements: "list[Path]") -> None:
    """Make or renew the environment; the project itself is installed into it for editing.

    Raises:
        MissingError: Python is too old, or comes without venv.
        CalledProcessError: pip failed; its own words are on the terminal.
    """
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise MissingError(f"Python {found} is too old; name one from {wanted} on: make PYTHON=python{wanted} ...")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise MissingError(
            "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install -y python3-venv"
        ) from None
    _refuse_other_targets()
    with open(f"{directory}.lock", "w") as lock:
        # Two makes at once take turns, and the second finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_ready(directory, requirements):
            _set_up(directory, requirements)


def _is_ready(directory: Path, requirements: "list[Path]") -> bool:
    ready = directory / READY
    made_from = [*requirements, Path("pyproject.toml")]
    return ready.exists() and all(ready.stat().st_mtime >= file.stat().st_mtime for file in made_from)


def _set_up(directory: Path, requirements: "list[Path]") -> None:
    import venv

    print(f"Setting up {directory} (once)", file=sys.stderr)
    (directory / READY).unlink(missing_ok=True)
    venv.create(directory, with_pip=True, clear=True, symlinks=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    locked = [word for file in requirements for word in ("--requirement", str(file))]
    subprocess.run([*pip, "install", "--require-hashes", *from_wheels(), *locked], check=True, env=environment)
    # `compat` puts one plain path into the environment; the default adds an import hook to every start.
    here = [
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--config-settings",
        "editable_mode=compat",
        "--editable",
        ".",
    ]
    subprocess.run([*pip, *here], check=True, env=environment)
    (directory / READY).touch()


def from_wheels() -> "list[str]":
    """pip's options where the wheels are at hand: take them from there, and use no network."""
    return ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() else []


def _refuse_other_targets() -> None:
    if not WHEELS.is_dir():
        return
    targets = (WHEELS / "targets").read_text(encoding="utf-8").splitlines()
    python, machine = ".".join(map(str, sys.version_info[:2])), os.uname().machine
    if f"{python} {machine}" not in targets:
        raise MissingError(
            f"this archive has wheels for Python {', '.join(targets)}, and this host has {python} {machine}; make one "
            f"for it: wsbundle bundle --python {python} --machine {machine}. Nothing was changed."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
