"""Ports for the servers that tests start."""

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_240


def share(ephemeral: tuple[int, int], environ: Mapping[str, str]) -> range:
    """The ports that this process tries: outside of those that the kernel gives away, and none of another process.

    What `bind` to port 0 gives is free at that moment; until the server has it, any outgoing connection may get it.
    Source: ip(7), "ip_local_port_range"; pytest-xdist's PYTEST_XDIST_WORKER.
    """
    first, last = ephemeral
    lower, upper = range(_LOWEST, first), range(last + 1, 2**16)
    number = int(environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return (lower or upper)[number :: int(environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def _tried() -> Iterator[int]:
    """Each port of the share in its turn, from anywhere on: another run on this machine begins elsewhere."""
    first, last = map(int, RANGE.read_text().split())
    ports = share((first, last), os.environ)
    return itertools.islice(itertools.cycle(ports), random.randrange(len(ports)), None)


_ports = _tried()


def free_port() -> int:
    """A port that nobody listens on, on any address of this machine, and that no outgoing connection is given."""
    return next(port for port in _ports if is_free(port))


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do no harm
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def answers(where: str | int) -> bool:
    """Whether somebody listens on this Unix socket or port."""
    family, address = (socket.AF_UNIX, where) if isinstance(where, str) else (socket.AF_INET, ("127.0.0.1", where))
    with contextlib.closing(socket.socket(family)) as probe:
        return probe.connect_ex(address) == 0
