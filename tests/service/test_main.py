"""The runner, `python -m service`, as a service manager meets it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import answers, free_port
from tests.programs import needs
from tests.service.shells import (
    COMMANDS,
    DEADLINE_S,
    ROOT,
    Peer,
    clean_environment,
    running,
    wait_until,
)

# Both ways to start the service that speak to a service manager themselves.
OURS = [COMMANDS["runner"], "-m service.server"]

# What systemd does between fork and exec: the socket becomes descriptor 3, and LISTEN_PID the process itself.
BECOME = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Manager:
    """What the service tells its manager."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(60)

    def heard(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(tmp_path / "notify")) as manager:
        yield manager


@pytest.mark.parametrize("command", OURS)
def test_the_manager_hears_when_it_is_ready_alive_and_stopping(command: str, manager: Manager) -> None:
    with running(command, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="200000") as shell:
        status = "STATUS=0 connections; messages: 0 routed, 0 dropped"
        assert manager.heard() == ["READY=1", status]
        assert manager.heard() == ["WATCHDOG=1", status]
        with shell.client() as client:
            client.hears_nothing_but_itself()
            wait_until(lambda: manager.heard()[1].startswith("STATUS=1 connections; messages: 1 routed"))
        shell.terminate()
        wait_until(lambda: "STOPPING=1" in manager.heard())
        assert shell.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("command", OURS)
def test_ready_means_that_it_can_be_connected_to(command: str, manager: Manager) -> None:
    port = free_port()
    environ = clean_environment(NOTIFY_SOCKET=manager.path, WEBSOCKET_PORT=str(port))
    with subprocess.Popen([sys.executable, *command.split()], cwd=ROOT, env=environ) as process:
        try:
            assert "READY=1" in manager.heard()
            with Peer(port) as peer:
                assert peer.status == 101
        finally:
            process.kill()


@pytest.mark.parametrize("command", OURS)
def test_a_port_in_use_is_told_in_one_line_and_ready_never(command: str, manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        environ = clean_environment(NOTIFY_SOCKET=manager.path, WEBSOCKET_PORT=str(port))
        ended = subprocess.run(
            [sys.executable, *command.split()], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use; "
        f"stop what listens there (ss -ltnp 'sport = :{port}'), or choose another port\n"
    )
    manager._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.heard()


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS)
def test_a_client_that_does_not_answer_delays_the_stop_by_seconds_at_most(command: str) -> None:
    with running(command) as shell, Peer(shell.port) as silent:
        begin = time.monotonic()
        shell.terminate()
        assert silent.close_code() == 1012
        assert shell.process.wait(DEADLINE_S) == 0
        assert time.monotonic() - begin < 8  # less than the drain timeout


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS)
def test_the_drain_timeout_bounds_the_stop(command: str) -> None:
    with running(command, WEBSOCKET_DRAIN_TIMEOUT="1") as shell, Peer(shell.port):
        begin = time.monotonic()
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
        assert time.monotonic() - begin < 8  # by default it is 10 s


@needs("ss")
@pytest.mark.parametrize("command", OURS)
def test_the_kernel_keeps_as_many_new_connections_as_come_back_after_a_restart(command: str) -> None:
    with running(command) as shell:
        assert shell.get("/health").status == 200  # all has been set up
        listed = subprocess.run(
            ["ss", "--listening", "--tcp", "--numeric", "--no-header", f"sport = :{shell.port}"],
            capture_output=True,
            text=True,
            check=True,
        )
    _, _, backlog, *_ = listed.stdout.split()
    assert backlog == "4096"


@pytest.mark.parametrize("command", OURS)
def test_a_hangup_is_survived_with_a_word_in_the_log(command: str) -> None:
    with running(command) as shell, shell.client() as client:
        shell.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP is ignored: settings are read at the start" in shell.log())
        client.hears_nothing_but_itself()


def test_its_log_says_what_the_level_asks_for() -> None:
    with running(COMMANDS["runner"], LOG_LEVEL="info") as talkative, running(COMMANDS["runner"]) as quiet:
        for shell in (talkative, quiet):
            assert shell.get("/health").status == 200
            with shell.client() as client:
                client.hears_nothing_but_itself()
        assert f" INFO service: listening on 127.0.0.1:{talkative.port}\n" in talkative.log()
        assert "/health" not in talkative.log()  # a probe every few seconds would bury the rest
        assert quiet.log() == ""


def test_who_comes_by_tcp_from_elsewhere_cannot_claim_another_address() -> None:
    with running(COMMANDS["runner"], LOG_LEVEL="info") as shell:
        claim(("127.0.0.1", shell.port), source=("127.0.0.2", 0))
        wait_until(lambda: " connected uuid=" in shell.log())
        assert "198.51.100.7" not in shell.log()


@pytest.mark.parametrize("kind", ["runner", "standalone", "gunicorn"])
def test_on_a_unix_socket_the_proxy_says_who_comes_and_on_tcp_beside_it_nobody_can(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "ws.sock")
    command = COMMANDS[kind].replace("gunicorn -k", f"gunicorn -b unix:{path} -k")
    command = command.replace("service/server.py {WEBSOCKET_PORT}", "-m service.server")
    with running(command, answers_on=path, LOG_LEVEL="info", WEBSOCKET_SOCKET=path) as shell:
        wait_until(lambda: answers(shell.port))  # gunicorn listens at one address after the other
        claim(("127.0.0.1", shell.port), source=("127.0.0.2", 0))
        if kind != "standalone":  # which believes all of loopback, whatever else it listens on
            wait_until(lambda: " connected uuid=" in shell.log())
            assert "198.51.100.7" not in shell.log()
        claim(path)
        wait_until(lambda: "198.51.100.7" in shell.log())


# The service, which is asked to stop in the middle of a function of the loop's making or unmaking.
STOPPED_WITHIN = """
import asyncio, importlib, os, sys, {module} as entry
*path, name = "{function}".split(".")
owner = importlib.import_module(path[0])
for part in path[1:]:
    owner = getattr(owner, part)
function = getattr(owner, name)
def stopped(*args, **kwargs):
    setattr(owner, name, function)
    for stop in (15, 2):
        os.kill(os.getpid(), stop)
    return function(*args, **kwargs)
setattr(owner, name, stopped)
sys.argv[1:] = []
entry.main()
"""
# Before there is a loop, and in the middle of making it.
MAKING = ("service.process.listen._tcp_socket", "socket.socketpair")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("module", ["service.__main__", "service.server"])
@pytest.mark.parametrize("function", MAKING)
def test_a_stop_before_it_is_up_ends_it_with_status_0_and_leaves_nothing_half_made(
    function: str, module: str, workers: str
) -> None:
    program = STOPPED_WITHIN.format(module=module, function=function)
    environ = clean_environment(WEBSOCKET_PORT=str(free_port()), WORKERS=workers)
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("command", OURS)
def test_a_second_stop_while_it_ends_changes_nothing(command: str, workers: str) -> None:
    module = "service.server" if command.endswith("server") else "service.__main__"
    program = STOPPED_WITHIN.format(module=module, function="asyncio.BaseEventLoop.shutdown_asyncgens")
    if (module, workers) == ("service.__main__", "1"):
        program = program.replace("asyncio.BaseEventLoop", "uvicorn.server.Server")
        program = program.replace("shutdown_asyncgens", "shutdown")
    environ = clean_environment(WEBSOCKET_PORT=str(free_port()), WORKERS=workers)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environ, stderr=subprocess.PIPE) as process:
        port = int(environ["WEBSOCKET_PORT"])
        wait_until(lambda: answers(port))
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


IGNORING = """import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("command", OURS)
def test_in_the_background_it_goes_on_when_the_terminal_interrupts(command: str, workers: str, tmp_path: Path) -> None:
    ignoring = tmp_path / "ignoring.py"
    ignoring.write_text(IGNORING)
    bus = tmp_path / "bus"
    with running(f"{ignoring} {command}", WORKERS=workers, WEBSOCKET_BUS=str(bus)) as shell, shell.client() as client:
        os.killpg(shell.process.pid, signal.SIGINT)
        client.hears_nothing_but_itself()
        shell.terminate()
        assert client.close_code() == 1012
        assert shell.process.wait(DEADLINE_S) == 0


def claim(address: object, source: tuple[str, int] | None = None) -> None:
    """Open a WebSocket, and say that 198.51.100.7 does."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.settimeout(60)
        if source is not None:
            client.bind(source)
        client.connect(address)  # type: ignore[arg-type]
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"X-Forwarded-For: 198.51.100.7\r\n\r\n"
        )
        assert client.recv(12) == b"HTTP/1.1 101"


@pytest.mark.parametrize("command", OURS)
def test_it_serves_on_the_socket_that_systemd_passes(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = [sys.executable, "-c", BECOME, str(listener.fileno()), *command.split()]
        environ = clean_environment(LISTEN_FDS="1")
        with subprocess.Popen(arguments, cwd=ROOT, env=environ, pass_fds=[listener.fileno()]) as process:
            try:
                with Peer(listener.getsockname()[1]) as peer:
                    assert peer.status == 101
            finally:
                process.kill()
