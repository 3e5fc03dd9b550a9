"""The command `wsbundle` as a test calls it: in this process, or in one of its own where the process matters."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from generator.__main__ import main

ROOT = Path(__file__).parent.parent.parent
# What makes an environment, before there is one.
MAKERS = ("__init__", "environment", "filling", "pip", "progress", "reasons", "uv")
COMMAND = [sys.executable, "-m", "generator"]
# All that python needs to find the project from any directory, and nothing that the tests' own environment adds.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def wsbundle(*arguments: str) -> Outcome:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def process(command: Sequence[str | Path], **options: Any) -> Outcome:
    done = subprocess.run(
        command, check=False, **{"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300, **options}
    )
    return Outcome(done.returncode, done.stdout or "", done.stderr or "")


def shown_on(terminal: int) -> str:
    """All that is written to a terminal until its other end is closed; this one is closed then. It comes in pieces."""
    shown = b""
    with suppress(OSError):  # EIO: the last process that had the other end is gone
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    return shown.decode()
