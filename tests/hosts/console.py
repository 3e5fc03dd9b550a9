"""A person at the console of a host, in a clone of this project; and that person's client on another machine."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from tests.hosts.driver import Host
from wsbundle_client import client as of_client

ROOT = Path(__file__).parent.parent.parent
CLONE = "clone"  # in the home of who works there
NAME = "queue-websocket"
DOMAIN = "ws.example.com"
PATIENCE_S = 30.0  # with a busy machine
SETTINGS: dict[str, Any] = {"name": NAME, "domain": DOMAIN}

# Everything an installation may touch: type, mode, owner, links' targets and, of files, size, time and digest. Left out
# is what the system writes by itself, as logrotate does within the hour after midnight, or after a boot that missed it.
_NOT = "/run/systemd /run/udev /run/log /run/credentials /run/user /run/agetty.reload /run/wsbundle.lock"
_NOT += " /var/lib/apt /var/lib/logrotate /var/lib/systemd"
_LISTING = rf"""
find /etc /opt /run /usr/lib/systemd /var/lib -xdev \( -path {" -o -path ".join(_NOT.split())} \) -prune \
    -o \( -type l -printf '%p -> %l\n' \) -o \( -type f -printf '%p %m %u:%g %s %T@\n' -exec sha256sum {{}} + \) \
    -o -printf '%p %y %m %u:%g\n' | sed -E 's/^([0-9a-f]{{64}})  (.*)/\2 \1/'
"""


@contextmanager
def clients_come_to(address: str = "", **options: Any) -> Iterator[None]:
    """Clients for Python come to this host, or to the one that their URL ends in, as in `?10.0.0.1`."""
    connecting = of_client._Connecting

    def to_the_host(url: str, **given: Any) -> Any:
        url, _, own = url.partition("?")
        return connecting(url, host=address or own, **options, **given)

    with mock.patch.object(of_client, "_Connecting", to_the_host):
        yield


class Console:
    """What is typed at one host, and what comes back: by root, or on Ubuntu by an ordinary user with `sudo`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.checkout = f"{host.home}/{CLONE}"
        self._sudo: tuple[str, ...] = ()
        if host.user != "root":
            self._sudo = ("runuser", "-u", host.user, "--", "env", f"HOME={host.home}", "sudo")

    def clone(self) -> None:
        """Put this project there, as `git clone` would."""
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                cwd=ROOT, capture_output=True, text=True, check=True).stdout  # fmt: skip
        for path in filter(None, listed.split("\0")):
            if (ROOT / path).is_file() and not path.startswith("tests/"):
                self._put(path, (ROOT / path).read_bytes())
        self.write("README.md", "a clone")
        ready = self.host.root / self.checkout[1:] / ".venv/ready"
        if ready.exists():
            ready.touch()

    def write(self, path: str, text: str) -> None:
        """Make a file of the clone, or of the host by an absolute path, hold this text."""
        if path.startswith("/"):
            target = self.host.root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        else:
            self._put(path, text.encode())

    def _put(self, path: str, content: bytes) -> None:
        """A file of the clone; it and its directories belong to who works there."""
        home = self.host.root / self.host.home[1:]
        target = home / CLONE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        owner = home.stat()
        for each in (target, *target.parents):
            if each == home:
                break
            os.chown(each, owner.st_uid, owner.st_gid)

    def configure(self, **settings: Any) -> None:
        """Write deploy.yaml; every JSON document is YAML too."""
        self.write("deploy.yaml", json.dumps({**SETTINGS, **settings}, indent=2))

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        """What a command says, on both streams."""
        words = [f"{name}={value}" for name, value in environment.items()]
        return self.host.run(*self._sudo, "env", *words, *command, check=check, directory=CLONE).stdout

    def wsbundle(self, *words: str, code: int = 0) -> str:
        """Run `wsbundle`, expect an exit code and never a traceback; what it said."""
        done = self.host.run(*self._sudo, ".venv/bin/wsbundle", *words, check=False, directory=CLONE)
        assert done.returncode == code, f"wsbundle {' '.join(words)}: exit code {done.returncode}\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def install(self, *words: str, code: int = 0, **settings: Any) -> str:
        """Install with these settings."""
        self.configure(**settings)
        return self.wsbundle("install", *words, code=code)

    @contextmanager
    def client(self, domain: str = DOMAIN) -> Iterator[ClientConnection]:
        """A WebSocket from this machine, through the host's nginx."""
        with connect(f"ws://{domain}/", address=(self.host.address, 80), open_timeout=PATIENCE_S, proxy=None) as client:
            assert "Welcome" in str(client.recv(timeout=PATIENCE_S))
            yield client

    def routes(self, domain: str = DOMAIN) -> bool:
        """Whether a message gets from one client to another."""
        text = json.dumps({"recipient_uuid": "bob", "message": "hello"})
        with self.client(domain) as alice, self.client(domain) as bob:
            bob.send(json.dumps({"recipient_uuid": "bob", "message": "connected"}))
            bob.ping().wait(PATIENCE_S)
            alice.send(text)
            return bob.recv(timeout=PATIENCE_S) == text

    def comes_to_route(self, within_s: float = PATIENCE_S) -> bool:
        """The same, soon: after a boot supervisor takes a moment, and nginx answers 502 until then."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                return self.routes()
            except (OSError, InvalidHandshake):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def listing(self) -> set[str]:
        """Every path that an installation could touch, with what it holds; directories without their times."""
        return set(self.run("sh", "-c", _LISTING).splitlines())

    def main_pids(self, name: str = NAME) -> dict[str, str]:
        """Who runs, by pid: any restart shows."""
        show = ("systemctl", "show", "--property=MainPID", "--value")
        return {unit: self.run(*show, unit).strip() for unit in (f"{name}.service", "nginx.service")} | {
            "supervisor": self.run("sh", "-c", f"supervisorctl pid {name} 2>/dev/null || true").strip(),
            "nginx workers": self.run("sh", "-c", "pgrep --parent $(cat /run/nginx.pid) | sort | xargs echo").strip(),
        }

    def is_active(self, unit: str) -> bool:
        return self.run("systemctl", "is-active", unit, check=False).strip() == "active"

    def status(self, code: int = 0) -> str:
        return self.wsbundle("status", code=code)

    def current(self, name: str = NAME) -> str:
        """The number of the current generation; nothing where there is none."""
        return self.run("sh", "-c", f"readlink /opt/{name}/current || true").strip().rpartition("/")[2]
