"""The service as its users start it, and clients to try it with."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.ports import answers, free_port

ROOT = Path(__file__).resolve().parents[2]
# Reached by nothing but a failure, however busy the machine is.
DEADLINE_S = 60.0

# Ping timing, message size and compression are ours only where we say so: this is what a plain uvicorn needs.
_PLAIN_UVICORN = (
    "--ws-ping-interval={WEBSOCKET_PING_INTERVAL} --ws-ping-timeout={WEBSOCKET_PING_TIMEOUT} "
    "--ws-max-size=65536 --ws-per-message-deflate=false --no-access-log"
)
COMMANDS = {
    "uvicorn": "-m uvicorn service.app:app --port {WEBSOCKET_PORT} " + _PLAIN_UVICORN,
    "runner": "-m service",
    "gunicorn": "-m gunicorn -k service.worker.Worker --no-control-socket -b 127.0.0.1:{WEBSOCKET_PORT} "
    "service.app:app",
    "standalone": "service/server.py {WEBSOCKET_PORT}",
}


def wait_until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Look again and again until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


def clean_environment(**variables: str) -> dict[str, str]:
    """Our environment, without what would configure the service."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WEBSOCKET_", "LISTEN_", "NOTIFY_", "WATCHDOG_"))}
    return {**kept, "PYTHONWARNINGS": "error", **variables}


class HttpResponse(NamedTuple):
    """A response to plain HTTP; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Shell:
    """One running service."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"ws://127.0.0.1:{port}/"
        self._log = log

    def log(self) -> str:
        """What it has written to stderr and stdout so far."""
        return self._log.read_text()

    def client(self) -> "Client":
        """A client that has been welcomed."""
        return Client(self.url)

    def get(self, path: str, method: str = "GET", timeout: float = DEADLINE_S) -> HttpResponse:
        """Ask by plain HTTP."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as response:
                return HttpResponse(
                    response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
                )
        except urllib.error.HTTPError as error:
            with error:
                return HttpResponse(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def connections(self) -> int:
        """How many connections /health says are open."""
        number: int = json.loads(self.get("/health").body)["connections"]
        return number

    def descriptors(self) -> int:
        """How many files and sockets it holds open, with its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [self.process.pid, *children])

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)


class Client:
    """A client of protocol v0; `welcome` is the first text it got, `sent` counts what it has sent."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(connect(url, proxy=None, compression=None, close_timeout=1))
        self.welcome = self.receive()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    @property
    def temporary_uuid(self) -> str:
        """What the welcome names."""
        return self.welcome.split()[-1]

    @property
    def port(self) -> int:
        """Its own end of the connection."""
        port: int = self._socket.socket.getsockname()[1]
        return port

    def receive(self) -> str:
        """The next text; fails when none comes in time."""
        text = self._socket.recv(timeout=DEADLINE_S)
        assert isinstance(text, str)
        return text

    def send(self, frame: str | bytes) -> None:
        """Send one message as it is."""
        self._socket.send(frame)
        self.sent += 1

    def send_to(self, uuid: str, message: object) -> None:
        """Send a message to a UUID."""
        self.send(json.dumps({"recipient_uuid": uuid, "message": message}))

    def register(self, uuid: str) -> None:
        """Register a UUID, and wait until it has taken effect."""
        self.send_to(uuid, "connected")
        self.hears_nothing_but_itself()

    def hears_nothing_but_itself(self) -> None:
        """Everything sent so far has been dealt with, and nothing waits to be received."""
        self.send_to(self.temporary_uuid, "are you there?")
        assert json.loads(self.receive()) == {"recipient_uuid": self.temporary_uuid, "message": "are you there?"}

    def reset(self) -> None:
        """Go away with a TCP reset."""
        reset(self._socket.socket)

    def close_code(self) -> int:
        """Wait for the server to close, and tell why it did."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._socket.recv(timeout=DEADLINE_S)
        code = self._socket.close_code
        assert code is not None
        return code


def reset(connection: socket.socket) -> None:
    """End a connection with a TCP reset. Source: socket(7), SO_LINGER."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# The caller adds header fields of its own, and the empty line.
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class Peer:
    """A WebSocket client of bare sockets, which answers no ping and reads only when it is told to."""

    def __init__(self, port: int, receive_buffer: int | None = None, extensions: str = "none") -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(HANDSHAKE + b"Sec-WebSocket-Extensions: " + extensions.encode() + b"\r\n\r\n")
        self._reader = self._socket.makefile("rb")
        self.status = int(self._reader.readline().split()[1])
        self.headers = dict(self._read_headers())

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reader.close()
        self._socket.close()

    def _read_headers(self) -> Iterator[tuple[str, str]]:
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(":")
            yield name.lower(), value.strip()

    def reset(self) -> None:
        """Go away with a TCP reset."""
        self._reader.close()  # which keeps the socket open
        reset(self._socket)

    def send_frame(self, opcode: int, payload: bytes, fin: bool = True) -> None:
        """Send one frame of at most 65,535 bytes, masked with zeros."""
        head = bytes([opcode | (0x80 if fin else 0)])
        if len(payload) < 126:
            head += bytes([0x80 | len(payload)])
        else:
            head += bytes([0x80 | 126]) + struct.pack("!H", len(payload))
        self._socket.sendall(head + bytes(4) + payload)

    def read_frame(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload; None at the end of the stream."""
        head = self._reader.read(2)
        if len(head) < 2:
            return None
        length = head[1]
        if length == 126:
            (length,) = struct.unpack("!H", self._reader.read(2))
        return head[0] & 0x0F, self._reader.read(length)

    def wait_for(self, opcode: int) -> bytes:
        """The payload of the next frame of this kind."""
        while frame := self.read_frame():
            if frame[0] == opcode:
                return frame[1]
        raise AssertionError("the connection ended without it")

    def close_code(self) -> int:
        """Wait for the server's close frame."""
        (code,) = struct.unpack("!H", self.wait_for(CLOSE)[:2])
        return int(code)


CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


@contextlib.contextmanager
def running(command: str, answers_on: str | None = None, at: str = str(ROOT), **variables: str) -> Iterator[Shell]:
    """Start the service with a Python command line and settings, and wait until it answers.

    `answers_on` is the path of its Unix socket; without one it listens on the shell's port. `at` has the code.
    """
    port = free_port()
    settings = {
        "WEBSOCKET_PING_INTERVAL": "60",
        "WEBSOCKET_PING_TIMEOUT": "30",
        **variables,
        "WEBSOCKET_PORT": str(port),
    }
    with tempfile.NamedTemporaryFile(prefix="service-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, *command.format(**settings).split()],
            cwd=at,
            env=clean_environment(**settings),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        shell = Shell(process, port, Path(log.name))
        try:
            wait_until(lambda: process.poll() is not None or answers(answers_on or port))
            assert process.poll() is None, shell.log()
            yield shell
        except BaseException:
            print(shell.log())  # pytest shows it beside the failure
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # gunicorn's workers as well
            process.wait()
