"""What a message to a client of another host costs, beside one to another worker and to the same worker.

Two processes of the service that meet in one directory are workers of one host; with a directory each, and an engine
between them, they are two hosts. The CPU time is that of all processes, the engine as well. Rounds are interleaved.
"""

import contextlib
import datetime
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import load
from bench.figures import Figure, Outcome
from bench.page import bullets, paragraph, table
from bench.programs import MissingError, certificate, program
from bench.servers import SERVERS, Running, Server, free_port, running

WINDOWS = (1, 16)
SAME, MESH, HOST = "the same worker", "another worker of the host", "another host"
OVER_TLS = "another host, the engine over TLS"
WAYS = (SAME, MESH, HOST, OVER_TLS)
# The most that a message to another host may cost, in times of one to another worker of the same host.
GOALS = {1: 2.3, 16: 1.5}


def engine_program() -> str:
    """The path of Valkey or Redis, whichever is here.

    Raises:
        MissingError
    """
    try:
        return program("valkey-server", "valkey-server")
    except MissingError:
        return program("redis-server", "redis-server")


def engine_version() -> str:
    """Its name and version: `valkey-server 8.1.1`."""
    said = subprocess.run([engine_program(), "--version"], capture_output=True, text=True, check=True).stdout
    return f"{Path(engine_program()).name} {said.partition(' v=')[2].partition(' ')[0]}"


def _at_a_socket(home: Path) -> tuple[list[str], dict[str, str]]:
    """How the engine listens, and what the service is told of it."""
    path = str(home / "engine")
    return ["--port", "0", "--unixsocket", path], {"WEBSOCKET_ENGINE_URL": f"unix://{path}"}


def _over_tls(home: Path) -> tuple[list[str], dict[str, str]]:
    """The same over TCP, with a certificate that is made for it."""
    port, (file, key) = str(free_port()), map(str, certificate(home))
    listens = ["--port", "0", "--tls-port", port, "--tls-cert-file", file, "--tls-key-file", key]
    listens += ["--tls-auth-clients", "no", "--tls-ca-cert-file", file]
    return listens, {"WEBSOCKET_ENGINE_URL": f"valkeys://127.0.0.1:{port}", "WEBSOCKET_ENGINE_CA": file}


@contextlib.contextmanager
def _way(way: str) -> Iterator[Running]:
    """Two processes, and what is between them.

    Raises:
        MissingError: there is no engine on this machine.
    """
    fast = SERVERS["fast"]
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsbundle-bench-")))
        if way == SAME:
            yield stack.enter_context(running(fast))
            return
        pids: list[int] = []
        settings: list[Mapping[str, str]] = [{"WEBSOCKET_BUS": str(home / "bus")}] * 2
        if way in (HOST, OVER_TLS):
            listens, said = _over_tls(home) if way == OVER_TLS else _at_a_socket(home)
            engine = subprocess.Popen(
                [engine_program(), *listens, "--save", "", "--dir", str(home)], stdout=subprocess.DEVNULL
            )
            stack.callback(engine.wait)
            stack.callback(engine.kill)
            pids = [engine.pid]
            settings = [
                {"WEBSOCKET_BUS": str(home / f"bus-{host}"), "WEBSOCKET_ENGINE_HOST": host, **said}
                for host in ("a", "b")
            ]
        here, there = (
            stack.enter_context(running(Server(way, fast.command, {**fast.environment, **each}))) for each in settings
        )
        yield here._replace(pids=[*here.pids, *there.pids, *pids], recipients_port=there.port)


def report(rounds: int, seconds: float) -> Outcome:
    """All of it."""
    costs: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for way in WAYS:
            with _way(way) as server:
                for window in WINDOWS:
                    cost = load.route(server, window, seconds)
                    costs.setdefault((way, window), []).append(1e6 / cost.per_server_second)
    figures = {case: _figure(costs, *case) for case in costs}
    header = ("to a client of", *(f"W={window}: {what}" for window in WINDOWS for what in ("CPU us", "of the mesh")))
    rows = [[way, *_cells(figures, way)] for way in WAYS]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    circumstances = paragraph(
        f"{today}, {engine_version()}, where nothing else is said over a Unix socket; {rounds} x {seconds} s for each "
        "figure."
    )
    text = "\n\n".join((circumstances, table(header, rows), bullets(list(_goals(figures)))))
    return Outcome(text, list(figures.values()), f"{rounds} x {seconds} s")


def _figure(costs: Mapping[tuple[str, int], list[float]], way: str, window: int) -> Figure:
    return Figure(
        case=f"{way}, W={window}",
        name="CPU of a message",
        unit="us",
        better="less",
        values=tuple(costs[way, window]),
        reference=tuple(costs[MESH, window]),
    )


def _cells(figures: Mapping[tuple[str, int], Figure], way: str) -> Iterator[str]:
    for window in WINDOWS:
        yield f"{figures[way, window].median:.1f}"
        yield f"{figures[way, window].ratio:.2f}"


def _goals(figures: Mapping[tuple[str, int], Figure]) -> Iterator[str]:
    for window, most in GOALS.items():
        ratio = figures[HOST, window].ratio
        verdict = "above its goal" if ratio > most else "reached"
        yield f"another host, W={window}: {ratio:.2f} times another worker; goal {most:.1f}, {verdict}"
