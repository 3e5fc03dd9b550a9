"""A service manager with a descriptor store, as systemd has one: sd_notify(3)."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.service.shells import DEADLINE_S, ROOT, clean_environment, wait_until


class ServiceManager:
    """Keeps what it is sent, in `stored`, as pairs of a name and a descriptor; `heard` has all other messages."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.stored: list[tuple[str, int]] = []
        self.heard: list[str] = []
        self.answers = True
        """Whether it answers who waits for it."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 768)
            if not message:
                return
            lines = dict(line.split("=", 1) for line in message.decode().splitlines())
            if "FDSTORE" in lines:
                assert lines["FDPOLL"] == "0"
                self.stored += [(lines["FDNAME"], descriptor) for descriptor in descriptors]
            elif "FDSTOREREMOVE" in lines:
                self._remove(lines["FDNAME"])
            elif descriptors:  # BARRIER=1, or what only our own manager understands
                assert len(lines) == len(descriptors) == 1
                if self.answers:
                    os.close(descriptors[0])
                else:
                    self.stored.append(("unanswered", descriptors[0]))
            else:
                self.heard.append(message.decode())

    def _remove(self, name: str) -> None:
        for each in [each for each in self.stored if each[0] == name]:
            os.close(each[1])
            self.stored.remove(each)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.path)
        self._thread.join()
        self._socket.close()
        for _, descriptor in self.stored:
            os.close(descriptor)


@contextlib.contextmanager
def managing(path: Path) -> Iterator[ServiceManager]:
    """One that listens at this path."""
    manager = ServiceManager(path)
    try:
        yield manager
    finally:
        manager.close()


# What systemd does between fork and exec: descriptors from 3 on, and the process's own number.
_BECOME = """import fcntl, os, sys
found = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD_CLOEXEC, 500) for descriptor in sys.argv[1].split()]
for number, descriptor in enumerate(found): os.dup2(descriptor, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Unit:
    """The service as a unit of systemd: it is passed a listener, and what the process before it has stored."""

    def __init__(self, directory: Path, manager: ServiceManager, **variables: str) -> None:
        self.manager = manager
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        (directory / "run").mkdir()
        self._variables = {"RUNTIME_DIRECTORY": str(directory / "run"), "FDSTORE": "64", "LOG_LEVEL": "info"}
        self._variables |= variables

    def begin(self, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a process; it is not waited for."""
        passed = [("x.socket", self.listener.fileno()), *self.manager.stored]
        listening = {
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in passed),
            "NOTIFY_SOCKET": self.manager.path,
        }
        self.manager.heard.clear()
        descriptors = [descriptor for _, descriptor in passed]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BECOME, " ".join(map(str, descriptors)), "-m", "service"],
                cwd=ROOT,
                env=clean_environment(**listening, **{**self._variables, **variables}),
                pass_fds=descriptors,
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self, **variables: str) -> None:
        """Start a process, which comes to serve."""
        process = self.begin(**variables)
        wait_until(lambda: process.poll() is not None or any("READY=1" in each for each in self.manager.heard))
        assert process.poll() is None, self.log.read_text()

    def end(self, by: signal.Signals) -> int:
        """Have the process end by a signal."""
        assert self.process is not None
        self.process.send_signal(by)
        return self.process.wait(DEADLINE_S)

    def restart(self, **variables: str) -> None:
        """As `systemctl restart` does it."""
        assert self.end(signal.SIGINT) == 0
        self.start(**variables)

    def close(self) -> None:
        self.listener.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
