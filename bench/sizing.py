"""What a host needs for many clients: memory and CPU time of nginx and the service, as deployed, with TLS.

All clients stay connected while some messages a second go between them. Memory is what all processes of a program have
together, shared pages counted once; what the kernel has for the sockets of both ends comes on top.
"""

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.behind import deployed
from bench.figures import Figure, Outcome
from bench.page import bullets, paragraph, table
from bench.servers import SPARE_FILES, Running, allow_many_files, running

CONNECTIONS, PER_SECOND, SECONDS = 15_000, 1000, 30.0
QUICK = (300, 100, 1.0)
# On a host of two CPUs there are as many of each; nginx has two sockets for a client, and may have no more than so many
# in one process.
_PLACE = "--nginx-workers 3"
_WORKERS = "workers=2"
_LOOK_S = 0.5


class Size(NamedTuple):
    """Of a program, for all its clients together. `cpu` is of one core."""

    kib: float
    cpu: float


class Found(NamedTuple):
    """Of one run. `kernel_kib`: by how much the kernel's memory has grown; `p50` and `p99` are in seconds."""

    connections: int
    per_second: int
    programs: dict[str, Size]
    kernel_kib: int
    p50: float
    p99: float


def measure(connections: int, per_second: int, seconds: float) -> Found:
    """Measure it once.

    Raises:
        LoadError, MissingError, StartError
    """
    connections = min(connections, allow_many_files() - SPARE_FILES) // 2 * 2
    with running(deployed("", _PLACE, tls=True, settings=_WORKERS)._replace(cpus=1)) as server:
        programs = _programs(server)
        before = {name: _kib(pids) for name, pids in programs.items()}
        kernel_before = _kernel_kib()
        most = dict(before)
        kernel_most = kernel_before
        is_over = threading.Event()

        def watch() -> None:
            nonlocal kernel_most
            while not is_over.wait(_LOOK_S):
                for name, pids in programs.items():
                    most[name] = max(most[name], _kib(pids))
                kernel_most = max(kernel_most, _kernel_kib())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            pace = load.pace(server, per_second, seconds, connections // 2)
        finally:
            is_over.set()
            watcher.join()
        taken = dict(zip(server.pids, pace.process_seconds, strict=True))
    sizes = {
        name: Size(most[name] - before[name], sum(taken[pid] for pid in pids) / pace.seconds)
        for name, pids in programs.items()
    }
    return Found(connections, per_second, sizes, kernel_most - kernel_before, pace.p50, pace.p99)


def _programs(server: Running) -> dict[str, list[int]]:
    nginx = [pid for pid in server.pids if Path(f"/proc/{pid}/comm").read_text().strip() == "nginx"]
    return {"nginx": nginx, "the service": [pid for pid in server.pids if pid not in nginx]}


def _kib(pids: Iterable[int]) -> int:
    """Source: proc_pid_smaps(5), Pss."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(re.findall(r"(?m)^Pss: +(\d+) kB$", rollup)[0]) for rollup in rollups)


def _kernel_kib() -> int:
    """Source: proc_meminfo(5), SUnreclaim, and socket buffers, which are pages that no process has."""
    text = Path("/proc/meminfo").read_text()
    sockets = Path("/proc/net/sockstat").read_text()
    pages = sum(map(int, re.findall(r"mem (\d+)", sockets)))
    return int(re.findall(r"SUnreclaim: +(\d+) kB", text)[0]) + pages * 4


def report(found: Found) -> Outcome:
    """All of it."""
    rows = [
        [name, f"{size.kib / 1024:.0f}", f"{size.kib / found.connections:.1f}", f"{size.cpu:.0%}"]
        for name, size in found.programs.items()
    ]
    kernel = ["the kernel, for both ends of all sockets", f"{found.kernel_kib / 1024:.0f}"]
    rows.append([*kernel, f"{found.kernel_kib / found.connections:.1f}", ""])
    text = "\n\n".join(
        (
            paragraph(
                f"{found.connections} clients, {found.per_second} messages a second between them, with TLS; two "
                "workers of the service."
            ),
            table(["", "MiB", "KiB a client", "of a core"], rows),
            bullets([f"a message takes {found.p50 * 1000:.1f} ms, p99 {found.p99 * 1000:.1f} ms"]),
        )
    )
    figures = [
        Figure(
            case=name,
            name="memory",
            unit="KiB a client",
            better="less",
            values=(size.kib / found.connections,),
            noise=0.05,
        )
        for name, size in found.programs.items()
    ]
    return Outcome(text, figures, f"{found.connections} connections, {found.per_second} messages a second")
