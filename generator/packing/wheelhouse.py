"""The locked requirements as wheels for another host: its Python, its machine, not those that run here."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from packaging.markers import Marker, default_environment

from generator.config.sources import OF_WHEELS
from generator.pip import PipError, of_pip
from generator.report import CommandError

TARGETS = "targets"  # the file beside the wheels that says for whom they are; generator.environment reads it
DEFAULT_PYTHON = "3.11"  # of Debian 12
MACHINES = ("x86_64", "aarch64")
# glibc from 2.17 (manylinux2014) to 2.34: the oldest system that preflight lets pass, Ubuntu 22.04, has 2.35.
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")


class Target(msgspec.Struct, frozen=True, order=True):
    """A Python, such as 3.11, on a machine as uname(1) names it."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"{self.python} {self.machine}"


def download(targets: Sequence[Target], locks: Sequence[str], directory: Path) -> None:
    """Fill a directory with the wheels that the texts of requirements files name, each verified by its hash.

    Raises:
        CommandError: a target lacks one, or the index cannot be reached; has pip's own words.
    """
    for target in targets:
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirements:
            requirements.write("".join(requirements_for(target, locks)))
            requirements.flush()
            _pip_download(target, requirements.name, directory)
    (directory / TARGETS).write_text("".join(f"{target}\n" for target in sorted(set(targets))), encoding="utf-8")


def requirements_for(target: Target, locks: Iterable[str]) -> list[str]:
    """The locked lines that concern a target, without their markers.

    pip judges markers by the Python that runs it, whatever it downloads for: https://github.com/pypa/pip/issues/11664.
    """
    host = {"python_version": target.python, "python_full_version": f"{target.python}.0"}
    host |= {"implementation_name": "cpython", "platform_python_implementation": "CPython", "os_name": "posix"}
    host |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": target.machine}
    environment = {**{name: str(value) for name, value in default_environment().items()}, **host}
    wanted = {
        f"{requirement} {hashes}\n": None
        for lock in locks
        for requirement, marker, hashes in _locked(lock)
        if not marker or Marker(marker).evaluate(environment)
    }
    return list(wanted)


def _entries(requirements: str) -> Iterator[str]:
    """Each line that says something, with those that a backslash joins to it."""
    lines = re.sub(r"\\\n\s*", "", requirements).splitlines()
    return filter(None, map(str.strip, lines))


def _locked(lock: str) -> Iterator[tuple[str, str, str]]:
    """Requirement, marker and hashes of each entry of a requirements file that `make lock` wrote."""
    for line in _entries(lock):
        if not line.startswith("#"):
            requirement, _, hashes = line.partition(" --hash=")
            pinned, _, marker = requirement.partition(";")
            yield pinned.strip(), marker.strip(), f"--hash={hashes}"


def locked(requirements: str) -> str:
    """An application's requirements, as a lock; without the wheels that are among its own files.

    Raises:
        CommandError: some have no hash, so that nobody knows what would be in the archive.
    """
    lines = [line for line in _entries(requirements) if not (line.startswith(("#", "-")) or OF_WHEELS.match(line))]
    if open_ones := [line.split()[0] for line in lines if "--hash=" not in line]:
        fix = "lock all of them: uv pip compile --generate-hashes requirements.in -o requirements.txt"
        raise CommandError(f"An archive has what is locked by its hash, and {', '.join(open_ones[:5])} is not; {fix}")
    return "\n".join(lines) + "\n"


def _pip_download(target: Target, requirements: str, directory: Path) -> None:
    # All that is needed is locked, so pip looks for no dependencies: it would judge their markers wrongly, too.
    words = ["download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(directory)]
    words += ["--implementation", "cp", "--python-version", target.python]
    words += [word for platform in _PLATFORMS for word in ("--platform", f"{platform}_{target.machine}")]
    pip = [sys.executable, "-I", "-m", "pip", *words, "-r", requirements]
    try:
        variables = of_pip(os.environ)
    except PipError as error:
        raise CommandError(str(error)) from None
    done = subprocess.run(pip, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = done.stdout.splitlines()
        # What pip did not expect, such as a connection that is too slow, it says in the last line of a traceback.
        errors = [line for line in lines if line.startswith("ERROR:") and line != "ERROR: Exception:"]
        said = "\n".join(f"  {line}" for line in errors or lines[-5:])
        raise CommandError(f"Not all wheels were found for Python {target}; nothing was written.\n{said}")
