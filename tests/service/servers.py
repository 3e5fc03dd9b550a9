"""Real engines: Debian's redis-server, and valkey-server where it is installed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import answers, free_port
from tests.service.shells import wait_until

# Debian 13 and Ubuntu 26.04 have both; `.ci/valkey` brings Valkey to Debian 12.
PROGRAMS = ("redis-server", "valkey-server")


def program(name: str) -> str:
    """The path of an engine, or of its Sentinel; the test is skipped where there is none."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/opt/valkey8/bin")
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install -y {name.partition('-')[0]}-server, or .ci/valkey")
    return path


class Server:
    """One engine, or one Sentinel; it keeps nothing."""

    def __init__(self, name: str, home: Path, *options: str, port: int | None = None) -> None:
        self.home = home
        self.port = port or free_port()
        self.socket = home / f"{self.port}.sock"
        self._command = [program(name), *options]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self.socket}"

    def start(self, *more: str) -> None:
        """Start it, and wait until it answers."""
        own = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if "--sentinel" not in self._command:
            own += ["--unixsocket", str(self.socket), "--save", ""]
        self.process = subprocess.Popen(
            [*self._command, *own, *more],
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        # It waits at its port first.
        return answers(self.port) and ("--sentinel" in self._command or answers(str(self.socket)))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, also to one that is wrapped."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
            self.process.wait()

    def ask(self, *words: str) -> str:
        """What it answers to a command."""
        return self.ask_port(self.port, *words)

    def is_a(self, role: str) -> bool:
        """Whether this is its role now; while it changes its role it may end each connection."""
        with contextlib.suppress(ConnectionError):
            return f"role:{role}" in self.ask("INFO", "replication")
        return False

    @staticmethod
    def ask_port(port: int, *words: str) -> str:
        """What whoever listens there answers."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with contextlib.closing(socket.create_connection(("127.0.0.1", port), 10)) as connection:
            connection.sendall(text.encode())
            return connection.recv(100_000).decode()


class Relay:
    """The network between a host and an engine: it passes on what it is given, later by `delay_s`, and nothing at all
    while it is `cut`, without a word to either end.
    """

    def __init__(self, to: int) -> None:
        self.is_cut = False
        self.delay_s = 0.0
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                time.sleep(self.delay_s)
                while self.is_cut:
                    time.sleep(0.01)
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all that it carries."""
        self.is_cut = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def serving(name: str, home: Path, *options: str, port: int | None = None) -> Iterator[Server]:
    """An engine that runs."""
    server = Server(name, home, *options, port=port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
