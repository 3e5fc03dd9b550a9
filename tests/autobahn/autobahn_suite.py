"""Autobahn|Testsuite: where it comes from, how it is run, and what it has found.

Its last release runs under CPython 2.7 alone, and its exit status is 0 whatever it finds.
Source: https://github.com/crossbario/autobahn-testsuite, "docs/usage.rst".
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "_autobahn"  # no deployment can have this name
RELEASE = "autobahntestsuite==25.10.1"
# 9 is about speed; 12 and 13 are about compression, of which there is none.
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
INSTALL_TIMEOUT_S = 600.0
RUN_TIMEOUT_S = 120.0

Allowed = Mapping[str, Mapping[str, str]]
"""Cases by shell, each with the reason why it may fail."""

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")

# What stays so, and why. A case may leave this list, and none may join it: see `faults`.
ALLOWED: Allowed = {
    "standalone": {
        "7.1.5": "a client that closes in the middle of a fragmented message and goes on with it is answered 1002 "
        "instead of its own 1000. The `websockets` library does so; RFC 6455, section 5.5.1, forbids clients that."
    }
}

# Packages beside each other need their .pth files: zope.interface is in a namespace.
_WSTEST = (
    "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; sys.exit(run())"
)


class MissingError(Exception):
    """The testsuite cannot run here; the message says what is missing, and how to get it."""


class Outcome(NamedTuple):
    """What became of a case: how the messages were handled, and how the connection ended."""

    case: str
    behavior: str
    behavior_close: str

    @property
    def has_passed(self) -> bool:
        return self.behavior in PASSED and self.behavior_close in PASSED


def read_outcomes(index: str) -> list[Outcome]:
    """The outcomes in the `index.json` of a run with one server."""
    (outcomes,) = json.loads(index).values()
    return [
        Outcome(case, found["behavior"], found["behaviorClose"])
        for case, found in sorted(outcomes.items(), key=lambda item: [int(part) for part in item[0].split(".")])
    ]


def faults(
    shell: str, outcomes: Sequence[Outcome], allowed: Mapping[str, Mapping[str, str]] = ALLOWED
) -> Iterator[str]:
    """What is wrong: cases that fail, and allowed ones that need it no more."""
    excused = allowed.get(shell, {})
    if not outcomes:
        yield f"{shell}: no case ran"
    for outcome in outcomes:
        if outcome.has_passed and outcome.case in excused:
            yield f"{shell}: case {outcome.case} passes now; take it off ALLOWED"
        elif not outcome.has_passed and outcome.case not in excused:
            yield f"{shell}: case {outcome.case}: {outcome.behavior}, close {outcome.behavior_close}"


def python27() -> str:
    """A CPython 2.7 with pip.

    Raises:
        MissingError
    """
    of_pyenv = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/2.7.*/bin/python2.7"))
    for candidate in (os.environ.get("PYTHON27"), *map(str, of_pyenv), shutil.which("python2.7")):
        if candidate and _answers([candidate, "-m", "pip", "--version"]):
            return candidate
    raise MissingError(
        "Autobahn|Testsuite needs CPython 2.7 with pip, which is not here; install it with `pyenv install 2.7.18`, "
        "or name one: make test-autobahn PYTHON27=/path/to/python2.7"
    )


def _answers(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def installed(python: str) -> Path:
    """A directory with the testsuite and what it needs.

    Raises:
        MissingError: pip failed.
    """
    packages = BUILD / RELEASE
    if not packages.exists():
        fresh = BUILD / "unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        pip = [
            python,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--target",
            str(fresh),
            RELEASE,
        ]
        try:
            subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = error.stderr if isinstance(error.stderr, str) else ""
            last = (said.strip().splitlines() or ["no answer"])[-1]
            raise MissingError(f"pip cannot install {RELEASE} ({last}); it compiles: apt-get install -y gcc") from error
        fresh.rename(packages)
    return packages


def run(shell: str, port: int, cases: Sequence[str]) -> list[Outcome]:
    """Let the fuzzing client loose on the server at a port of loopback.

    Raises:
        MissingError
    """
    python = python27()
    packages = installed(python)
    reports = BUILD / shell
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    specification = reports / "fuzzingclient.json"
    server = {"agent": shell, "url": f"ws://127.0.0.1:{port}"}
    asked = {"outdir": str(reports), "servers": [server], "cases": list(cases), "exclude-agent-cases": {}}
    specification.write_text(json.dumps({**asked, "exclude-cases": []}))
    wstest = [python, "-c", _WSTEST, str(packages), "-m", "fuzzingclient", "-s", str(specification)]
    with (reports / "wstest.log").open("wb") as log:
        subprocess.run(wstest, stdout=log, stderr=log, cwd=reports, timeout=RUN_TIMEOUT_S, check=True)
    return read_outcomes((reports / "index.json").read_text())
