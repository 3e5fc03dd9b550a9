"""Programs and functions run side by side, and none can keep us waiting."""

import os
import sys
import time
from pathlib import Path

import pytest

from generator.readers.processes import Call, Job, Outcome, Program, Running, find_program, side_by_side, stand_in_for

SH = "/bin/sh"


def one(job: Job) -> Running[Outcome]:
    return (yield job)


def outcome(job: Job, time_limit_s: float = 10) -> Outcome:
    return side_by_side([one(job)], time_limit_s)[0]


def test_a_program_gives_its_status_and_all_that_it_wrote() -> None:
    assert outcome(Program([SH, "-c", "echo out; echo err >&2; exit 3"])) == Outcome(3, "out\nerr\n")


def test_a_program_sees_no_environment_but_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    said = outcome(Program([SH, "-c", 'echo "$SECRET|$GIVEN|$PATH"'], {"GIVEN": "y"})).output
    assert said == "|y|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


def test_a_program_reads_nothing_from_our_terminal() -> None:
    assert outcome(Program([SH, "-c", "cat; echo end"])).output == "end\n"


def test_a_program_that_is_not_there_is_a_failure_not_an_exception() -> None:
    assert outcome(Program(["/nowhere/tool"])).failure == "could not be started: No such file or directory"


def test_a_program_that_is_killed_has_said_nothing_of_what_it_was_to_read() -> None:
    assert outcome(Program([SH, "-c", "kill -KILL $$"])).failure == "was ended by SIGKILL"


def test_a_function_runs_in_a_fork_and_changes_nothing_here() -> None:
    def change() -> str:
        os.environ["CHANGED"] = "1"
        return f"{os.getpid() != parent}"

    parent = os.getpid()
    assert outcome(Call(change)).output == "True"
    assert "CHANGED" not in os.environ


def test_a_function_that_raises_or_exits_gives_a_status() -> None:
    assert outcome(Call(lambda: [""][1])) == Outcome(70, "IndexError: list index out of range")
    assert outcome(Call(lambda: sys.exit(0))) == Outcome(70, "SystemExit: 0")


@pytest.mark.parametrize(
    "job",
    [
        Program([SH, "-c", "sleep 60"]),
        Program([SH, "-c", "trap '' TERM; while :; do :; done"]),
        Program([SH, "-c", "exec >&- 2>&-; sleep 60"]),
        Program([SH, "-c", "sleep 60 & exit 0"]),
        Call(lambda: time.sleep(60) or ""),  # type: ignore[func-returns-value]
    ],
    ids=["sleeps", "ignores_signals", "closes_its_output", "leaves_a_child", "function"],
)
def test_what_hangs_is_ended_and_told_so(job: Job) -> None:
    started = time.monotonic()
    assert outcome(job, 0.2).failure == "did not answer within 0.2 s"
    assert time.monotonic() - started < 30


def test_what_hangs_does_not_keep_the_others_waiting_nor_spoil_them() -> None:
    hanging, quick = side_by_side([one(Program([SH, "-c", "sleep 60"])), one(Program([SH, "-c", "echo x"]))], 0.2)
    assert hanging.failure
    assert quick == Outcome(0, "x\n")


def test_all_run_at_once() -> None:
    # Each waits for the other: one after the other, neither would end.
    reading, writing = os.pipe()
    first, second = f"/proc/{os.getpid()}/fd/{reading}", f"/proc/{os.getpid()}/fd/{writing}"
    said = side_by_side(
        [one(Program([SH, "-c", f"read line < {first}; echo $line"])), one(Program([SH, "-c", f"echo met > {second}"]))]
    )
    os.close(reading)
    os.close(writing)
    assert said[0].output == "met\n"


def test_a_task_can_run_one_job_after_another() -> None:
    def task() -> Running[str]:
        first = yield Program([SH, "-c", "echo a"])
        second = yield Program([SH, "-c", f"echo {first.output.strip()}b"])
        return second.output

    assert side_by_side([task()]) == ["ab\n"]


def test_a_flood_of_output_is_cut_not_kept() -> None:
    said = outcome(Program([SH, "-c", "yes | head -c 5000000"]))
    assert said.status == 0
    assert len(said.output) == 1 << 20


def test_when_a_task_breaks_no_child_is_left() -> None:
    def broken() -> Running[Outcome]:
        yield Program([SH, "-c", "exit 0"])
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError):
        side_by_side([one(Program([SH, "-c", "sleep 60"])), broken()])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_is_found_in_the_sbin_beside_the_bin_of_an_ordinary_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for directory in ("bin", "sbin"):
        (tmp_path / directory).mkdir()
    tool = tmp_path / "sbin" / "tool"
    tool.touch(mode=0o755)
    (tmp_path / "bin" / "data").touch(mode=0o644)
    monkeypatch.setenv("PATH", f"/nowhere::{tmp_path}/bin")
    assert find_program("tool") == str(tool)
    assert find_program("data") is None


def test_a_stand_in_can_be_imported_from_and_subclassed() -> None:
    def use() -> str:
        stand_in_for(["no.such.module", "nosuch"])
        from nosuch import Thing  # type: ignore[import-not-found]

        return type("Sub", (Thing,), {}).__name__

    assert outcome(Call(use)).output == "Sub"
    assert "nosuch" not in sys.modules
