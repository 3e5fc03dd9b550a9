"""Signals that come while the service starts are neither lost nor a crash, at whatever moment they come."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from service.workers.reload import DIRECTORY_VARIABLE, NAME
from tests.ports import answers, free_port
from tests.service.shells import DEADLINE_S, ROOT, clean_environment, wait_until

KINDS = {"runner": "-m service", "standalone": "-m service.server", "file": "service/server.py"}
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Python runs it before anything else. It sends a signal once, to all processes, as a terminal does.
SENDS = """
import os, sys

def look(event, arguments):
    if os.environ["AT"] in (event, arguments[0] if event == "import" else ""):
        try:
            os.close(os.open(os.environ["SENT"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.killpg(0, int(os.environ["SIGNAL"]))

sys.addaudithook(look)
"""
# As a program does that starts the service without a gap.
HAS_WAITED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [int(os.environ["SIGNAL"])])
os.kill(os.getpid(), int(os.environ["SIGNAL"]))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def is_survived_or_ends_in_order(words: list[str], sent: signal.Signals, tmp_path: Path, **variables: str) -> None:
    """SIGHUP is survived; of the others the service ends as when it runs, without a word."""
    port = free_port()
    environ = clean_environment(WEBSOCKET_PORT=str(port), SIGNAL=str(int(sent)), **variables)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        if sent is signal.SIGHUP:
            wait_until(lambda: process.poll() is not None or answers(port))
            process.terminate()
        code = process.wait(DEADLINE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    log_text = (tmp_path / "log").read_text()
    assert code == 0, log_text
    for odd in ("Traceback", "KeyboardInterrupt", "ended with", "does not start"):
        assert odd not in log_text


@pytest.mark.parametrize(
    ("kind", "workers", "at"),
    [
        ("runner", 1, "msgspec"),
        ("runner", 1, "socket.bind"),
        ("runner", 2, "tempfile.mkdtemp"),
        ("runner", 2, "os.fork"),
        ("standalone", 1, "asyncio"),
        ("standalone", 2, "subprocess.Popen"),
        ("file", 1, "asyncio"),
    ],
)
@pytest.mark.parametrize("sent", HELD, ids=lambda each: each.name)
def test_a_signal_during_the_start(kind: str, workers: int, sent: signal.Signals, at: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SENDS)
    is_survived_or_ends_in_order(
        KINDS[kind].split(),
        sent,
        tmp_path,
        WORKERS=str(workers),
        PYTHONPATH=str(tmp_path),
        AT=at,
        SENT=str(tmp_path / "sent"),
    )
    assert (tmp_path / "sent").exists()


@pytest.mark.parametrize("sent", HELD, ids=lambda each: each.name)
@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_that_has_waited_since_before_the_start(kind: str, sent: signal.Signals, tmp_path: Path) -> None:
    is_survived_or_ends_in_order(["-c", HAS_WAITED, *KINDS[kind].split()], sent, tmp_path)


@pytest.mark.parametrize("sent", HELD, ids=lambda each: each.name)
def test_a_look_at_an_application_is_ended_by_a_signal_and_finds_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(f"import os\nos.kill(os.getpid(), {int(sent)})\nasync def app(*_): ...\n")
    environ = clean_environment(WEBSOCKET_APP="main:app", WEBSOCKET_APP_DIRECTORY=str(tmp_path))
    words = [sys.executable, "-m", "service", "--check"]
    ended = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stderr) == (-sent, b"")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_stop_that_comes_while_a_reload_is_waited_for_makes_the_unit_not_fail(
    sent: signal.Signals, tmp_path: Path
) -> None:
    # systemd sends it to ExecReload= as well, and takes any status but 0 for a failure of the unit.
    with socket.socket(socket.AF_UNIX) as manager:
        manager.bind(str(tmp_path / NAME))
        manager.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "service.workers.reload"],
            cwd=ROOT,
            env=clean_environment(**{DIRECTORY_VARIABLE: str(tmp_path)}),
            stderr=subprocess.PIPE,
        )
        with manager.accept()[0]:
            process.send_signal(sent)
            _, told = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, told) == (0, b"")


@contextlib.contextmanager
def in_a_terminal(words: list[str], workers: int, tmp_path: Path) -> "Iterator[tuple[Running, Path]]":
    """The service in a terminal of its own, as a shell starts it, and what closes that; and its log."""
    port, log = free_port(), tmp_path / "log"
    environ = clean_environment(WEBSOCKET_PORT=str(port), WORKERS=str(workers), LOG_LEVEL="info")
    end, terminal = os.openpty()

    def close() -> None:
        os.close(end)
        with contextlib.suppress(ProcessLookupError):  # it may have ended already
            os.killpg(process.pid, signal.SIGHUP)  # the kernel sends it to the first process, and a shell to all

    with log.open("wb") as file:
        setsid = ["setsid", "--ctty", *words]
        process = subprocess.Popen(setsid, cwd=ROOT, env=environ, stdin=terminal, stdout=file, stderr=file)
    os.close(terminal)
    try:
        wait_until(lambda: process.poll() is not None or answers(port))
        yield Running(process, port, close), log
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Running(NamedTuple):
    process: "subprocess.Popen[bytes]"
    port: int
    close_terminal: Callable[[], None]


HEARD = {1: "SIGHUP is ignored: settings are read at the start", 2: "all workers have been replaced"}


@pytest.mark.parametrize(("kind", "workers"), [("runner", 1), ("runner", 2), ("standalone", 1), ("standalone", 2)])
def test_closing_its_terminal_ends_the_service_in_order_and_a_mere_hangup_does_not(
    kind: str, workers: int, tmp_path: Path
) -> None:
    with in_a_terminal([sys.executable, *KINDS[kind].split()], workers, tmp_path) as (service, log):
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: HEARD[workers] in log.read_text())
        service.close_terminal()
        assert service.process.wait(DEADLINE_S) == 0
    for odd in ("Traceback", "ended with", "does not start"):
        assert odd not in log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_under_nohup_the_terminal_may_be_closed(workers: int, tmp_path: Path) -> None:
    with in_a_terminal(["nohup", sys.executable, "-m", "service"], workers, tmp_path) as (service, _):
        service.close_terminal()
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(2)
        assert answers(service.port)
        service.process.terminate()
        assert service.process.wait(DEADLINE_S) == 0
