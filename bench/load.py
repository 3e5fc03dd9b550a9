"""Load on a running server, from the C program beside this file, which also checks every message that arrives.

with running(SERVERS["fast"]) as server:
    print(route(server, window=16, seconds=2.0).per_server_second)
"""

import subprocess
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from bench.programs import compiled
from bench.servers import Running, load_cpus, on_cpus

DEADLINE_S = 300.0
PAIRS = 50
HANDSHAKES_AT_ONCE = 20

Result = TypeVar("Result")


class LoadError(Exception):
    """A message was lost, changed or misrouted, or the server refused to go on; the message says which."""


class Cost(msgspec.Struct, frozen=True):
    """What was done in some seconds, and the CPU time that it took the load and each process of the server."""

    done: int
    seconds: float
    load_seconds: float
    process_seconds: tuple[float, ...]

    @property
    def server_seconds(self) -> float:
        return sum(self.process_seconds)

    @property
    def per_second(self) -> float:
        return self.done / self.seconds

    @property
    def per_server_second(self) -> float:
        """Steadier than `per_second`: what else the machine does, and a busy load, count for less."""
        return self.done / self.server_seconds

    @property
    def per_busiest_second(self) -> float:
        """What fits into a second when each process of the server has a CPU of its own: the busiest is full first."""
        return self.done / max(self.process_seconds)


class Pace(Cost, frozen=True):
    """The same at a pace; from when a message was due until it arrived, in seconds."""

    p50: float
    p99: float


class Storm(Cost, frozen=True):
    """The same for clients that come all at once: so many were `lost`, which is refused, closed, or not served."""

    lost: int


class Dialect(NamedTuple):
    """How the members of a group, or pairs, speak to a server.

    Each of `says` is said when the server has said something, and the last is to be answered. A sender says a message
    between `before` and `behind`; in a pair with the address of the recipient before it, and `between` the two.
    """

    path: str | None = None
    subprotocol: str | None = None
    says: tuple[str, ...] = ()
    before: str = ""
    between: str = ""
    behind: str = ""

    @property
    def options(self) -> list[str]:
        words = [word for text in self.says for word in ("--say", text)]
        words += ["--before", self.before, "--between", self.between, "--behind", self.behind]
        words += [] if self.path is None else ["--path", self.path]
        return words + ([] if self.subprotocol is None else ["--subprotocol", self.subprotocol])


class _Growth(msgspec.Struct):
    connections: int
    resident_kib: int


class _Fault(msgspec.Struct):
    fault: str


def route(server: Running, window: int, seconds: float, pairs: int = PAIRS, dialect: Dialect | None = None) -> Cost:
    """Messages of 64 bytes, of which each pair of clients has `window` outstanding. All recipients are at
    `server.recipients_port`, if it is given. Protocol v0, if no other `dialect` is.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    return _result(Cost, "route", server, (pairs, window, seconds), dialect.options if dialect else [])


def pace(server: Running, per_second: int, seconds: float, pairs: int = PAIRS) -> Pace:
    """So many of these messages a second, each sent when it is due.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    return _result(Pace, "pace", server, (pairs, per_second, seconds))


def handshakes(server: Running, seconds: float, at_once: int = HANDSHAKES_AT_ONCE) -> Cost:
    """Clients that upgrade, are welcomed, register and close, again and again.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    return _result(Cost, "handshakes", server, (at_once, seconds))


def storm(server: Running, connections: int, no_more_than_tls: bool = False) -> Storm:
    """Clients that come all at once, each until it is registered, or with `no_more_than_tls` until it has TLS.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    return _result(Storm, "storm", server, (connections,), ["--no-more-than-tls"] if no_more_than_tls else [])


def group(server: Running, dialect: Dialect, members: int, seconds: float) -> Cost:
    """Messages to a group of so many, one after the other; `done` counts each for each member.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    return _result(Cost, "group", server, (members, seconds), dialect.options)


def idle(server: Running, connections: int) -> float:
    """The memory of one more connection that is registered and does nothing, in KiB of resident memory.

    Raises:
        LoadError
        MissingError: there is no compiler.
    """
    growth = _result(_Growth, "idle", server, (connections,))
    return growth.resident_kib / growth.connections


def program() -> str:
    """The path of the C program.

    Raises:
        MissingError: there is no compiler.
    """
    return compiled("load.c", "ssl", "crypto")


def _result(
    kind: type[Result], scenario: str, server: Running, numbers: Iterable[float], options: Iterable[str] = ()
) -> Result:
    options = [*options, *(["--tls"] if server.tls else []), *(["--subscribe-by-path"] * server.subscribes_by_path)]
    if server.recipients_port is not None:
        options += ["--recipients-at", str(server.recipients_port)]
    words = [scenario, *map(str, (server.port, *numbers, *server.pids))]
    command = on_cpus(load_cpus(server.cpus), [program(), *options, *words])
    try:
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise LoadError(f"{scenario}: it has not ended after {DEADLINE_S:.0f} s") from None
    if done.returncode == 1:
        raise LoadError(f"{scenario}: {msgspec.json.decode(done.stdout, type=_Fault).fault}")
    done.check_returncode()
    return msgspec.json.decode(done.stdout, type=kind)
