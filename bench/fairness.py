"""How long an honest client waits while another address does its worst.

The honest client sends to itself, first alone, then beside a hundred connections that write as fast as the server
reads, and connect again when they are closed: to the service itself, and through nginx as users have it. All limits are
at their defaults. The flood is a process of its own: `python -m bench.fairness PORT FLOOD`.
"""

import contextlib
import json
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from bench.figures import Figure, Outcome
from bench.page import bullets, paragraph, table
from bench.programs import ROOT
from bench.servers import SERVERS, Server, StartError, load_cpus, on_cpus, python, running

DEADLINE_S = 10.0
CONNECTIONS = 100
_BURST_BYTES = 64 * 1024
GOAL_MS = 50.0
QUIET = "nothing"
_HONEST, _FLOODING = "127.0.0.2", "127.0.0.3"
_AGAIN_S = 0.01
# What a single run says of its tail.
_TWICE_AS_LONG = 1.0
_FORGED = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ." + "A" * 86


QUICK_WAYS = ("nginx",)
_TOKENS = "nginx, `auth: token`"


def _deployed(settings: str) -> Server:
    return Server("", python(f"-m bench.deployed {{port}} {{directory}} {settings}"))


WAYS = {
    "no nginx": SERVERS["fast"]._replace(environment={}),
    "nginx": _deployed(""),
    "nginx, two workers": _deployed("workers=2"),
    "nginx, gunicorn": _deployed("server=gunicorn"),
    _TOKENS: _deployed("auth=token"),
}


class Waits(NamedTuple):
    """Round trips of the honest clients, in milliseconds."""

    p50: float
    p99: float


def _frame(opcode: int, payload: bytes) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


def _say(**request: object) -> bytes:
    return _frame(1, json.dumps(request).encode())


def _burst(frame: bytes) -> bytes:
    return frame * (_BURST_BYTES // len(frame))


# What each connection sends first, and then without end.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "messages": (b"", _burst(_frame(1, b'{"recipient_uuid":"nobody","message":0}'))),
    "messages to a group of all hundred": (
        _say(type="hello", id=1) + _say(type="join", id=2, group="g"),
        _burst(_frame(1, b'{"group":"g","message":0}')),
    ),
    "pings": (b"", _burst(_frame(9, b""))),
    "pieces of a message": (b"\x01\x80\0\0\0\0", _burst(b"\x00\x80\0\0\0\0")),
    "forged tokens": (b"", _burst(_say(type="hello", id=1, token=_FORGED))),
    "guesses of a `resume`": (b"", _burst(_say(type="hello", id=1, uuid="wanted", resume="x"))),
}


def connect(port: int, address: str) -> socket.socket:
    """A WebSocket of nc.v1 from an address of this machine, 127.x.y.z.

    Raises:
        ConnectionError: it is refused.
    """
    connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S, (address, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: nc.v1\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = connection.recv(4096)
    if b" 101 " not in head:
        connection.close()
        raise ConnectionError(head.decode(errors="replace").partition("\r\n")[0])
    return connection


@contextlib.contextmanager
def flooded(port: int, flood: str) -> Iterator[None]:
    """A process of its own floods the server, until the block ends.

    Raises:
        StartError: it ended before, so that nothing was measured beside it.
    """
    command = on_cpus(load_cpus(1), [sys.executable, "-m", "bench.fairness", str(port), flood])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() == b"":
                raise StartError(f"the flood of {flood} has ended by itself")
            yield
            if process.poll() is not None:
                raise StartError(f"the flood of {flood} has ended by itself")
        finally:
            process.kill()


def waits(port: int, seconds: float, token: str | None = None) -> Waits:
    """One client sends to itself, again and again."""
    with connect(port, _HONEST) as honest:
        shown = {} if token is None else {"token": token}
        honest.sendall(_say(type="hello", id=0, uuid="honest", **shown))
        _read_until(honest, b'"id":0')
        trips: list[float] = []
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            number += 1
            sent = time.monotonic()
            honest.sendall(_say(id=number, recipient_uuid="honest", message=number))
            _read_until(honest, b'"ok","id":%d,' % number)
            trips.append(1000 * (time.monotonic() - sent))
            time.sleep(0.005)
    cuts = statistics.quantiles(trips, n=100)
    return Waits(cuts[49], cuts[98])


def measure(seconds: float, ways: Iterable[str] = WAYS) -> dict[tuple[str, str], Waits]:
    """The waits by way and flood, first beside none.

    Raises:
        StartError: a server does not start, as where there is no nginx.
    """
    return {(way, flood): _beside(way, flood, seconds) for way in ways for flood in _floods(way)}


def _floods(way: str) -> list[str]:
    """Tokens change nothing but what is done about them."""
    return [QUIET, "forged tokens"] if way == _TOKENS else [QUIET, *FLOODS]


def _beside(way: str, flood: str, seconds: float) -> Waits:
    # A fresh server each: none has to finish what the one before was asked for.
    with running(WAYS[way]) as server, contextlib.ExitStack() as stack:
        token = server.home.joinpath("token").read_text() if way == _TOKENS else None
        if flood != QUIET:
            stack.enter_context(flooded(server.port, flood))
        return waits(server.port, seconds, token)


def report(results: dict[tuple[str, str], Waits], seconds: float) -> Outcome:
    """All of it."""
    ways, floods = (list(dict.fromkeys(case[part] for case in results)) for part in (0, 1))
    rows = [[flood, *(_cell(results.get((way, flood))) for way in ways)] for flood in floods]
    worst = max(results, key=lambda case: results[case].p99)
    verdict = "reached" if results[worst].p99 < GOAL_MS else "above its goal"
    said = f"{worst[1]}, {worst[0]}: p99 {results[worst].p99:.1f} ms; goal below {GOAL_MS:.0f}, {verdict}"
    text = "\n\n".join(
        (
            paragraph(
                f"The median and p99 in milliseconds. {CONNECTIONS} connections of one address, limits at their "
                f"defaults, {seconds} s each; one worker where nothing else is said, and everything but the flood on "
                "one CPU."
            ),
            table(("beside", *ways), rows),
            bullets([said]),
        )
    )
    return Outcome(text, list(_figures(results)), f"{seconds} s")


def _figures(results: dict[tuple[str, str], Waits]) -> Iterator[Figure]:
    for (way, flood), found in results.items():
        for name, wait in found._asdict().items():
            yield Figure(
                case=f"{flood}, {way}", name=name, unit="ms", better="less", values=(wait,), noise=_TWICE_AS_LONG
            )


def _cell(waits: Waits | None) -> str:
    return "" if waits is None else f"{waits.p50:.1f} / {waits.p99:.1f}"


def _read_until(connection: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("the honest client was closed")
        received += more


def _flood(port: int, first: bytes, burst: bytes) -> None:
    """Write on all connections as fast as the server takes it, and read what it answers."""
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, bytes] = {}
    has_begun = False
    while True:
        while len(left) < CONNECTIONS and (fresh := _connected(port, first)):
            selector.register(fresh, selectors.EVENT_READ | selectors.EVENT_WRITE)
            left[fresh] = burst
        if not has_begun:
            print("ready", flush=True)
            has_begun = True
        for key, events in selector.select(_AGAIN_S):
            connection = cast(socket.socket, key.fileobj)
            try:
                if events & selectors.EVENT_READ and not connection.recv(1 << 20):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    sent = connection.send(left[connection])
                    left[connection] = left[connection][sent:] or burst
            except OSError:
                selector.unregister(connection)
                connection.close()
                del left[connection]


def _connected(port: int, first: bytes) -> socket.socket | None:
    """One that has said its first words; None where it is refused, as nginx does with one that comes too often."""
    try:
        connection = connect(port, _FLOODING)
        connection.sendall(first)
    except OSError:
        return None
    connection.setblocking(False)
    return connection


if __name__ == "__main__":
    _flood(int(sys.argv[1]), *FLOODS[sys.argv[2]])
