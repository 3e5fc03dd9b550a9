"""What the programs of the service say when they are asked how they are used."""

import re
import signal
import subprocess

import pytest

from tests.in_process import program
from tests.service.shells import ROOT, clean_environment

PROGRAMS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "service").rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)


def run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # Help is wanted most where something is wrong.
    return program(module, *arguments, environ=clean_environment(WEBSOCKET_PING_INTERVAL="often"))


def test_there_are_programs_to_ask() -> None:
    others = ["client", "mailbox", "mint", "server", "workers.reload"]
    assert ["service", *(f"service.{name}" for name in others)] == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("wish", ["-h", "--help"])
def test_help_says_how_a_program_is_used(program: str, wish: str) -> None:
    helped = run(program, wish)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert re.search(rf"python -m {program}|client\.py", helped.stdout)


@pytest.mark.parametrize("program", PROGRAMS)
def test_any_other_argument_is_wrong_usage(program: str) -> None:
    asked = run(program, "--no-such-option")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert re.search(rf"python -m {program}|client\.py", asked.stderr)


@pytest.mark.parametrize("program", ["service", "service.server"])
def test_signals_that_a_program_holds_back_reach_what_is_started_afterwards(program: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run(program, "--help")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before == set()


def test_a_token_for_a_time_that_is_not_a_number_is_wrong_usage() -> None:
    asked = run("service.mint", "token", "keys.json", "alice", "soon")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("Tokens and the keys")
