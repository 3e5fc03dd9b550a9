"""Several programs as one: they end together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def run(commands: Iterable[tuple[list[str], dict[str, str]]], directory: Path) -> int:
    """Run command lines with their environments, until SIGTERM or until one of them ends; the status of that one."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command, environ in commands:
            children.append(subprocess.Popen(command, cwd=directory, env=environ))
        _, status = os.wait()
        return os.waitstatus_to_exitcode(status) or 1
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()
