"""The whole way, as users have it: through nginx, without TLS and with it, beside what others run there.

A message, a handshake, a storm of clients that all come back at once, a large group, and an idle connection. Servers
take turns in each round, and a ratio is one of the same round: work per second of the CPU time of all processes of the
server, nginx included.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.figures import Figure, Outcome, at_least, at_most
from bench.load import Cost, Dialect, Pace, Storm
from bench.page import bullets, paragraph, table
from bench.programs import MissingError, certificate, peers_packages
from bench.servers import SERVERS, SPARE_FILES, Running, Server, allow_many_files, nchan, python, running

_LIMITS = (
    "limits.connections=100000 limits.connections_per_address=65535 limits.messages_per_second=1000000 "
    "limits.bytes_per_second=1073741824 limits.handshakes_per_second=10000 limits.handshake_burst=100000"
)
PER_SECOND = 5000
# So many of them: each takes as long as a round of all else.
_STORMS = 2
# One process of nginx has two sockets for each client, and this machine may not let it have so many.
_TWO = "--nginx-workers 2"


def deployed(title: str, flags: str = "", tls: bool = False, settings: str = "") -> Server:
    """nginx and the service behind it; the flags are those of `bench.deployed`, the settings those of deploy.yaml."""
    command = f"-m bench.deployed {flags} {{port}} {{directory}} {_LIMITS} {settings} {'tls=files' if tls else ''}"
    return Server(title, python(command), tls=tls)


def _guide(title: str, tls: bool = False) -> Server:
    command = f"-m bench.peers.guide_site {{port}} {{directory}} {'--tls' if tls else ''}"
    return Server(title, python(command), tls=tls)


def _nchan_over_tls(port: int, directory: Path) -> list[str]:
    file, key = certificate(directory)
    return nchan(port, directory, f" ssl; ssl_certificate {file}; ssl_certificate_key {key}")


ALONE, DEPLOYED, OVER_TLS = "alone", "deployed", "deployed-tls"
WAYS = {
    ALONE: SERVERS["fast"]._replace(title="the service without nginx"),
    DEPLOYED: deployed("**as deployed**"),
    OVER_TLS: deployed("**as deployed, TLS**", tls=True),
    "nchan": SERVERS["nchan"],
    "nchan-tls": SERVERS["nchan"]._replace(title="nginx with nchan, TLS", command=_nchan_over_tls, tls=True),
    "guide": _guide("uvicorn and nginx as the guide has them"),
    "guide-tls": _guide("uvicorn and nginx as the guide has them, TLS", tls=True),
}
SCENARIOS: dict[str, Callable[[Running, float], Cost]] = {
    "W=1": lambda server, seconds: load.route(server, 1, seconds),
    "W=16": lambda server, seconds: load.route(server, 16, seconds),
    "handshakes": load.handshakes,
    "pace": lambda server, seconds: load.pace(server, PER_SECOND, seconds),
}
OURS = Dialect(
    subprotocol="nc.v1",
    says=('{"type":"hello","id":0}', '{"type":"join","id":1,"group":"g"}'),
    before='{"type":"send","group":"g","message":"',
    behind='"}',
)
_SOCKET_IO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket", says=("40", '42["join"]'), before='42["say","', behind='"]'
)


def _rooms(port: int, directory: Path) -> list[str]:
    arguments = "-m uvicorn bench.peers.rooms:app --port {port} --loop asyncio --ws auto --log-level warning"
    return python(arguments)(port, directory)


GROUPS: dict[str, tuple[Server, Dialect]] = {
    "fast": (SERVERS["fast"], OURS),
    "nchan": (SERVERS["nchan"]._replace(subscribes_by_path=False), Dialect(path="/?subscriber=all&publisher=all")),
    "socket.io": (Server("python-socketio, a room", _rooms), _SOCKET_IO),
}


class Plan(NamedTuple):
    """How thorough to be."""

    rounds: int
    seconds: float
    connections: int
    members: int


FULL = Plan(rounds=5, seconds=1.0, connections=10_000, members=1000)
QUICK = Plan(rounds=1, seconds=0.2, connections=200, members=100)


class Goal(NamedTuple):
    """At least so many times the work per CPU second of another way."""

    way: str
    scenario: str
    to: str
    least: float


GOALS = (
    Goal(DEPLOYED, "W=1", ALONE, 1 / 1.6),
    Goal(DEPLOYED, "W=16", ALONE, 1 / 1.5),
    Goal(DEPLOYED, "W=1", "nchan", 0.75),
    Goal(OVER_TLS, "W=1", "nchan-tls", 0.75),
    Goal(DEPLOYED, "W=16", "nchan", 2.2),
    Goal(OVER_TLS, "W=16", "nchan-tls", 2.2),
    Goal(DEPLOYED, "W=1", "guide", 4.0),
    Goal(DEPLOYED, "W=16", "guide", 9.0),
)
MOST_OF_NCHANS_P99 = 1.3
MOST_OF_A_STORM = 1.3
LEAST_IN_A_GROUP = {"nchan": 1.1, "socket.io": 4.0}


class Results:
    """What was measured; `missing` says why something was not."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.costs: dict[tuple[str, str], list[Cost]] = {}
        self.groups: dict[str, list[Cost]] = {}
        self.storms: list[tuple[Storm, Storm]] = []
        """Clients that want their address, and clients that want TLS and nothing more."""
        self.idle_kib: dict[str, float] = {}
        self.missing: dict[str, str] = {}

    def ratio(self, way: str, scenario: str, to: str) -> float:
        return _ratio(self.costs[way, scenario], self.costs[to, scenario])


def _ratio(mine: list[Cost], others: list[Cost]) -> float:
    pairs = zip(mine, others, strict=True)
    return statistics.median(one.per_server_second / other.per_server_second for one, other in pairs)


def measure(plan: Plan, progress: Callable[[str], None] = lambda step: None) -> Results:
    """All of it.

    Raises:
        LoadError, StartError: a server has failed.
    """
    plan = plan._replace(connections=min(plan.connections, allow_many_files() - SPARE_FILES))
    results = Results(plan)
    for number in range(plan.rounds):
        steps = [
            *((name, partial(_way, results, name)) for name in WAYS),
            *((name, partial(_group, results, name)) for name in GROUPS),
            *([("storm", partial(_storm, results))] if number < _STORMS else []),
        ]
        for name, step in steps:
            if name not in results.missing:
                progress(f"round {number + 1} of {plan.rounds}: {name}")
                try:
                    step()
                except MissingError as error:
                    results.missing[name] = str(error)
    for name, flags in ((ALONE, None), (DEPLOYED, False), (OVER_TLS, True)):
        with running(WAYS[name] if flags is None else deployed("", _TWO, flags)) as server:
            results.idle_kib[name] = load.idle(server, plan.connections)
    return results


def _way(results: Results, name: str) -> None:
    with running(WAYS[name]) as server:
        for scenario, run in SCENARIOS.items():
            results.costs.setdefault((name, scenario), []).append(run(server, results.plan.seconds))


def _group(results: Results, name: str) -> None:
    server, dialect = GROUPS[name]
    if name == "socket.io":
        server = server._replace(environment={"PYTHONPATH": str(peers_packages())})
    with running(server) as group:
        cost = load.group(group, dialect, results.plan.members, results.plan.seconds)
    results.groups.setdefault(name, []).append(cost)


def _storm(results: Results) -> None:
    pair = []
    for no_more_than_tls in (False, True):
        with running(deployed("", _TWO, tls=True)) as server:
            pair.append(load.storm(server, results.plan.connections, no_more_than_tls))
    results.storms.append((pair[0], pair[1]))


def report(results: Results) -> Outcome:
    """All of it."""
    rounds, seconds, connections, members = results.plan
    header = ("", *(f"{name}: CPU us" for name in ("W=1", "W=16", "handshake")), "p50 ms", "p99 ms")
    rows = [_row(results, name) for name in WAYS if (name, "pace") in results.costs]
    said = paragraph(
        f"{rounds} x {seconds} s for each figure. p50 and p99 of {PER_SECOND} messages a second. The storm is of "
        f"{connections} clients, the group of {members} members."
    )
    remarks = [*_goals(results), *_paces(results), *_storms(results), *_groups(results), *_idles(results)]
    remarks += [f"{name}: not measured: {reason}" for name, reason in results.missing.items()]
    text = "\n\n".join((said, table(header, rows), bullets(remarks)))
    plan = f"{rounds} x {seconds} s, {connections} connections, {members} members"
    return Outcome(text, list(_figures(results)), plan)


def _figures(results: Results) -> Iterator[Figure]:
    for (way, scenario), costs in results.costs.items():
        case = f"{way}, {scenario}"
        if scenario == "pace":
            trips = tuple(cost.p99 * 1000 for cost in costs if isinstance(cost, Pace))
            yield Figure(case=case, name="p99", unit="ms", better="less", values=trips)
        alone = results.costs[ALONE, scenario]
        yield _of_cpu(case, costs, alone)
    for name, costs in results.groups.items():
        yield _of_cpu(f"group, {name}", costs, results.groups["fast"])
    if results.storms:
        ours, bare = (tuple(pair[at].seconds for pair in results.storms) for at in (0, 1))
        yield Figure(case="storm", name="until all are there", unit="s", better="less", values=ours, reference=bare)
    for way, kib in results.idle_kib.items():
        yield Figure(case=f"{way}, idle", name="memory", unit="KiB", better="less", values=(kib,), noise=0.05)


def _of_cpu(case: str, costs: list[Cost], reference: list[Cost]) -> Figure:
    mine, others = (tuple(1e6 / cost.per_server_second for cost in each) for each in (costs, reference))
    return Figure(case=case, name="CPU", unit="us", better="less", values=mine, reference=others)


def _row(results: Results, name: str) -> list[str]:
    costs = [results.costs[name, scenario] for scenario in ("W=1", "W=16", "handshakes")]
    paces = [cost for cost in results.costs[name, "pace"] if isinstance(cost, Pace)]
    return [
        WAYS[name].title,
        *(f"{statistics.median(1e6 / cost.per_server_second for cost in each):.1f}" for each in costs),
        f"{statistics.median(1000 * pace.p50 for pace in paces):.2f}",
        f"{statistics.median(1000 * pace.p99 for pace in paces):.2f}",
    ]


def _goals(results: Results) -> Iterator[str]:
    for way, scenario, to, least in GOALS:
        if (to, scenario) in results.costs:
            ratio = results.ratio(way, scenario, to)
            if to == ALONE:
                yield f"{way}, {scenario}: costs {_most(1 / ratio, 1 / least, 'times the service alone')}"
            else:
                yield f"{way}, {scenario}: {_least(ratio, least, f'times the work of {to} per CPU second')}"


def _least(ratio: float, least: float, of: str) -> str:
    return f"{ratio:.2f} {of}; goal at least {least:.2f}, {at_least(ratio, least)}"


def _most(ratio: float, most: float, of: str) -> str:
    return f"{ratio:.2f} {of}; goal at most {most:.2f}, {at_most(ratio, most)}"


def _paces(results: Results) -> Iterator[str]:
    for way, to in ((DEPLOYED, "nchan"), (OVER_TLS, "nchan-tls")):
        if (to, "pace") in results.costs:
            pairs = zip(results.costs[way, "pace"], results.costs[to, "pace"], strict=True)
            ratio = statistics.median(
                one.p99 / other.p99 for one, other in pairs if isinstance(one, Pace) and isinstance(other, Pace)
            )
            yield f"{way}: p99 {_most(ratio, MOST_OF_NCHANS_P99, f'times that of {to}')}"


def _storms(results: Results) -> Iterator[str]:
    lost = sum(ours.lost for ours, _ in results.storms)
    seconds, alone = (statistics.median(pair[at].seconds for pair in results.storms) for at in (0, 1))
    ratio = statistics.median(ours.seconds / bare.seconds for ours, bare in results.storms)
    yield (
        f"storm: all have their address after {seconds:.1f} s, {lost} lost; the TLS handshakes alone take nginx "
        f"{alone:.1f} s: {_most(ratio, MOST_OF_A_STORM, 'times that')}"
    )


def _groups(results: Results) -> Iterator[str]:
    for name, least in LEAST_IN_A_GROUP.items():
        if name in results.groups:
            ratio = _ratio(results.groups["fast"], results.groups[name])
            each = statistics.median(1e6 / cost.per_server_second for cost in results.groups["fast"])
            of = f"times the deliveries of {name} per CPU second"
            yield f"group, without nginx: {each:.1f} us for each member, {_least(ratio, least, of)}"


def _idles(results: Results) -> Iterator[str]:
    kib: Mapping[str, float] = results.idle_kib
    parts = ", ".join(f"{kib[name]:.1f} KiB {name}" for name in kib)
    yield f"an idle connection: {parts}"
