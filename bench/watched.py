"""What it costs to be watched: the CPU time of an answer of /stats, for which the page and `top` ask once a second.

Messages pay nothing for it: they are counted by what the limits keep anyway, so that there is no service without to
compare with.
"""

import contextlib
import http.client

from bench.fairness import connect
from bench.figures import Figure, Outcome, at_most
from bench.page import bullets, paragraph, table
from bench.servers import SERVERS, allow_many_files, cpu_seconds, running

ASKED = 200
# Of a core, for one who watches.
GOAL = 0.02
_ADDRESSES = 250


def measure(connections: int, asked: int) -> float:
    """The CPU time of an answer, in milliseconds, while so many clients are connected."""
    allow_many_files()
    with running(SERVERS["fast"]) as server, contextlib.ExitStack() as stack:
        for number in range(connections):
            stack.enter_context(connect(server.port, f"127.0.1.{1 + number % _ADDRESSES}"))
        watcher = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)))
        _ask(watcher)  # what is loaded once
        before = cpu_seconds(server.pids)
        for _ in range(asked):
            _ask(watcher)
        return (cpu_seconds(server.pids) - before) / asked * 1000


def _ask(watcher: http.client.HTTPConnection) -> None:
    watcher.request("GET", "/stats")
    answer = watcher.getresponse()
    assert answer.status == 200
    answer.read()


def report(costs: dict[int, float], asked: int) -> Outcome:
    """What was measured, by number of connections."""
    rows = [[str(number), f"{cost:.2f}", f"{cost / 1000:.2%}"] for number, cost in costs.items()]
    highest = max(costs.values()) / 1000
    text = "\n\n".join(
        (
            paragraph(f"One worker; the mean of {asked} answers."),
            table(["connections", "CPU ms for an answer", "of a core, asked once a second"], rows),
            bullets([f"{highest:.2%} of a core at most; goal below {GOAL:.0%}, {at_most(highest, GOAL)}"]),
        )
    )
    figures = [
        Figure(case=f"{number} connections", name="CPU for an answer", unit="ms", better="less", values=(cost,))
        for number, cost in costs.items()
    ]
    return Outcome(text, figures, f"{asked} answers")
