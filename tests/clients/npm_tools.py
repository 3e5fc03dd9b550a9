"""What tests use of npm, at the versions and hashes of tests/clients/npm/package-lock.json."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

NODE, NPM = shutil.which("node"), shutil.which("npm")
FETCH_TIMEOUT_S = 600
OLDEST_NODE = 20
_LOCKED = [Path(__file__).parent / "npm" / name for name in ("package.json", "package-lock.json")]


def require_npm() -> None:
    """Skip the test where Node is missing, or too old for what tests use of it."""
    if NODE is None or NPM is None:
        pytest.skip("Node and npm are not installed (apt install nodejs npm)")
    version = run(NODE, "-p", "process.versions.node", cwd=Path.cwd()).strip()
    if int(version.partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node {version} is too old; from {OLDEST_NODE} on it can run what tests use")


@cache
def node_modules() -> Path:
    """The directory of the modules, fetched once for each environment; the test is skipped where that cannot be."""
    require_npm()
    name = hashlib.sha256(b"".join(file.read_bytes() for file in _LOCKED)).hexdigest()[:12]
    directory = Path(sys.prefix, "npm", name)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side take turns
        if not (directory / "ready").exists():
            _fetch(directory)
            (directory / "ready").touch()
    return directory / "node_modules"


def _fetch(directory: Path) -> None:
    for file in _LOCKED:
        shutil.copyfile(file, directory / file.name)
    command = [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    fetched = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch what tests use: {fetched.stderr.strip().splitlines()[-1]}")


def run(*command: str | Path, cwd: Path) -> str:
    """What a program says; it must succeed."""
    environ = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "0"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node_flags() -> list[str]:
    """What Node needs to have a WebSocket, as it has by itself from version 22 on."""
    has_websocket = run(str(NODE), "-p", "typeof WebSocket", cwd=Path.cwd()) == "function\n"
    return [] if has_websocket else ["--experimental-websocket", "--no-warnings"]
