"""How long an honest client waits while another address does its worst.

The honest client sends to itself, first alone, then beside a hundred connections that write as fast as the server
reads. All limits are at their defaults. The flood is a process of its own: `python -m bench.fairness PORT FLOOD`.
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
from collections.abc import Iterator
from typing import NamedTuple, cast

from bench.page import bullets, paragraph, table
from bench.programs import ROOT
from bench.servers import SERVERS, load_cpus, on_cpus, running

DEADLINE_S = 10.0
CONNECTIONS = 100
_BURST_BYTES = 64 * 1024
GOAL_MS = 50.0
QUIET = "nothing"
_HONEST, _FLOODING = "192.0.2.1", "192.0.2.2"
_FORGED = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ." + "A" * 86


class Waits(NamedTuple):
    """Round trips of the honest clients, in milliseconds."""

    p50: float
    p99: float
    longest: float


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
    """A WebSocket of nc.v1 that comes, as nginx says, from an address."""
    connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Forwarded-For: "
        + address.encode()
        + b"\r\nSec-WebSocket-Protocol: nc.v1\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = connection.recv(4096)
    if b" 101 " not in head:
        raise ConnectionError(head.decode(errors="replace").partition("\r\n")[0])
    return connection


@contextlib.contextmanager
def flooded(port: int, flood: str) -> Iterator[None]:
    """A process of its own floods the server, until the block ends."""
    command = on_cpus(load_cpus(1), [sys.executable, "-m", "bench.fairness", str(port), flood])
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def waits(port: int, seconds: float) -> Waits:
    """One client sends to itself, again and again."""
    with connect(port, _HONEST) as honest:
        honest.sendall(_say(type="hello", id=0, uuid="honest"))
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
    return Waits(cuts[49], cuts[98], max(trips))


def measure(seconds: float) -> dict[str, Waits]:
    """The waits beside each flood, and first beside none."""
    results: dict[str, Waits] = {}
    for flood in (QUIET, *FLOODS):
        # A fresh server each: none has to finish what the one before was asked for.
        with running(SERVERS["fast"]._replace(environment={})) as server:
            if flood == QUIET:
                results[flood] = waits(server.port, seconds)
            else:
                with flooded(server.port, flood):
                    results[flood] = waits(server.port, seconds)
    return results


def report(results: dict[str, Waits], seconds: float) -> str:
    """All of it, in Markdown."""
    rows = [[name, *(f"{wait:.1f}" for wait in results[name])] for name in results]
    worst = max(results, key=lambda name: results[name].p99)
    verdict = "reached" if results[worst].p99 < GOAL_MS else "above its goal"
    return "\n\n".join(
        (
            paragraph(
                f"{CONNECTIONS} connections of one address, one worker, limits at their defaults; {seconds} s each."
            ),
            table(("beside", "p50 ms", "p99 ms", "longest ms"), rows),
            bullets([f"{worst}: p99 {results[worst].p99:.1f} ms; goal below {GOAL_MS:.0f}, {verdict}"]),
        )
    )


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
    for _ in range(CONNECTIONS):
        connection = connect(port, _FLOODING)
        connection.sendall(first)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        left[connection] = burst
    print("ready", flush=True)
    while left:
        for key, events in selector.select():
            connection = cast(socket.socket, key.fileobj)
            try:
                if events & selectors.EVENT_READ and not connection.recv(1 << 20):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    sent = connection.send(left[connection])
                    left[connection] = left[connection][sent:] or burst
            except OSError:
                selector.unregister(connection)
                del left[connection]


if __name__ == "__main__":
    _flood(int(sys.argv[1]), *FLOODS[sys.argv[2]])
