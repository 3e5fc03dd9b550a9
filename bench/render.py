"""The cost of `wsbundle render`: whole processes, CPU time, against `python -c "import jinja2, yaml"` in the same run.

    make bench ARGS=render

Rounds are interleaved, so that whatever else the machine does falls on all cases alike; each figure is the median of
the per-round ratios.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, Outcome, at_most
from bench.page import table
from bench.programs import ROOT

ROUNDS = 15
QUICK_ROUNDS = 3
BAR = "import jinja2, yaml"
# Of the process alone; and with the programs that it runs, which are none where nothing has changed.
GOALS, GOALS_IN_ALL = {"render, first": 1.4, "fault in deploy.yaml": 0.65}, {"render, nothing to do": 1.5}

# As the installed command does it.
_RUNS = """import gc
gc.disable()
from generator.__main__ import run
try:
    run()
except SystemExit as ended:
    assert ended.code == {}
"""
_RENDERS, _REFUSES = _RUNS.format(0), _RUNS.format(2)
# Only the process itself can separate its own time from that of the programs it ran.
_TELL_OWN_TIME = """
from resource import RUSAGE_SELF, getrusage
used = getrusage(RUSAGE_SELF)
print()
print(used.ru_utime + used.ru_stime)
"""


# As for anybody who runs a command twice: its modules are compiled the first time only.
_COMPILED_ONCE = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Case(NamedTuple):
    """Code for one process, and its arguments."""

    code: str
    arguments: tuple[str, ...] = ()


def cpu_seconds(case: Case) -> tuple[float, float]:
    """User and system time of one process, and the same with all the programs that it started.

    Raises:
        RuntimeError: it did not end as expected, so its time means nothing.
    """
    code = f"import sys\n{case.code}\n{_TELL_OWN_TIME}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *case.arguments], capture_output=True, text=True, cwd=ROOT, env=_COMPILED_ONCE
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout.splitlines()[-1:]
    if done.returncode or not said:
        raise RuntimeError(f"{case} failed: {done.stdout}{done.stderr}")
    return float(said[0]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(directory: Path, count: int) -> dict[str, list[tuple[float, float]]]:
    """Own and whole CPU seconds per case and round."""
    deploy = ("--file", str(ROOT / "deploy.yaml"))
    same = ("render", *deploy, "--output", str(directory / "same"))
    cpu_seconds(Case(_RENDERS, same))
    rounds: dict[str, list[tuple[float, float]]] = {}
    for number in range(count):
        fresh = ("--set", f"env.ROUND={time.time_ns()}")  # of which no reader has said anything yet
        cases = {
            "pass": Case("pass"),
            BAR: Case(BAR),
            "render, first": Case(_RENDERS, ("render", *deploy, *fresh, "--output", str(directory / str(number)))),
            "render, nothing to do": Case(_RENDERS, same),
            "fault in deploy.yaml": Case(_REFUSES, ("render", *deploy, "--set", "port=1")),
        }
        for name, case in cases.items():
            rounds.setdefault(name, []).append(cpu_seconds(case))
    return rounds


def figures(rounds: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, tuple[Figure, Figure]]:
    """Of each case: what the process itself took, and with its programs."""
    return {name: (_figure(name, "CPU", 0, rounds), _figure(name, "CPU with programs", 1, rounds)) for name in rounds}


def _figure(case: str, name: str, part: int, rounds: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    values, reference = (tuple(times[part] * 1000 for times in rounds[which]) for which in (case, BAR))
    return Figure(case=case, name=name, unit="ms", better="less", values=values, reference=reference)


def report(count: int) -> Outcome:
    """The results of this many rounds."""
    with tempfile.TemporaryDirectory(prefix="wsbundle-bench-") as directory:
        measured = figures(measure(Path(directory), count))
    rows = []
    for name, (own, whole) in measured.items():
        goal, counted = (GOALS[name], own) if name in GOALS else (GOALS_IN_ALL.get(name), whole)
        verdict = "" if goal is None else f"{goal}, {at_most(counted.ratio, goal)}"
        rows.append((name, f"{own.median:.1f}", f"{own.ratio:.2f}", f"{whole.ratio:.2f}", verdict))
    text = (
        f"Median of {count} rounds; ratios to `{BAR}`. With programs: those that read the bundle are counted, too.\n\n"
        + table(("case", "CPU ms", "ratio", "with programs", "goal"), rows)
    )
    return Outcome(text, [figure for both in measured.values() for figure in both], f"{count} rounds")
