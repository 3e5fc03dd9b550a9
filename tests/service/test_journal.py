"""What the journal is told by each way to start the service: a priority in front of every line."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.service.processes import SEVERAL, Processes
from tests.service.shells import DEADLINE_S, ROOT, Shell, clean_environment, wait_until

# Plain uvicorn has a log of its own. What gunicorn is given here stands in the rendered gunicorn.conf.py.
COMMANDS = {kind: SEVERAL[kind] for kind in ("runner", "standalone")}
COMMANDS["gunicorn"] = f"{SEVERAL['gunicorn']} --logger-class service.process.gunicorn_log.Log"


class Journal:
    """The other end of a service's stderr, as systemd has it: what arrives, line by line."""

    def __init__(self) -> None:
        self._reader, self.stderr = socket.socketpair()
        self._read = b""

    def environment(self) -> dict[str, str]:
        """By which a program knows this socket. Source: systemd.exec(5)."""
        state = os.fstat(self.stderr.fileno())
        return {"JOURNAL_STREAM": f"{state.st_dev}:{state.st_ino}"}

    def lines(self) -> list[str]:
        """All that has arrived by now."""
        with contextlib.suppress(BlockingIOError):
            while data := self._reader.recv(65_536, socket.MSG_DONTWAIT):
                self._read += data
        return self._read.decode().splitlines()

    def close(self) -> None:
        self._reader.close()
        self.stderr.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    with contextlib.closing(Journal()) as journal:
        yield journal


@contextlib.contextmanager
def started(command: str, journal: Journal, **variables: str) -> Iterator[Shell]:
    """A service that writes into this journal."""
    settings = {"WEBSOCKET_PORT": str(free_port()), "WORKERS": "2", **variables}
    process = subprocess.Popen(
        [sys.executable, *command.format(**settings).split()],
        cwd=ROOT,
        env=clean_environment(**{**journal.environment(), **settings}),
        stderr=journal.stderr.fileno(),
        start_new_session=True,
    )
    try:
        yield Shell(process, int(settings["WEBSOCKET_PORT"]), Path("/dev/null"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["plain", "json"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_line_has_its_priority_and_no_time_beside_that_of_the_journal(
    command: str, log_format: str, journal: Journal, tmp_path: Path
) -> None:
    bus = tmp_path / "bus"
    variables = {"WEBSOCKET_BUS": str(bus), "LOG_LEVEL": "info", "LOG_FORMAT": log_format}
    with started(command, journal, **variables) as shell:
        workers = Processes(shell, bus, 2)
        killed, _ = workers.wait()
        with workers.only(killed):
            assert shell.get("/livez").status == 200
        workers.kill(killed)
        wait_until(lambda: any(line.startswith("<3>") for line in journal.lines()))
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
    lines = journal.lines()
    if log_format == "json":
        numbers = {"info": 6, "warning": 4, "error": 3}
        assert all(line[:3] == f"<{numbers[json.loads(line[3:])['level']]}>" for line in lines)
    else:
        assert all(re.match("<3>ERROR |<4>WARNING |<6>INFO ", line) for line in lines)
    assert {line[:3] for line in lines} >= {"<3>", "<6>"}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_each_reason_why_it_cannot_start_is_an_error(command: str, journal: Journal) -> None:
    with started(command, journal, WEBSOCKET_HOST="localhost", LOG_LEVEL="loud") as shell:
        assert shell.process.wait(DEADLINE_S) != 0
    lines = journal.lines()
    assert len(lines) >= 2
    assert all(line.startswith("<3>") for line in lines)
    assert "<3>WEBSOCKET_HOST: 'localhost' does not fit; use an IPv4 or IPv6 address, such as 127.0.0.1" in lines


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_port_in_use_is_an_error(command: str, journal: Journal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with started(command, journal, WEBSOCKET_PORT=str(port)) as shell:
            wait_until(lambda: any(re.match("<3>.*in use", line) for line in journal.lines()))
            shell.terminate()
            shell.process.wait(DEADLINE_S)


def test_every_line_of_a_traceback_is_an_error(journal: Journal, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from service.process.entry import settings_or_exit\nsettings_or_exit({})\nprint(1 / 0)\n")
    with started(str(program), journal, PYTHONPATH=str(ROOT)) as shell:
        assert shell.process.wait(DEADLINE_S) == 1
    lines = journal.lines()
    assert lines[0] == "<3>Traceback (most recent call last):"
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in lines)


def test_a_reload_that_cannot_be_asked_for_is_an_error(journal: Journal) -> None:
    with started("-m service.workers.reload", journal, RUNTIME_DIRECTORY="/nowhere") as shell:
        assert shell.process.wait(DEADLINE_S) == 1
    (line,) = journal.lines()
    assert line.startswith("<3>the service cannot be asked at /nowhere/manager: ")


def test_a_stderr_that_is_not_the_journal_is_left_alone(journal: Journal) -> None:
    # As that of a program which a service starts with its output going elsewhere.
    ended = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=clean_environment(**journal.environment(), WEBSOCKET_HOST="localhost"),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.stderr.startswith("WEBSOCKET_HOST: ")
