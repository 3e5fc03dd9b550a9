"""What a message to a client of another host costs, beside one to another worker and to the same worker, and what it
costs others.

Two processes of the service that meet in one directory are workers of one host; with a directory each, and an engine
between them, they are two hosts. The others are two nodes with the same engine between them. The CPU time is that of
all processes, the engine as well. Rounds are interleaved.
"""

import contextlib
import datetime
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.figures import Figure, Outcome, at_least, at_most
from bench.load import Dialect
from bench.page import bullets, paragraph, table
from bench.programs import BUILD, HERE, MissingError, certificate, node_modules, peers_packages, program
from bench.servers import SERVERS, Running, Server, free_port, python, running

WINDOWS = (1, 16)
SAME, MESH, HOST = "the same worker", "another worker of the host", "another host"
OVER_TLS = "another host, the engine over TLS"
WAYS = (SAME, MESH, HOST, OVER_TLS)
# The most that a message to another host may cost, in times of one to another worker of the same host.
GOALS = {1: 2.3, 16: 1.5}


def _on_node(socket: Path) -> Server:
    node_modules()
    command = [program("node", "nodejs npm"), str(HERE / "peers" / "node_rooms.js")]
    environment = {"NODE_PATH": str(BUILD / "node" / "node_modules")}
    return Server("", lambda port, _: [*command, str(port), str(socket)], environment)


def _under_uvicorn(module: str) -> Callable[[Path], Server]:
    command = python(f"-m uvicorn bench.peers.{module}:app --port {{port}} --log-level warning")
    return lambda socket: Server("", command, {"PYTHONPATH": str(peers_packages()), "ENGINE": f"unix://{socket}"})


class Peer(NamedTuple):
    """What others build for it. `server` is one node, for the socket of the engine.

    `least` is what a message has to cost there at least, by window, in times of ours to another host.
    """

    server: Callable[[Path], Server]
    least: Mapping[int, float]
    dialect: Dialect | None = None


_SOCKET_IO = Dialect(
    path="/socket.io/?EIO=4&transport=websocket",
    says=("40",),
    before='42["route","',
    between='","',
    behind='"]',
)
PEERS = {
    "socket.io, its Redis adapter": Peer(_on_node, {1: 4.0, 16: 12.0}, _SOCKET_IO),
    "python-socketio, its Redis manager": Peer(_under_uvicorn("rooms_on_nodes"), {1: 4.0, 16: 12.0}, _SOCKET_IO),
    "Django Channels, channels_redis with pub/sub": Peer(_under_uvicorn("consumers"), {1: 15.0, 16: 15.0}),
}


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


def _engine(stack: contextlib.ExitStack, home: Path, listens: list[str]) -> int:
    """Start one until the stack is left. Returns: its process."""
    engine = subprocess.Popen([engine_program(), *listens, "--save", "", "--dir", str(home)], stdout=subprocess.DEVNULL)
    stack.callback(engine.wait)
    stack.callback(engine.kill)
    return engine.pid


def _home(stack: contextlib.ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wsbundle-bench-")))


@contextlib.contextmanager
def _nodes(peer: Peer) -> Iterator[Running]:
    """Two of them, and the engine between them.

    Raises:
        MissingError: a program that they need is not there.
    """
    with contextlib.ExitStack() as stack:
        home = _home(stack)
        listens, _ = _at_a_socket(home)
        node, engine = peer.server(home / "engine"), _engine(stack, home, listens)
        here, there = (stack.enter_context(running(node)) for _ in range(2))
        yield here._replace(pids=[*here.pids, *there.pids, engine], recipients_port=there.port)


@contextlib.contextmanager
def _way(way: str) -> Iterator[Running]:
    """Two processes, and what is between them.

    Raises:
        MissingError: there is no engine on this machine.
    """
    fast = SERVERS["fast"]
    with contextlib.ExitStack() as stack:
        home = _home(stack)
        if way == SAME:
            yield stack.enter_context(running(fast))
            return
        pids: list[int] = []
        settings: list[Mapping[str, str]] = [{"WEBSOCKET_BUS": str(home / "bus")}] * 2
        if way in (HOST, OVER_TLS):
            listens, said = _over_tls(home) if way == OVER_TLS else _at_a_socket(home)
            pids = [_engine(stack, home, listens)]
            settings = [
                {"WEBSOCKET_BUS": str(home / f"bus-{host}"), "WEBSOCKET_ENGINE_HOST": host, **said}
                for host in ("a", "b")
            ]
        here, there = (
            stack.enter_context(running(Server(way, fast.command, {**fast.environment, **each}))) for each in settings
        )
        yield here._replace(pids=[*here.pids, *there.pids, *pids], recipients_port=there.port)


class Measured(NamedTuple):
    """CPU us of a message, by way or peer and window, in each round; and why peers were not measured."""

    costs: dict[tuple[str, int], list[float]]
    missing: dict[str, str]

    @property
    def peers(self) -> list[str]:
        return [name for name in PEERS if name not in self.missing]


def measure(rounds: int, seconds: float) -> Measured:
    """All of it.

    Raises:
        LoadError, StartError: something has failed.
        MissingError: there is no engine on this machine.
    """
    measured = Measured({}, {})
    for _ in range(rounds):
        for way in WAYS:
            with _way(way) as server:
                _run(measured, way, server, seconds)
        for name in measured.peers:
            try:
                with _nodes(PEERS[name]) as server:
                    _run(measured, name, server, seconds, PEERS[name].dialect)
            except MissingError as error:
                measured.missing[name] = str(error)
    return measured


def _run(measured: Measured, name: str, server: Running, seconds: float, dialect: Dialect | None = None) -> None:
    for window in WINDOWS:
        try:
            cost = load.route(server, window, seconds, dialect=dialect)
        except load.LoadError as error:
            raise load.LoadError(f"{name}: {error}") from None
        measured.costs.setdefault((name, window), []).append(1e6 / cost.per_server_second)


def report(rounds: int, seconds: float) -> Outcome:
    """All of it."""
    measured = measure(rounds, seconds)
    figures = {case: _figure(measured.costs, *case) for case in measured.costs}
    header = ("to a client of", *(f"W={window}: {what}" for window in WINDOWS for what in ("CPU us", "of the mesh")))
    rows = [[name, *_cells(figures, name)] for name in (*WAYS, *measured.peers)]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    circumstances = paragraph(
        f"{today}, {engine_version()}, where nothing else is said over a Unix socket; {rounds} x {seconds} s for each "
        "figure."
    )
    remarks = [*_goals(figures), *_goals_of_peers(measured)]
    remarks += [f"{name}: not measured: {reason}" for name, reason in measured.missing.items()]
    text = "\n\n".join((circumstances, table(header, rows), bullets(remarks)))
    return Outcome(text, list(figures.values()), f"{rounds} x {seconds} s")


def _figure(costs: Mapping[tuple[str, int], list[float]], way: str, window: int, to: str = MESH) -> Figure:
    return Figure(
        case=f"{way}, W={window}",
        name="CPU of a message",
        unit="us",
        better="less",
        values=tuple(costs[way, window]),
        reference=tuple(costs[to, window]),
    )


def _cells(figures: Mapping[tuple[str, int], Figure], way: str) -> Iterator[str]:
    for window in WINDOWS:
        yield f"{figures[way, window].median:.1f}"
        yield f"{figures[way, window].ratio:.2f}"


def _goals(figures: Mapping[tuple[str, int], Figure]) -> Iterator[str]:
    for window, most in GOALS.items():
        ratio = figures[HOST, window].ratio
        yield f"another host, W={window}: {ratio:.2f} times another worker; goal {most:.1f}, {at_most(ratio, most)}"


def _goals_of_peers(measured: Measured) -> Iterator[str]:
    for name in measured.peers:
        for window, least in PEERS[name].least.items():
            ratio = _figure(measured.costs, name, window, HOST).ratio
            verdict = at_least(ratio, least)
            yield f"{name}, W={window}: {ratio:.1f} times another host; goal at least {least:.0f}, {verdict}"
