"""A host on a temporary directory: the rendered files, moved there and really run.

Only what names this machine is changed in them: paths, the user, and the ports 80 and 443. `moved` lists it all.
"""

import contextlib
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from generator.config.listening import clients_path, prefix
from generator.config.schema import Deploy
from generator.host.probe import Endpoint
from generator.readers.nginx_http2 import asks_for_http2, version_in, with_http2
from generator.readers.stub_certificate import stub_pair
from generator.rendering.bundle import Bundle
from generator.rendering.render import render
from tests.ports import answers, free_port
from tests.programs import missing

REPOSITORY = Path(__file__).resolve().parents[2]
DOMAIN = "ws.example.com"
NAME = "queue-websocket"
# Reached by nothing but a failure, however busy the machine is.
DEADLINE_S = 60.0
SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def needed(program: str) -> str:
    """Where a program is, or skip the test."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{SBIN}")
    if found is None:
        pytest.skip(missing(program))
    return found


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Look again and again until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


def _fitted(bundle: Bundle) -> Bundle:
    """The bundle in the words of this machine's nginx, as an installation writes it."""
    if not asks_for_http2(bundle):
        return bundle
    said = subprocess.run([needed("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
    return with_http2(bundle, version_in(said))


class Stage:
    """One deployment, rendered and moved below `root`."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.mark = uuid4().hex
        self.http_port, self.https_port, self.port = free_port(), free_port(), free_port()
        pair = root / "pair.pem"
        pair.write_text(stub_pair())
        if settings.get("tls") == "files":
            settings["certificate"] = {"file": str(pair), "key": str(pair)}
        self.deploy = msgspec.convert(
            {
                "name": NAME,
                "domain": DOMAIN,
                "port": self.port,
                "ping": {"interval": 1, "timeout": 1},
                "drain": {"timeout": 3},
                "env": {"RUN_MARK": self.mark},
                **settings,
            },
            Deploy,
        )
        self.bundle = _fitted(render(self.deploy))
        self._write(self.bundle)
        for directory in (f"run/{NAME}", f"var/lib/{NAME}", f"var/log/{NAME}", "var/log/nginx", f"var/lib/{NAME}-acme"):
            (root / directory).mkdir(parents=True)
        self._code.mkdir()
        (self._code / "service").symlink_to(REPOSITORY / "service")
        (self._code / "venv").symlink_to(sys.prefix)

    @property
    def _code(self) -> Path:
        return self.root / "code"

    def _write(self, bundle: Bundle) -> None:
        for file in bundle.files:
            path = self.root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.link is not None:
                path.symlink_to(file.link)
            else:
                path.write_text(self.moved(file.text))

    def moved(self, text: str) -> str:
        """The rendered text on this machine: its paths below `root`, our interpreter and code, our user and ports."""
        moves = {
            rf"/opt/{NAME}/current/venv/bin/python": sys.executable,
            rf"/opt/{NAME}/current": str(self._code),
            rf"(?<![\w.-])/(etc|run|var/lib|var/log)/({NAME}|nginx)": rf"{self.root}/\1/\2",
            rf"(?m)^user={NAME}$": f"user={pwd.getpwuid(os.geteuid()).pw_name}",
            r"(?m)^( *)listen 80\b": rf"\1listen 127.0.0.1:{self.http_port}",
            r"(?m)^( *)listen 443\b": rf"\1listen 127.0.0.1:{self.https_port}",
            r"(?m)^ *listen \[::\]:.*\n": "",
        }
        for old, new in moves.items():
            text = re.sub(old, new, text)
        return text

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    @property
    def endpoint(self) -> Endpoint:
        """Where nginx listens."""
        return Endpoint(
            domain=DOMAIN,
            encrypted=self.deploy.tls != "off",
            asks_for_token=self.deploy.auth == "token",
            ports=(self.http_port, self.https_port),
            proxy_protocol=self.deploy.nginx.proxy_protocol,
            path=clients_path(self.deploy),
        )

    def _socket(self, encrypted: bool) -> socket.socket:
        plain = self.endpoint.connect("127.0.0.1", encrypted, DEADLINE_S)
        if not encrypted:
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the stub's key is everybody's
        return context.wrap_socket(plain, server_hostname=DOMAIN)

    def connect(self, **headers: str) -> "Client":
        """A WebSocket through nginx."""
        return Client(self._socket(self.deploy.tls != "off"), headers)

    def get(
        self, path: str, encrypted: bool | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, header fields in lower case and body of a plain request through nginx."""
        return self.ask("GET", path, encrypted=encrypted, headers=headers)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        encrypted: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], str]:
        """The same with any method, and a body."""
        if encrypted is None:
            encrypted = self.deploy.tls != "off"
        connection = http.client.HTTPConnection(DOMAIN, timeout=DEADLINE_S)
        connection.sock = self._socket(encrypted)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers={"Host": DOMAIN, **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode()

    def processes(self) -> list[int]:
        """Every process that carries this deployment's environment."""
        found = []
        for directory in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if directory.name.isdecimal() and self.mark.encode() in (directory / "environ").read_bytes():
                    found.append(int(directory.name))
        return found

    def log(self) -> str:
        """What everything has written, for whoever looks into a failure."""
        return "\n".join(f"--- {path}\n{path.read_text()}" for path in self.root.rglob("*.log") if path.stat().st_size)


class Client:
    """A WebSocket client of one thread, which reads, and so answers pings, only while it is asked to.

    The websockets library's own has two threads on one TLS connection; one handshake in a hundred hangs with it.
    """

    def __init__(self, connection: socket.socket, headers: dict[str, str]) -> None:
        self._socket = connection
        self._protocol = ClientProtocol(parse_uri(f"ws://{DOMAIN}/"))
        self._texts: list[str] = []
        self.status = 0
        self.pinged_at: list[float] = []
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._flush()
        self.read_until(lambda: self.status)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    @property
    def close_code(self) -> int | None:
        """That of the close frame that came, if one did."""
        return self._protocol.close_rcvd.code if self._protocol.close_rcvd else None

    def send(self, uuid: str, message: str) -> str:
        """Send a message to a UUID; what was sent."""
        frame = json.dumps({"recipient_uuid": uuid, "message": message})
        self._protocol.send_text(frame.encode())
        self._flush()
        return frame

    def register(self, uuid: str) -> None:
        """Register a UUID, and wait until it has taken effect."""
        self.send(uuid, "connected")
        frame = self.send(uuid, "are you there?")
        assert self.text() == frame

    def text(self) -> str:
        """The next text."""
        self.read_until(lambda: self._texts)
        return self._texts.pop(0)

    def read_until(self, condition: Callable[[], object], answer: bool = True) -> None:
        """Read until the condition holds; without `answer`, as one who hears but does not reply."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            assert self.read(end - time.monotonic(), answer), "the connection ended without it"

    def read(self, wait_s: float, answer: bool = True) -> bool:
        """Read what comes within some time. Whether the connection is still open."""
        self._socket.settimeout(max(wait_s, 0.001))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.status = event.status_code
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._texts.append(bytes(event.data).decode())
            elif isinstance(event, Frame) and event.opcode is Opcode.PING:
                self.pinged_at.append(time.monotonic())
        if answer:
            self._flush()
        return True

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)


@contextlib.contextmanager
def process(stage: Stage, name: str, command: list[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the block ends, and everything it has started with it."""
    with (stage.root / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(DEADLINE_S)
        for pid in {child.pid, *stage.processes()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait(DEADLINE_S)


@contextlib.contextmanager
def nginx(stage: Stage) -> Iterator[None]:
    """nginx with the rendered files, under a small nginx.conf around them as a host's is."""
    program = needed("nginx")
    (stage.root / "tmp").mkdir()
    own = "\n".join(f"{kind}_temp_path {stage.root}/tmp/{kind};" for kind in ("client_body", "proxy"))
    conf = stage.root / "etc/nginx/nginx.conf"
    conf.write_text(
        ("user root;\n" if os.geteuid() == 0 else "")  # our temporary directory is closed to www-data
        + f"daemon off;\npid {stage.root}/nginx.pid;\nerror_log {stage.root}/nginx-error.log;\n"
        f"include {stage.root}/etc/nginx/modules-enabled/*.conf;\nevents {{}}\n"
        f"http {{\n{own}\ninclude {stage.root}/etc/nginx/sites-enabled/*;\n}}\n"
    )
    with process(stage, "nginx", [program, "-c", str(conf)]) as child:
        wait_until(lambda: answers(stage.http_port) or child.poll() is not None, "nginx listens", deadline_s=DEADLINE_S)
        assert child.poll() is None, stage.log()
        yield


@contextlib.contextmanager
def as_systemd(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the rendered unit's command as systemd does: its environment, its listeners, until it says READY=1."""
    service = stage.text(f"etc/systemd/system/{NAME}.service")
    command, directory, environment = (
        re.findall(rf"(?m)^{key}=(.*)$", service)[0] for key in ("ExecStart", "WorkingDirectory", "EnvironmentFile")
    )
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(_listening(stage.text(unit))) for unit in _sockets(stage, service)]
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(stage.root / "notify"))
        notify.setblocking(False)
        descriptors = [listener.fileno() for listener in listeners]
        start = f"set -a; . {environment}; LISTEN_FDS={len(descriptors)}; LISTEN_PID=$$; exec {command}"
        wrapped = [sys.executable, "-S", "-c", _PASS_ON, start, *map(str, descriptors)]
        child_environment = {"PATH": SBIN, "NOTIFY_SOCKET": str(stage.root / "notify"), "PYTHONWARNINGS": "default"}
        with process(stage, "service", wrapped, cwd=directory, env=child_environment, pass_fds=descriptors) as child:
            wait_until(lambda: _ready(notify) or child.poll() is not None, "the service is ready")
            assert child.poll() is None, stage.log()
            yield child


# LISTEN_PID must be that of the service itself, which Python becomes through sh; its listeners are descriptor 3 and up.
_PASS_ON = """
import fcntl, os, sys
for number, each in enumerate([fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 100) for each in sys.argv[2:]]):
    os.dup2(each, 3 + number)
os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
"""


def _sockets(stage: Stage, service: str) -> list[str]:
    return [f"etc/systemd/system/{unit}" for unit in re.findall(r"(?m)^After=(.*\.socket)$", service)]


def _listening(unit: str) -> socket.socket:
    (stream,) = re.findall(r"(?m)^ListenStream=(.*)$", unit)
    host, _, port = stream.rpartition(":")
    listener = socket.socket(socket.AF_INET if host else socket.AF_UNIX)
    listener.bind((host, int(port)) if host else stream)
    listener.listen(2048)
    return listener


def _ready(notify: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return b"READY=1" in notify.recv(4096)
    return False


@contextlib.contextmanager
def as_supervisor(stage: Stage) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisord of our own with the rendered program."""
    program = needed("supervisord")
    conf = stage.root / "supervisord.conf"
    conf.write_text(
        f"[supervisord]\nlogfile={stage.root}/supervisord.log\npidfile={stage.root}/supervisord.pid\n"
        f"[include]\nfiles={stage.root}/etc/supervisor/conf.d/*.conf\n"
    )
    with process(stage, "supervisor", [program, "-n", "-c", str(conf)], env={"PATH": SBIN}) as child:
        listener = f"{stage.root}/run/{NAME}/ws.sock"
        wait_until(lambda: answers(listener) or child.poll() is not None, "the service listens")
        assert child.poll() is None, stage.log()
        yield child


MANAGERS = {"systemd": as_systemd, "supervisor": as_supervisor}


@contextlib.contextmanager
def deployed(root: Path, **settings: Any) -> Iterator[tuple[Stage, "subprocess.Popen[bytes]"]]:
    """The whole: nginx in front of the service under its manager, until the block ends."""
    stage = Stage(root, **settings)
    with nginx(stage), MANAGERS[stage.deploy.manager](stage) as manager:
        # READY is about the master; under gunicorn the worker comes later.
        health = f"{prefix(stage.deploy)}/health"
        wait_until(lambda: stage.get(health)[0] == 200, "the service answers through nginx")
        yield stage, manager
