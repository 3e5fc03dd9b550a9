"""Whoever kills a process with a guardian does not keep it from being undone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.generator.front_door import ROOT

PROGRAM = """
import os, signal, sys
from pathlib import Path
from generator.host.programs import run
from generator.host.guardian import guarded

def undo(report):
    report.line("undone")
    Path("undone").touch()

def fail(report):
    report.line("undone")
    raise AssertionError("a fault of ours")

os.environ["PATH"] = os.getcwd() + ":" + os.environ["PATH"]
os.setpgid(0, 0)
with guarded(globals()[sys.argv[1]]):
    exec(sys.argv[2])
"""


def guarded_run(directory: Path, code: str, undo: str = "undo") -> int:
    journal = directory / "systemd-cat"
    journal.write_text(f"#!/bin/sh\ncat >{directory}/journal\n")
    journal.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", PROGRAM, undo, code]
    return subprocess.run(command, cwd=directory, env=environment, check=False).returncode


def told(directory: Path, text: str) -> bool:
    """Whether the journal gets to hear it within a few seconds."""
    deadline = time.monotonic() + 5
    while not ((directory / "journal").exists() and text in (directory / "journal").read_text()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_ends_by_itself_is_not_undone(tmp_path: Path) -> None:
    assert guarded_run(tmp_path, "pass") == 0
    assert guarded_run(tmp_path, "raise SystemExit(3)") == 3
    assert not (tmp_path / "undone").exists()


def test_a_killed_process_group_is_undone_and_the_journal_is_told(tmp_path: Path) -> None:
    assert guarded_run(tmp_path, "os.killpg(0, signal.SIGKILL)") == -signal.SIGKILL
    assert told(tmp_path, "undone")
    assert (tmp_path / "undone").exists()


def test_a_guardian_outlives_what_stops_all_that_is_left_of_a_unit(tmp_path: Path) -> None:
    children = "Path('/proc/thread-self/children').read_text().split()"
    stop = f"[os.kill(int(child), number) for child in {children} for number in (signal.SIGHUP, signal.SIGTERM)]"
    assert guarded_run(tmp_path, f"{stop}; os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    assert told(tmp_path, "undone")
    assert (tmp_path / "undone").exists()


def test_what_was_started_comes_to_its_end_first(tmp_path: Path) -> None:
    child = "sleep 0.5; test ! -e undone && touch first"
    code = f"""
import threading
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
run("sh", "-c", {child!r})
"""
    assert guarded_run(tmp_path, code) == -signal.SIGKILL
    assert told(tmp_path, "undone")
    assert (tmp_path / "first").exists()


def test_what_goes_wrong_is_told_to_the_journal(tmp_path: Path) -> None:
    guarded_run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", undo="fail")
    assert told(tmp_path, "AssertionError: a fault of ours")


def test_a_guardian_that_was_killed_itself_holds_nothing_up(tmp_path: Path) -> None:
    children = "Path('/proc/thread-self/children').read_text().split()"
    assert guarded_run(tmp_path, f"[os.kill(int(child), signal.SIGKILL) for child in {children}]") == 0
