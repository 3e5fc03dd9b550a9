"""The standalone service: its command line. All else is in test_conformance.py."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.shells import ROOT, clean_environment, running


def start(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end, which must be soon."""
    return subprocess.run(
        [sys.executable, "service/server.py", *arguments],
        cwd=ROOT,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_runs_as_a_module_too() -> None:
    with running("-m service.server") as shell, shell.client() as client:
        client.hears_nothing_but_itself()


def test_it_runs_from_any_directory() -> None:
    with running(str(ROOT / "service" / "server.py"), PYTHONPATH="/nowhere") as shell, shell.client() as client:
        client.hears_nothing_but_itself()


def test_the_port_of_the_command_line_goes_before_the_settings(tmp_path: Path) -> None:
    settings = {"WEBSOCKET_SOCKET": str(tmp_path / "ws.sock")}
    with running("service/server.py {WEBSOCKET_PORT}", **settings) as shell, shell.client() as client:
        client.hears_nothing_but_itself()


@pytest.mark.parametrize(
    ("port", "fault"),
    [
        ("80", "WEBSOCKET_PORT: 80 is too small; use a whole number from 1024 to 65535, or none\n"),
        ("http", "WEBSOCKET_PORT: 'http' is not a whole number; use a whole number from 1024 to 65535, or none\n"),
    ],
)
def test_a_wrong_port_is_told_in_one_line(port: str, fault: str) -> None:
    ended = start(port)
    assert (ended.returncode, ended.stderr) == (2, fault)


def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = start(str(port))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: the port is in use; ")


def test_it_says_how_it_is_used() -> None:
    assert "usage: python -m service.server [-h] [PORT]" in start("--help").stdout


def test_what_is_no_http_leaves_no_traceback_in_the_log() -> None:
    with running("service/server.py {WEBSOCKET_PORT}", LOG_LEVEL="info") as shell:
        with socket.create_connection(("127.0.0.1", shell.port)) as scanner:
            scanner.sendall(b"\x16\x03\x01\x00\xa5\x01\r\n\r\n")
            scanner.settimeout(60)
            while scanner.recv(1024):
                pass
        assert "Traceback" not in shell.log()
