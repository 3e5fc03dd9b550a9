"""The programs of a host: the one place that runs them."""

import os
import shutil
import subprocess
import sys
from typing import Any, NoReturn

import msgspec

from generator.readers.processes import MINIMAL_PATH
from generator.report import CommandError

PATH = MINIMAL_PATH


class Outcome(msgspec.Struct, frozen=True):
    """The result of a program: its exit code, and stdout and stderr as one text."""

    code: int
    output: str

    @property
    def succeeded(self) -> bool:
        return self.code == 0


class StepFailed(CommandError):
    """A program did not do its part; the message has its words."""


def run(*command: str, timeout_s: float | None = 60, stdin: str | None = None, **environment: str) -> Outcome:
    """Run a program to its end, in a clean environment and without a terminal. It reads `stdin`."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin.encode()}
    try:
        done = subprocess.run(
            command,
            **given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            close_fds=False,  # a program of the installer holds the socket of its guardian, if there is one, to its end
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", **environment},
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        return Outcome(127, f"{command[0]} is not installed")
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return Outcome(124, f"{said}\n{command[0]} did not end within {error.timeout:g} s".strip())
    return Outcome(done.returncode, done.stdout.decode(errors="replace").strip())


def proxies() -> dict[str, str]:
    """The variables that say through which proxy this host reaches the network, for programs that go there."""
    return {name: text for name, text in os.environ.items() if name.lower().endswith("_proxy")}


def become(*command: str) -> NoReturn:
    """Go on as a program that has our terminal, and whatever ends it.

    Raises:
        CommandError: it is not installed.
    """
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, {**os.environ, "PATH": PATH})
    except FileNotFoundError:
        raise CommandError(f"{command[0]} is not installed") from None


def has(program: str) -> bool:
    return shutil.which(program, path=PATH) is not None


def must(outcome: Outcome, doing: str = "") -> str:
    """The output of a program that must succeed; `doing` opens the message if its own words do not say enough.

    Raises:
        StepFailed
    """
    if not outcome.succeeded:
        said = outcome.output or f"exit code {outcome.code}"
        raise StepFailed(f"{doing} failed: {said}" if doing else said)
    return outcome.output


def journal() -> "subprocess.Popen[bytes]":
    """Its stdin goes to the journal. Source: systemd-cat(1)."""
    return subprocess.Popen(["systemd-cat", "--identifier=wsbundle"], stdin=subprocess.PIPE)
