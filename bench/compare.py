"""The cost of a message, a handshake and an idle connection for each server, in interleaved rounds.

So whatever else the machine does falls on all servers alike. A ratio is one of work per second of the server's CPU
time, to the reference in the same round; the figure is the median of the rounds.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from bench import load
from bench.figures import Figure
from bench.load import Cost, LoadError
from bench.programs import MissingError
from bench.servers import REFERENCE, SERVERS, SPARE_FILES, Running, StartError, allow_many_files, running


class Plan(NamedTuple):
    """How thorough to be."""

    rounds: int
    seconds: float
    connections: int


FULL = Plan(rounds=3, seconds=2.0, connections=10_000)
QUICK = Plan(rounds=1, seconds=0.2, connections=300)

SCENARIOS: dict[str, Callable[[Running, float], Cost]] = {
    "W=1": lambda server, seconds: load.route(server, 1, seconds),
    "W=16": lambda server, seconds: load.route(server, 16, seconds),
    "handshakes": load.handshakes,
}


# The figures of a server, in each scenario and with idle connections.
PACE, WORK, IDLE = "done a second", "done per CPU second", "memory of a connection"


class Results:
    """The measurements, by name of the server; `failures` and `missing` say why the others were not."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.costs: dict[tuple[str, str], list[Cost]] = {}
        self.idle_kib: dict[str, float] = {}
        self.failures: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    @property
    def measured(self) -> list[str]:
        """The servers that were measured to the end."""
        return [name for name in SERVERS if name in self.idle_kib]

    def figures(self) -> Iterator[Figure]:
        """Of the servers that were measured to the end."""
        for name in self.measured:
            for scenario in SCENARIOS:
                yield self._figure(name, scenario, PACE, lambda cost: cost.per_second)
                yield self._figure(name, scenario, WORK, lambda cost: cost.per_server_second)
            kib = (self.idle_kib[name],)
            yield Figure(case=f"{name}, idle", name=IDLE, unit="KiB", better="less", values=kib, noise=0.1)

    def _figure(self, name: str, scenario: str, what: str, figure: Callable[[Cost], float]) -> Figure:
        return Figure(
            case=f"{name}, {scenario}",
            name=what,
            unit="handshakes/s" if scenario == "handshakes" else "messages/s",
            better="more",
            values=tuple(map(figure, self.costs[name, scenario])),
            reference=tuple(map(figure, self.costs[REFERENCE, scenario])) if REFERENCE in self.measured else (),
        )

    def median(self, name: str, scenario: str, figure: Callable[[Cost], float]) -> float:
        return statistics.median(map(figure, self.costs[name, scenario]))

    def ratio(
        self,
        name: str,
        scenario: str,
        to: str = REFERENCE,
        figure: Callable[[Cost], float] = lambda cost: cost.per_server_second,
    ) -> float:
        rounds = zip(self.costs[name, scenario], self.costs[to, scenario], strict=True)
        return statistics.median(figure(mine) / figure(other) for mine, other in rounds)


def measure(names: Iterable[str], plan: Plan, progress: Callable[[str], None]) -> Results:
    """Measure some servers and the reference; one that fails once is left out from then on."""
    plan = plan._replace(connections=min(plan.connections, allow_many_files() - SPARE_FILES))
    results = Results(plan)
    names = [name for name in SERVERS if name in {*names, REFERENCE}]
    for number in range(plan.rounds):
        for name in names:
            if name in results.failures or name in results.missing:
                continue
            progress(f"round {number + 1} of {plan.rounds}: {name}")
            try:
                _round(name, plan, results, is_last=number == plan.rounds - 1)
            except MissingError as error:
                results.missing[name] = str(error)
            except (LoadError, StartError) as error:
                results.failures[name] = str(error)
    return results


def _round(name: str, plan: Plan, results: Results, is_last: bool) -> None:
    with running(SERVERS[name]) as server:
        for scenario, run in SCENARIOS.items():
            results.costs.setdefault((name, scenario), []).append(run(server, plan.seconds))
    if is_last:
        # A fresh process: memory left over from the load before does not belong to the connections.
        with running(SERVERS[name]) as server:
            results.idle_kib[name] = load.idle(server, plan.connections)
