"""nginx and the programs of the host each have a listener of their own, and no change refuses a client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.older_release import as_nginx_came_to_the_port
from tests.hosts.test_ended_at_every_step import stopped_at

OF_NGINX, PATH = f"{NAME}.nginx.socket", f"/run/{NAME}/ws.sock"
# One client after the other, faster than a person may.
SETTINGS: dict[str, Any] = {"limits": {"handshakes_per_second": 1000, "handshake_burst": 1000}}
KNOCK = f"""
import socket, time
with open("/root/statuses", "w", buffering=1) as statuses:
    while True:
        with socket.create_connection(("127.0.0.1", 80), 60) as client:
            client.sendall(
                b"GET / HTTP/1.1\\r\\nHost: {DOMAIN}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
                b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n"
            )
            print(client.recv(4096)[:12].decode(), file=statuses)
        time.sleep(0.02)
"""


@contextmanager
def knocking(console: Console) -> Iterator[Callable[[], set[str]]]:
    """Clients come through nginx one after the other; what they were answered."""
    console.write("/root/knock.py", KNOCK)
    console.run("systemd-run", "--unit=knock", "python3", "/root/knock.py")
    yield lambda: set(console.run("cat", "/root/statuses").splitlines())
    console.run("systemctl", "stop", "knock.service")


def may_connect(console: Console, user: str) -> bool:
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{PATH}')"
    return "Error" not in console.run("runuser", "-u", user, "--", "python3", "-c", connect, check=False)


def test_nginx_moves_from_the_port_to_a_listener_of_its_own_and_back_and_nobody_is_refused(installed: Console) -> None:
    installed.install(**SETTINGS)
    as_nginx_came_to_the_port(installed)
    installed.status()
    assert installed.routes()
    port = installed.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", f"{NAME}.socket")
    with knocking(installed) as answers:
        assert f"restart {NAME}.service\n" in installed.install(**SETTINGS)
        assert installed.is_active(OF_NGINX)
        assert (may_connect(installed, "www-data"), may_connect(installed, "nobody")) == (True, False)
        installed.wsbundle("rollback")
        assert not installed.is_active(OF_NGINX)
        assert "No such file" in installed.run("ls", PATH, check=False)
        assert answers() == {"HTTP/1.1 101"}
    assert port == installed.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", f"{NAME}.socket")
    installed.status(code=0)
    installed.install(**SETTINGS)
    installed.host.reboot()
    assert installed.comes_to_route()
    installed.status()


def test_power_is_cut_before_nginx_has_the_listener_that_it_connects_to(installed: Console) -> None:
    installed.install(**SETTINGS)
    as_nginx_came_to_the_port(installed)
    installed.configure(**SETTINGS)
    installed.host.push([Path(__file__).with_name("ended_at.py")], "/root")
    with stopped_at(installed, f"os.rename /etc/systemd/system/{OF_NGINX}", "install") as step:
        assert step
        assert installed.current() == "3"
        installed.host.cut_power()
    installed.host.boot()
    assert installed.comes_to_route()
    installed.install(**SETTINGS)
    assert installed.routes()
    installed.status()


def test_a_port_that_is_closed_and_opened_again_leaves_nginx_its_listener(installed: Console) -> None:
    installed.install(port="none")
    assert installed.routes()
    assert "8765" not in installed.run("ss", "-Hltn")
    installed.status()
    installed.install()
    assert installed.routes()
    assert "8765" in installed.run("ss", "-Hltn")
    installed.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    assert not installed.is_active(OF_NGINX)
    installed.run("systemctl", "start", f"{NAME}.socket", f"{NAME}.service")
    assert installed.routes()
    installed.wsbundle("uninstall")
    assert installed.run("sh", "-c", f"ls -d /run/{NAME}* /etc/systemd/system/{NAME}* 2>/dev/null || true") == ""
