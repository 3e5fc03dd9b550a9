"""Root asks a worker who is connected, and sends one of them away, on a socket that nobody else can use."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import answers
from tests.service.shells import COMMANDS, DEADLINE_S, Shell, running, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="who may ask is tried as other users")
NOBODY = 65534


@pytest.fixture(params=COMMANDS)
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shell, Path]]:
    bus = tmp_path / "bus"
    with running(COMMANDS[request.param], WEBSOCKET_BUS=str(bus)) as shell:
        wait_until(lambda: len(list(bus.glob("control-*"))) == 1 and answers(path_in(bus)))
        yield shell, bus


def path_in(bus: Path) -> str:
    (path,) = bus.glob("control-*")
    return str(path)


def asked(path: str, line: bytes) -> Any:
    with socket.socket(socket.AF_UNIX) as worker:
        worker.settimeout(DEADLINE_S)
        worker.connect(path)
        worker.sendall(line)
        return json.loads(b"".join(iter(lambda: worker.recv(65536), b"")))


def test_who_is_connected_is_listed_and_can_be_sent_away(directory: tuple[Shell, Path]) -> None:
    shell, bus = directory
    path = path_in(bus)
    assert os.stat(path).st_mode & 0o777 == 0o600
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        told = {each["uuid"]: each for each in asked(path, b'{"do": "clients"}\n')}
        assert told.keys() == {alice.temporary_uuid, bob.temporary_uuid}
        about = told[alice.temporary_uuid]
        assert (about["addresses"], about["from"], about["protocol"]) == (["alice"], None, "v0")
        assert about["seconds"] >= 0
        assert about["written"] > 0
        assert asked(path, b'{"do": "kick", "uuid": "nobody"}\n') == []
        assert asked(path, b'{"do": "kick", "uuid": "alice"}\n') == [alice.temporary_uuid]
        assert alice.close_code() == 4011
        bob.hears_nothing_but_itself()
    shell.terminate()
    wait_until(lambda: shell.process.poll() is not None)
    assert list(bus.glob("control-*")) == []


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b'{"do": "dance"}\n', b'{"do": "clients", "x": 1}\n', b"x" * 70_000 + b"\n"]
)
def test_what_is_no_request_is_answered_with_why(line: bytes, directory: tuple[Shell, Path]) -> None:
    assert "error" in asked(path_in(directory[1]), line)


def test_nobody_but_root_and_the_service_itself_may_ask(directory: tuple[Shell, Path]) -> None:
    """Even where the permissions of the directory would let them."""
    path = path_in(directory[1])
    for above in Path(path).parents:
        if above.stat().st_mode & 0o055 == 0:  # pytest makes its directories for one user
            above.chmod(0o755)
    os.chmod(path, 0o666)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"do": "clients"}\\n\'); print(repr(s.recv(100)))'
    )
    told = subprocess.run(
        ["/usr/bin/python3", "-c", program, path], user=NOBODY, capture_output=True, text=True, check=False, timeout=60
    )
    assert "PermissionError" not in told.stderr
    assert "ConnectionResetError" in told.stderr or "BrokenPipeError" in told.stderr or told.stdout == "b''\n"
    assert asked(path, b'{"do": "clients"}\n') == []
