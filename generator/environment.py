"""Make a virtual environment from locked requirements: `python3 -m generator.environment DIR REQUIREMENTS...`.

Runs before anything is installed, so it needs the standard library only, and says plainly what the machine lacks.
Pythons that are too old read it too, back to 3.6: that is why some annotations are text.
"""

import os
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 10)
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
        import venv
    except ImportError:
        raise MissingError(
            "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install -y python3-venv"
        ) from None
    print(f"Setting up {directory} (once)", file=sys.stderr)
    (directory / READY).unlink(missing_ok=True)
    venv.create(directory, with_pip=True, clear=True, symlinks=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    locked = [word for file in requirements for word in ("--requirement", str(file))]
    subprocess.run([*pip, "install", "--require-hashes", *locked], check=True, env=environment)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
