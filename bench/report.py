"""The results of the comparison of servers, and whether the goals are reached."""

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench.compare import SCENARIOS, Results
from bench.load import Cost
from bench.page import bullets, paragraph, table
from bench.programs import MissingError, program
from bench.servers import REFERENCE, SERVERS

_LOAD_IS_BUSY = 0.95
_HEADER = (
    "server",
    *("W=1: messages/s", "CPU us", "ratio"),
    *("W=16: messages/s", "CPU us", "ratio"),
    *("handshakes/s", "CPU us", "ratio"),
    "KiB per idle connection",
)


class Goal(NamedTuple):
    """A goal of one of our servers: at least a ratio to another server."""

    name: str
    scenario: str
    least: float
    to: str = REFERENCE


GOALS = (
    Goal("fast", "W=1", 3.0),
    Goal("fast", "W=16", 4.0),
    Goal("fast", "W=1", 0.95, to="nchan"),
    Goal("fast", "W=16", 0.95, to="nchan"),
    Goal("fast", "handshakes", 1.5),
    Goal("workers", "W=1", 0.9, to="fast"),
    Goal("workers", "W=16", 0.9, to="fast"),
)
MOST_KIB = {"fast": 12.0}


def report(results: Results) -> str:
    """All of it, in Markdown."""
    remarks = bullets([*_goals(results), *_scaling(results), *_remarks(results)])
    if not results.measured:
        return remarks
    rows = [_row(results, name) for name in results.measured]
    return "\n\n".join((_circumstances(results), table(_HEADER, rows), remarks))


def _row(results: Results, name: str) -> list[str]:
    row = [SERVERS[name].title]
    for scenario in SCENARIOS:
        row.append(f"{results.median(name, scenario, lambda cost: cost.per_second):.0f}")
        row.append(f"{results.median(name, scenario, lambda cost: 1e6 / cost.per_server_second):.1f}")
        row.append(f"{results.ratio(name, scenario):.2f}" if REFERENCE in results.measured else "-")
    return [*row, f"{results.idle_kib[name]:.1f}"]


def _goals(results: Results) -> Iterator[str]:
    for goal in GOALS:
        if {goal.name, goal.to} <= {*results.measured}:
            ratio = results.ratio(goal.name, goal.scenario, goal.to)
            verdict = "below its goal" if ratio < goal.least else "reached"
            yield f"{goal.name}, {goal.scenario}: {ratio:.2f} times {goal.to}; goal {goal.least:.2f}, {verdict}"
    for name, most in MOST_KIB.items():
        if name in results.measured:
            kib = results.idle_kib[name]
            verdict = "above its goal" if kib > most else "reached"
            yield f"{name}, idle: {kib:.1f} KiB per connection; goal {most:.1f}, {verdict}"


def _scaling(results: Results) -> Iterator[str]:
    measured = {*results.measured}
    for scenario in SCENARIOS:
        if {"fast", "workers"} <= measured:
            ratio = results.ratio("workers", scenario, "fast", lambda cost: cost.per_busiest_second)
            yield f"scaling, {scenario}: two workers with a CPU each can do {ratio:.2f} times the work of one"
        if {"fast", "two-cpus"} <= measured:
            ratio = results.ratio("two-cpus", scenario, "fast", lambda cost: cost.per_second)
            load = results.median("two-cpus", scenario, _load_share)
            yield f"two-cpus, {scenario}: {ratio:.2f} times fast by the clock; the load took {load:.2f} of a CPU"


def _remarks(results: Results) -> Iterator[str]:
    for name in results.measured:
        busy = [scenario for scenario in SCENARIOS if results.median(name, scenario, _load_share) > _LOAD_IS_BUSY]
        if busy:
            yield f"{name}, {', '.join(busy)}: the load was at its limit; the server could do more than /s says"
    for name, reason in results.failures.items():
        yield f"{name} failed: {reason}"
    for name, reason in results.missing.items():
        yield f"{name}: not measured: {reason}"


def _load_share(cost: Cost) -> float:
    return cost.load_seconds / cost.seconds


def _circumstances(results: Results) -> str:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    rounds, seconds, connections = results.plan
    held = "server and load on a CPU each" if len(os.sched_getaffinity(0)) > 1 else "server and load on the same CPU"
    linux, _, _ = platform.release().partition("-")
    return paragraph(
        f"{today}, {_processor()}, Linux {linux}: {held}; {rounds} x {seconds} s for each figure, "
        f"{connections} idle connections. {', '.join(_versions())}."
    )


def _processor() -> str:
    models = re.findall(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return str(models[0]) if models else platform.machine()


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for package in ("uvicorn", "gunicorn", "websockets", "uvloop"):
        yield f"{package} {version(package)}"
    for name, package, tell in (("node", "nodejs", "--version"), ("nginx", "nginx", "-v")):
        try:
            said = subprocess.run([program(name, package), tell], capture_output=True, text=True)
        except MissingError:
            continue
        yield f"{name} {re.findall(r'[0-9][0-9.]*', said.stdout + said.stderr)[0]}"
