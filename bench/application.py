"""What a request or a message of an application costs under our runner, and under uvicorn as its docs start it.

Both have two workers on one CPU, and each round measures both, so that whatever else the machine does falls on both.
The latency is that of clients who ask at a steady pace.
"""

import asyncio
import time
from typing import NamedTuple, cast

import uvloop

from bench.figures import Figure, Outcome
from bench.page import bullets, paragraph, table
from bench.programs import HERE
from bench.servers import Running, Server, cpu_seconds, family, python, running

CLIENTS = 8
PACE_S = 0.04
GOAL_WORK, GOAL_P99 = 1.0, 1.05
RUNNER, UVICORN = "runner", "uvicorn"
SERVERS = {
    RUNNER: Server(
        "`python -m service`",
        python("-m service"),
        {"WORKERS": "2", "WEBSOCKET_APP": "hello:application", "WEBSOCKET_APP_DIRECTORY": str(HERE / "peers")},
    ),
    UVICORN: Server(
        "`uvicorn --workers 2`", python("-m uvicorn bench.peers.hello:application --port {port} --workers 2")
    ),
}
# How a request comes: on a connection that is kept, or each on its own, as nginx has it; or a message of a WebSocket,
# in a frame whose mask changes nothing.
MESSAGE = "message"
REQUESTS = {
    "kept": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "new": b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    MESSAGE: b"\x81\x85\0\0\0\0hello",
}
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Measured(NamedTuple):
    """Of one round."""

    per_cpu_second: float
    p99_s: float


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, ends: bytes = b"hello") -> "asyncio.Future[None]":
        """`ends` is what the answer ends with."""
        self.ends = ends
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered

    def data_received(self, data: bytes) -> None:
        if data.endswith(self.ends):
            self.answered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or ConnectionError("a connection was ended without an answer"))


async def _ask(kind: str, port: int, end: float, pace_s: float, took: list[float]) -> None:
    loop, client = asyncio.get_running_loop(), None
    while (began := time.perf_counter()) < end:
        if client is None or kind == "new":
            _, client = await loop.create_connection(_Client, "127.0.0.1", port)
            if kind == MESSAGE:
                await client.ask(_UPGRADE, b"\r\n\r\n")
                began = time.perf_counter()
        await client.ask(REQUESTS[kind])
        took.append(time.perf_counter() - began)
        if kind == "new":
            client.transport.close()
        await asyncio.sleep(max(0.0, began + pace_s - time.perf_counter()))


async def _load(kind: str, port: int, seconds: float, pace_s: float = 0.0) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_ask(kind, port, end, pace_s, took) for _ in range(CLIENTS)))
    return took


def _round(kind: str, server: Running, seconds: float) -> Measured:
    before = cpu_seconds(server.pids)
    asked = len(uvloop.run(_load(kind, server.port, seconds)))
    work = asked / (cpu_seconds(server.pids) - before)
    steady = sorted(uvloop.run(_load(kind, server.port, seconds, PACE_S)))
    return Measured(work, steady[len(steady) * 99 // 100])


def measure(rounds: int, seconds: float) -> dict[tuple[str, str], list[Measured]]:
    """What was measured, by kind of request and server."""
    results: dict[tuple[str, str], list[Measured]] = {}
    with running(SERVERS[RUNNER]) as ours, running(SERVERS[UVICORN]) as theirs:
        servers = {}
        for name, server in ((RUNNER, ours), (UVICORN, theirs)):
            uvloop.run(_load("new", server.port, 2 * seconds))  # until all workers are there
            servers[name] = server._replace(pids=family(server.pids[0]))
        for _ in range(rounds):
            for kind in REQUESTS:
                for name, server in servers.items():
                    results.setdefault((kind, name), []).append(_round(kind, server, seconds))
    return results


def report(results: dict[tuple[str, str], list[Measured]]) -> Outcome:
    """What was measured, and whether the goals are reached."""
    rounds = len(next(iter(results.values())))
    figures, rows, verdicts = [], [], []
    for kind in REQUESTS:
        for name, server in SERVERS.items():
            work, p99 = _figures(kind, name, results)
            figures += [work, p99]
            rows.append([f"{server.title}, {kind}", f"{work.median:.0f}", f"{p99.median:.2f}"])
            if name == RUNNER:
                is_reached = work.ratio >= GOAL_WORK and p99.ratio <= GOAL_P99
                verdicts.append(
                    f"{kind}: {work.ratio:.2f} times the {_done(kind)} per CPU second, p99 {p99.ratio:.2f} times; "
                    f"goals at least {GOAL_WORK} and at most {GOAL_P99}, {'reached' if is_reached else 'missed'}"
                )
    text = "\n\n".join(
        (
            paragraph(
                f"Two workers on one CPU, an application that says hello; median of {rounds} rounds. `kept`: "
                f"{CLIENTS} connections that are kept; `new`: a connection for each request, as nginx has it; "
                f"`message`: {CLIENTS} WebSockets, and what comes back on them."
            ),
            table(["server", "requests or messages per CPU s", "p99 ms"], rows),
            bullets(verdicts),
        )
    )
    return Outcome(text, figures, f"{rounds} rounds")


def _figures(kind: str, name: str, results: dict[tuple[str, str], list[Measured]]) -> tuple[Figure, Figure]:
    """Work and p99 of a server, beside those of uvicorn."""
    mine, other = results[kind, name], results[kind, UVICORN]
    case = f"{name}, {kind}"
    work = Figure(
        case=case,
        name=f"{_done(kind)} per CPU second",
        unit=f"{_done(kind)}/s",
        better="more",
        values=tuple(each.per_cpu_second for each in mine),
        reference=tuple(each.per_cpu_second for each in other),
    )
    p99 = Figure(
        case=case,
        name="p99",
        unit="ms",
        better="less",
        values=tuple(each.p99_s * 1000 for each in mine),
        reference=tuple(each.p99_s * 1000 for each in other),
    )
    return work, p99


def _done(kind: str) -> str:
    return "messages" if kind == MESSAGE else "requests"
