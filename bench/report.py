"""The results of the comparison of servers, and whether the goals are reached."""

import datetime
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bench.compare import IDLE, PACE, SCENARIOS, WORK, Results
from bench.figures import Figure, at_least, at_most, of
from bench.load import Cost
from bench.machine import machine, versions
from bench.page import bullets, paragraph, table
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
    Goal("fast", "handshakes", 2.8),
    Goal("workers", "W=1", 0.75, to="fast"),
    Goal("workers", "W=16", 0.8, to="fast"),
)
# What two workers with a CPU each should do, in times of what one does.
SCALING = {"W=1": 1.5, "W=16": 1.5, "handshakes": 1.7}
MOST_KIB = {"fast": 6.0}


def report(results: Results) -> str:
    """All of it, in Markdown."""
    remarks = bullets([*_goals(results), *_scaling(results), *_remarks(results)])
    if not results.measured:
        return remarks
    figures = of(results.figures())
    rows = [_row(figures, name) for name in results.measured]
    return "\n\n".join((_circumstances(results), table(_HEADER, rows), remarks))


def _row(figures: Mapping[tuple[str, str], Figure], name: str) -> list[str]:
    row = [SERVERS[name].title]
    for scenario in SCENARIOS:
        pace, work = (figures[f"{name}, {scenario}", which] for which in (PACE, WORK))
        row += [f"{pace.median:.0f}", f"{1e6 / work.median:.1f}", f"{work.ratio:.2f}" if work.reference else "-"]
    return [*row, f"{figures[f'{name}, idle', IDLE].median:.1f}"]


def _goals(results: Results) -> Iterator[str]:
    for goal in GOALS:
        if {goal.name, goal.to} <= {*results.measured}:
            ratio = results.ratio(goal.name, goal.scenario, goal.to)
            what = f"{goal.name}, {goal.scenario}: {ratio:.2f} times {goal.to}"
            yield f"{what}; goal {goal.least:.2f}, {at_least(ratio, goal.least)}"
    for name, most in MOST_KIB.items():
        if name in results.measured:
            kib = results.idle_kib[name]
            yield f"{name}, idle: {kib:.1f} KiB per connection; goal {most:.1f}, {at_most(kib, most)}"


def _scaling(results: Results) -> Iterator[str]:
    measured = {*results.measured}
    for scenario in SCENARIOS:
        if {"fast", "workers"} <= measured:
            ratio = results.ratio("workers", scenario, "fast", lambda cost: cost.per_busiest_second)
            what = f"scaling, {scenario}: two workers with a CPU each can do {ratio:.2f} times the work of one"
            yield f"{what}; goal {SCALING[scenario]:.2f}, {at_least(ratio, SCALING[scenario])}"
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
    here = machine()
    with_what = ", ".join(f"{name} {version}" for name, version in versions().items())
    return paragraph(
        f"{today}, {here.processor}, {here.kernel}: {held}; {rounds} x {seconds} s for each figure, "
        f"{connections} idle connections. {with_what}."
    )
