"""The servers of the comparison, each with the job of protocol v0, and how they are started."""

import contextlib
import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.programs import BUILD, HERE, PATH, ROOT, MissingError, compiled, nchan_module, node_modules, program

DEADLINE_S = 60.0
# Of the files that a process may have open, what it needs beside its connections.
SPARE_FILES = 200

# What is measured is the price of a message, not who is turned away.
ADMIT_ALL = {
    "WEBSOCKET_MAX_CONNECTIONS": "100000",
    "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS": "65535",
    "WEBSOCKET_MAX_MESSAGES_PER_SECOND": "1000000",
    "WEBSOCKET_MAX_BYTES_PER_SECOND": "1073741824",
}


class StartError(Exception):
    """A server did not come up; the message has the end of its log."""


class Server(NamedTuple):
    """A program to compare with.

    `command` makes its command line for a port and a directory of its own, and raises MissingError when it cannot.
    `subscribes_by_path`: clients say in the path who they are, as with nchan, and need not register.
    `tls`: all its clients speak TLS. `workers`: of our service, so many must be there before it is measured. `cpus` is
    how many of them it runs on.
    """

    title: str
    command: Callable[[int, Path], list[str]]
    environment: Mapping[str, str] = {}
    subscribes_by_path: bool = False
    workers: int = 1
    cpus: int = 1
    tls: bool = False


class Running(NamedTuple):
    """A server that answers, and all its processes. `home` is the directory that its command was given."""

    port: int
    pids: list[int]
    subscribes_by_path: bool
    cpus: int
    home: Path
    recipients_port: int | None = None
    tls: bool = False


def python(arguments: str) -> Callable[[int, Path], list[str]]:
    """The command line of a program in Python, for a port and a directory."""
    return lambda port, directory: [sys.executable, *arguments.format(port=port, directory=directory).split()]


def _node(port: int, _: Path) -> list[str]:
    node_modules()
    return [program("node", "nodejs npm"), str(HERE / "peers" / "node.js"), str(port)]


def nchan(port: int, directory: Path, listens: str = "") -> list[str]:
    """The command line of nginx with nchan; `listens` is what its `listen` says besides."""
    nginx, module = program("nginx", "nginx libnginx-mod-nchan"), nchan_module()
    conf = directory / "nginx.conf"
    conf.write_text((HERE / "peers" / "nchan.conf").read_text().replace("PORT", f"{port} backlog=2048{listens}"))
    return [nginx, "-p", str(directory), "-c", str(conf), "-g", f"load_module {module};"]


def _floor(port: int, _: Path) -> list[str]:
    return [compiled("peers/floor.c"), str(port)]


REFERENCE = "uvicorn"
SERVERS = {
    "fast": Server("**fast shell**, `python -m service`", python("-m service"), ADMIT_ALL),
    "workers": Server(
        "fast shell, two workers: half of the pairs have one in each",
        python("-m service"),
        {**ADMIT_ALL, "WORKERS": "2"},
        workers=2,
    ),
    "two-cpus": Server(
        "fast shell, two workers on two CPUs",
        python("-m service"),
        {**ADMIT_ALL, "WORKERS": "2"},
        workers=2,
        cpus=2,
    ),
    "asgi": Server(
        "ASGI shell, `uvicorn service.app:app`",
        python("-m uvicorn service.app:app --port {port} --log-level warning"),
        ADMIT_ALL,
    ),
    "gunicorn": Server(
        "gunicorn with `service.worker.Worker`",
        python("-m gunicorn -k service.worker.Worker --no-control-socket -b 127.0.0.1:{port} service.app:app"),
        ADMIT_ALL,
    ),
    "standalone": Server("standalone, `python -m service.server`", python("-m service.server {port}"), ADMIT_ALL),
    REFERENCE: Server(
        "uvicorn as the guide has it (reference)",
        python("-m uvicorn bench.peers.guide:app --port {port} --loop asyncio --ws auto --log-level warning"),
    ),
    "websockets": Server("`websockets` library", python("-m bench.peers.library {port}")),
    "node": Server("Node `ws`", _node, {"NODE_PATH": str(BUILD / "node" / "node_modules")}),
    "nchan": Server("nginx with nchan", nchan, subscribes_by_path=True),
    "floor": Server("floor: recv and send in C, no checks", _floor),
}


def allow_many_files() -> int:
    """Raise the soft limit of open files to the hard one, for us and all that we start; the limit now in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def server_cpus(number: int) -> list[int]:
    """The first CPUs, for a server.

    Raises:
        MissingError: there are not so many.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < number:
        raise MissingError(f"{number} CPUs are needed, and there is {len(cpus)}; use a larger machine")
    return cpus[:number]


def load_cpus(taken: int) -> list[int]:
    """The last CPU, for the load of a server on the first ones; all of them when the server leaves none."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[taken:][-1:] or cpus


def on_cpus(cpus: list[int], command: list[str]) -> list[str]:
    """The command, held on these CPUs."""
    if len(cpus) == len(os.sched_getaffinity(0)):
        return command
    return [program("taskset", "util-linux"), "-c", ",".join(map(str, cpus)), *command]


@contextlib.contextmanager
def running(server: Server) -> Iterator[Running]:
    """A server that answers on a port of its own, until the block ends.

    Raises:
        MissingError: a program that it needs is not there.
        StartError
    """
    with tempfile.TemporaryDirectory(prefix="wsbundle-bench-") as name:
        port, directory = free_port(), Path(name)
        command = on_cpus(server_cpus(server.cpus), server.command(port, directory))
        log = directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                # Nothing else of our environment: neither settings of the service nor habits of a developer's shell.
                env={"PATH": PATH, "WEBSOCKET_PORT": str(port), **server.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait_until(lambda: _answers(port, server.tls) and _has_workers(server, port), process, log)
            pids = family(process.pid)
            yield Running(port, pids, server.subscribes_by_path, server.cpus, directory, tls=server.tls)
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until(is_up: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_up():
        if process.poll() is not None or time.monotonic() > end:
            last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise StartError(f"does not start: {last}")
        time.sleep(0.02)


def _answers(port: int, tls: bool) -> bool:
    """Not only that it listens: gunicorn's master does so before its worker is there, and nginx before the service."""
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            if tls:
                any_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                any_certificate.check_hostname, any_certificate.verify_mode = False, ssl.CERT_NONE
                connection = stack.enter_context(any_certificate.wrap_socket(connection))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return connection.recv(12) not in (b"", b"HTTP/1.1 502")
    except OSError:
        return False


def _has_workers(server: Server, port: int) -> bool:
    if server.workers == 1:
        return True
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as watcher:
        watcher.request("GET", "/metrics")
        return f"\nwsbundle_workers_counted {server.workers}.0\n" in watcher.getresponse().read().decode()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def cpu_seconds(pids: list[int]) -> float:
    """What these processes have had of a CPU. Source: proc_pid_schedstat(5), the first field, in nanoseconds."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(DEADLINE_S)
    # The whole group, also when its first process has ended: the group is ours alone.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
