"""Your own ASGI application under the runner, as clients and the service manager meet it."""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service.application.connections import LOOK_S, QUIET_LOOKS, HttpConnection, State, protocols
from service.process.descriptors import have_leaked
from service.process.farewell import PatientFarewell
from service.settings import Drain
from tests.ports import free_port
from tests.service.applications import Connection, project, serving, settings
from tests.service.shells import DEADLINE_S, HANDSHAKE, ROOT, Shell, clean_environment, running, wait_until
from tests.service.test_main import BECOME, Manager, manager
from tests.service.transports import FakeTransport, frame, in_a_loop, until, waits_for_nobody_who_has_the_last_answer

__all__ = ["manager"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return project(tmp_path / "home")


def wrap(home: Path, source: str) -> None:
    """Put an application around the plain one."""
    (home / "shop/asgi.py").rename(home / "shop/plain.py")
    (home / "shop/asgi.py").write_text(source)


def be_patient(home: Path, looks: int) -> None:
    """Let the service look so often before it closes a quiet connection: a busy machine holds up clients, too."""
    wrap(
        home,
        "from service.application import connections\nfrom shop.plain import application\n"
        f"connections.QUIET_LOOKS = {looks}\n",
    )


def about(shell: Shell, path: str = "/") -> dict[str, Any]:
    """What the application answers."""
    answer: dict[str, Any] = json.loads(shell.get(path).body)
    return answer


def websocket(shell: Shell, path: str = "") -> ClientConnection:
    return connect(shell.url + path, proxy=None, compression=None, close_timeout=1, open_timeout=DEADLINE_S)


def close_code(client: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(timeout=DEADLINE_S)
    return client.close_code


def started(home: Path, stderr: int = subprocess.PIPE, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A start that fails."""
    command = [sys.executable, "-m", "service"]
    environ = clean_environment(**settings(home, WEBSOCKET_PORT=str(free_port()), **variables))
    return subprocess.run(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=DEADLINE_S
    )


def test_it_is_imported_and_run_where_its_code_is(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    with serving(link) as shell:
        seen = about(shell)
        assert (seen["cwd"], seen["path"], seen["price"]) == (str(home), str(home), 1)


# The runner needs nothing of the notification center, and no more libraries than uvicorn itself.
MEAGER = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {"picows", "prometheus_client", "jwt", "redis", "cryptography", "httptools", "uvloop", "gunicorn"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def meager(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python without these libraries, and of its workers."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(MEAGER)
    return {"PYTHONPATH": str(tmp_path / "site")}


NEEDED = {
    *(
        "service",
        "service.core",
        "service.core.bounds",
        "service.core.status",
        "service.declaration",
        "service.explanations",
    ),
    *("service.origins", "service.settings", "service.__main__", "service.runner"),
}


def test_nothing_of_the_notification_center_is_imported(home: Path, meager: dict[str, str]) -> None:
    with serving(home, **meager) as shell:
        modules = set(about(shell)["modules"])
    assert "httptools" not in modules
    ours = {name for name in modules if name.partition(".")[0] == "service"}
    rooms = ("service.application", "service.process", "service.workers")
    assert {name for name in ours if not name.startswith(rooms)} <= NEEDED
    assert ours.isdisjoint({"service.process.entry", "service.process.drain", "service.workers.mesh"})


def test_the_manager_hears_how_it_is(home: Path, manager: Manager) -> None:
    with serving(home, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="200000") as shell:
        assert manager.heard() == ["READY=1", "STATUS=0 connections, 0 of them WebSockets; 0 requests running"]
        with websocket(shell) as client, Connection(shell.port) as waiting:
            waiting.ask("/wait")
            wait_until(lambda: manager.heard()[1] == "STATUS=2 connections, 1 of them WebSockets; 1 requests running")
            (home / "go").touch()
            shell.terminate()
            assert close_code(client) == 1012
        wait_until(lambda: "STOPPING=1" in manager.heard())
        assert shell.process.wait(DEADLINE_S) == 0


LATE = """
from pathlib import Path
from shop.plain import application as plain

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        import asyncio
        while not Path("go").exists():
            await asyncio.sleep(0.01)
    await plain(scope, receive, send)
"""


def test_it_is_ready_when_its_lifespan_has_started_and_not_before(home: Path, manager: Manager) -> None:
    wrap(home, LATE)
    with serving(home, NOTIFY_SOCKET=manager.path) as shell, Connection(shell.port) as early:
        early.ask()
        manager._socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            manager.heard()
        manager._socket.settimeout(DEADLINE_S)
        (home / "go").touch()
        assert manager.heard()[0] == "READY=1"
        assert early.response().status == 200


FAILING = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette

@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("there is no\\n  database")
    yield

application = Starlette(lifespan=lifespan)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_lifespan_that_fails_is_a_start_that_fails_in_one_line(workers: str, tmp_path: Path) -> None:
    ended = started(project(tmp_path / "home", FAILING), WORKERS=workers)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "could serve" not in line]
    fault = "ERROR uvicorn.error: the application fails to start: shop/asgi.py:7: RuntimeError: there is no database"
    assert lines
    assert all(line.endswith(fault) for line in lines)
    assert len(lines) <= int(workers)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_import_that_fails_is_a_start_that_fails_in_one_line(workers: str, tmp_path: Path) -> None:
    ended = started(project(tmp_path / "home", "import json\nimport rediss\n"), WORKERS=workers)
    assert ended.returncode == 1
    told = "shop.asgi:application cannot be imported: shop/asgi.py:2: ModuleNotFoundError: No module named 'rediss'"
    assert {line for line in ended.stderr.splitlines() if "could serve" not in line} == {told}


def test_why_it_does_not_start_is_said_in_one_piece(tmp_path: Path) -> None:
    """Other workers say it at the same moment, to the same stderr. Here each piece that is written is a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(DEADLINE_S)
        ended = started(project(tmp_path / "home", "import rediss\n"), stderr=theirs.fileno())
        assert ended.returncode == 1
        assert ours.recv(1000).endswith(b"No module named 'rediss'\n")


def test_a_request_that_runs_is_answered_while_it_stops(home: Path) -> None:
    with serving(home) as shell, Connection(shell.port) as client:
        client.ask("/wait")
        wait_until((home / "waiting").exists)
        shell.terminate()
        wait_until(lambda: not accepts(shell))
        (home / "go").touch()
        response = client.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert client.rest() == b""
        assert shell.process.wait(DEADLINE_S) == 0


def accepts(shell: Shell) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", shell.port)) == 0


def test_connections_whose_request_is_still_to_come_are_answered_while_it_stops(home: Path) -> None:
    be_patient(home, round(DEADLINE_S / LOOK_S))
    with serving(home) as shell, Connection(shell.port) as new, Connection(shell.port) as kept:
        kept.ask()
        assert "connection" not in kept.response().headers
        shell.terminate()
        wait_until(lambda: not accepts(shell))
        for client in (new, kept):
            client.ask()
            response = client.response()
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert client.rest() == b""
        assert shell.process.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_a_request_that_comes_slowly_is_not_cut(home: Path) -> None:
    looks = 3 * QUIET_LOOKS
    be_patient(home, looks)
    with serving(home) as shell, Connection(shell.port) as slow:
        slow._socket.sendall(b"GET / HTTP/1.1\r\n")
        about(shell)
        shell.terminate()
        wait_until(lambda: not accepts(shell))
        for _ in range(4):
            time.sleep(LOOK_S * looks / 3)  # it is slow: longer than a connection may be quiet, in all
            slow._socket.sendall(b"X-More: 1\r\n")
        slow._socket.sendall(b"Host: shop\r\n\r\n")
        assert slow.response().status == 200


def test_connections_that_are_quiet_do_not_hold_up_the_stop(home: Path) -> None:
    with (
        serving(home, WEBSOCKET_DRAIN_TIMEOUT="600") as shell,
        Connection(shell.port) as new,
        Connection(shell.port) as kept,
    ):
        kept.ask()
        kept.response()
        shell.terminate()
        assert (new.rest(), kept.rest()) == (b"", b"")
        assert shell.process.wait(DEADLINE_S) == 0


def connection_factory(state: State) -> partial[HttpConnection]:
    """Makes connections of an application that answers requests with 204, and accepts WebSockets."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
        else:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    config = uvicorn.Config(application, log_config=None, interface="asgi3", **protocols())
    config.load()
    return partial(HttpConnection, config=config, server_state=state, app_state={})


@in_a_loop
async def test_a_connection_that_was_accepted_a_moment_before_the_stop_does_not_hold_it_up() -> None:
    state = State(limit=10, is_alone=True, drain=Drain(), patience=10)
    state.is_stopping = True
    ours, client = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(connection_factory(state), ours)
    client.setblocking(False)
    with contextlib.closing(client):
        assert await asyncio.wait_for(loop.sock_recv(client, 1), DEADLINE_S) == b""


def test_a_stream_goes_on_until_the_drain_timeout(home: Path) -> None:
    with serving(home, WEBSOCKET_DRAIN_TIMEOUT="1") as shell, Connection(shell.port) as client:
        client.ask("/stream")
        assert client.head().status == 200
        began = time.monotonic()
        shell.terminate()
        assert b"tick" in client.rest()
        assert time.monotonic() - began > 0.9
        assert shell.process.wait(DEADLINE_S) == 0
        assert "Cancel 1 running task(s)" in shell.log()


def test_a_stream_that_ends_by_itself_is_whole(home: Path) -> None:
    with serving(home) as shell, Connection(shell.port) as client:
        client.ask("/stream")
        client.head()
        shell.terminate()
        wait_until(lambda: not accepts(shell))
        (home / "go").touch()
        assert client.rest().endswith(b"\r\n0\r\n\r\n")
        assert shell.process.wait(DEADLINE_S) == 0


def test_websockets_are_sent_away_one_after_another_within_the_window(home: Path) -> None:
    variables = {"WEBSOCKET_DRAIN_WINDOW": "1", "WEBSOCKET_DRAIN_RATE": "10"}
    with serving(home, **variables) as shell, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(websocket(shell)) for _ in range(4)]
        shell.terminate()
        ended = []
        for thread in [threading.Thread(target=lambda each=each: ended.append((close_code(each), time.monotonic())))
                       for each in clients]:  # fmt: skip
            thread.start()
            stack.callback(thread.join)
        assert shell.process.wait(DEADLINE_S) == 0
    times = [at for _, at in ended]
    assert [code for code, _ in ended] == [1012] * 4
    assert max(times) - min(times) > 0.2  # the last of four has its turn after 0.3 s


def test_websockets_are_sent_away_also_those_that_are_busy(home: Path) -> None:
    with serving(home) as shell, websocket(shell) as quiet, websocket(shell) as busy:

        def talk() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    busy.send("x" * 1000)
                    busy.recv()
                    talking.set()

        talking = threading.Event()
        thread = threading.Thread(target=talk)
        thread.start()
        talking.wait()
        shell.terminate()
        thread.join()
        assert close_code(quiet) == busy.close_code == 1012
        assert shell.process.wait(DEADLINE_S) == 0


def test_a_websocket_that_is_about_to_be_accepted_is_no_error(home: Path) -> None:
    be_patient(home, round(DEADLINE_S / LOOK_S))
    with serving(home) as shell:
        codes: list[int | None] = []

        def open_and_wait() -> None:
            with websocket(shell, "wait") as client:
                codes.append(close_code(client))

        opening = threading.Thread(target=open_and_wait)
        opening.start()
        with Connection(shell.port) as late:
            wait_until((home / "waiting").exists)
            shell.terminate()
            wait_until(lambda: not accepts(shell))
            (home / "go").touch()
            opening.join()
            assert codes == [1012]
            # One whose handshake comes only now is accepted and sent away as well.
            late._socket.sendall(HANDSHAKE + b"\r\n")
            assert late.head().status == 101
            assert late.rest().endswith(b"\x88\x02" + struct.pack("!H", 1012))
        assert shell.process.wait(DEADLINE_S) == 0


DEAF = """
import asyncio, signal, threading, time
from shop.plain import application as plain

async def application(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/deaf":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    if scope["type"] == "http" and scope["path"] == "/blocked":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        time.sleep(3600)
    if scope["type"] == "http" and scope["path"] == "/thread":
        threading.Thread(target=time.sleep, args=(3600,)).start()
    await plain(scope, receive, send)
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/deaf", "/blocked", "/thread"])
def test_an_application_that_does_not_stop_is_ended_in_time(path: str, home: Path) -> None:
    wrap(home, DEAF)
    with serving(home, WEBSOCKET_DRAIN_TIMEOUT="1") as shell, Connection(shell.port) as client:
        client.ask(path)
        assert client.head().status == 200
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
        assert "the application has not stopped within 3 s, and is ended" in shell.log()


IGNORING = """
import signal
from pathlib import Path
from shop.plain import application as plain

signal.signal(signal.SIGTERM, signal.SIG_IGN)

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        signal.signal(signal.SIGTERM, lambda *_: Path("asked").touch())
    elif scope["path"] == "/ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    await plain(scope, receive, send)
"""


def test_an_application_with_handlers_of_its_own_stops_all_the_same(home: Path) -> None:
    wrap(home, IGNORING)
    with serving(home) as shell:
        about(shell)
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
    assert (home / "asked").exists()


def test_an_application_that_ignores_them_once_it_has_started_stops_too(home: Path) -> None:
    wrap(home, IGNORING.replace('lambda *_: Path("asked").touch()', "signal.SIG_IGN"))
    with serving(home) as shell:
        about(shell)
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0


FORKING = """
import multiprocessing
import signal
import time
from shop.plain import application as plain

def work(begun):
    begun.set()
    time.sleep(3600)

async def application(scope, receive, send):
    if scope["type"] == "lifespan" and HANDLER:
        signal.signal(signal.SIGTERM, HANDLER)
    elif scope["type"] == "http":
        context = multiprocessing.get_context("fork")
        begun = context.Event()
        child = context.Process(target=work, args=(begun,))
        child.start()
        begun.wait()  # what comes sooner, Python loses
        child.terminate()
        child.join()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(child.exitcode).encode()})
        return
    await plain(scope, receive, send)
"""


@pytest.mark.parametrize(("handler", "code"), [("None", -signal.SIGTERM), ("lambda *_: exit(3)", 3)])
def test_what_an_application_forks_ends_as_it_is_asked_and_not_when_the_service_would(
    handler: str, code: int, home: Path
) -> None:
    wrap(home, FORKING.replace("HANDLER", f"({handler})"))
    with serving(home, WEBSOCKET_DRAIN_TIMEOUT="1") as shell:
        assert shell.get("/").body == str(int(code)).encode()
        assert "has not stopped" not in shell.log()


@pytest.mark.slow
def test_an_application_that_ignores_them_later_on_stops_within_moments(home: Path) -> None:
    wrap(home, IGNORING)
    with serving(home) as shell:
        about(shell)  # it has begun
        assert catches_sigterm(shell)
        shell.get("/ignore")
        assert not catches_sigterm(shell)
        wait_until(lambda: catches_sigterm(shell))
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0


def catches_sigterm(shell: Shell) -> bool:
    """Source: proc_pid_status(5), `SigCgt`."""
    found = re.search(r"(?m)^SigCgt:\s+(\w+)", Path(f"/proc/{shell.process.pid}/status").read_text())
    assert found is not None
    return bool(int(found[1], 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("source", ["import time\nPath('waiting').touch()\ntime.sleep(3600)"])
def test_a_stop_while_it_is_imported_ends_it_with_status_0(source: str, tmp_path: Path) -> None:
    home = project(tmp_path / "home", f"from pathlib import Path\n{source}")
    command = [sys.executable, "-m", "service"]
    environ = clean_environment(**settings(home, WEBSOCKET_SOCKET=str(tmp_path / "shop.sock")))
    with subprocess.Popen(command, cwd=ROOT, env=environ) as process:
        wait_until((home / "waiting").exists)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


def test_one_connection_too_many_is_refused_with_503(home: Path) -> None:
    limits = {"WEBSOCKET_MAX_CONNECTIONS": "2", "WEBSOCKET_HEADER_TIMEOUT": "60"}
    with serving(home, **limits) as shell, websocket(shell) as first:
        with Connection(shell.port):  # says nothing, and stays, which one that was answered does for 5 s
            wait_until(lambda: shell.get("/").status == 503)
            assert [shell.get("/").status for _ in range(10)] == [503] * 10
            assert shell.log().count("Exceeded concurrency limit") == 1  # for a minute: anybody can have it written
            with pytest.raises(InvalidStatus) as refused:
                websocket(shell)
            assert refused.value.response.status_code == 503
            first.send("still here")
            assert first.recv() == "still here"
        wait_until(lambda: shell.get("/").status == 200)


# `/early` and `/raise` answer before the body has come, `/gone` waits until its client has gone, `/begin` meanwhile.
EARLY = """
from pathlib import Path
from shop.plain import application as plain

async def application(scope, receive, send):
    if scope.get("path") in ("/early", "/last"):
        fields = [(b"connection", b"close")] if scope["path"] == "/last" else []
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0"), *fields]})
        await send({"type": "http.response.body"})
    elif scope.get("path") == "/raise":
        raise ValueError
    elif scope.get("path") in ("/gone", "/begin"):
        if scope["path"] == "/begin":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        Path("heard").touch()
    elif scope.get("path") == "/trailers":
        while (await receive()).get("more_body"):
            pass
        names = b" ".join(name for name, value in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-names", names)]})
        await send({"type": "http.response.body"})
    else:
        await plain(scope, receive, send)
"""
of_each_library = pytest.mark.parametrize("libraries", ["all", "meager"])


@pytest.fixture
def variables(libraries: str, meager: dict[str, str]) -> dict[str, str]:
    return meager if libraries == "meager" else {}


@of_each_library
def test_an_answer_arrives_that_ends_the_connection_though_the_client_is_still_sending(
    home: Path, variables: dict[str, str]
) -> None:
    wrap(home, EARLY)
    length = 5_000_000
    with serving(home, **variables) as shell:
        for path, status in (("/last", 413), ("/raise", 500), ("/chunks", 400)):
            for _ in range(5):
                with Connection(shell.port) as client:
                    framing = "Transfer-Encoding: chunked" if status == 400 else f"Content-Length: {length}"
                    head = f"POST {path} HTTP/1.1\r\nHost: shop\r\n{framing}\r\n\r\n"
                    client._socket.sendall(head.encode() + b"z" * length)
                    assert client.head().status == status
                    client.rest()


@of_each_library
def test_a_close_frame_arrives_though_the_client_is_still_sending(home: Path, variables: dict[str, str]) -> None:
    with serving(home, WEBSOCKET_MAX_MESSAGE_SIZE="128", **variables) as shell:
        for _ in range(10):
            with websocket(shell) as client:
                client.send("x" * 5_000_000)
                assert close_code(client) == 1009


def test_a_connection_on_which_nothing_happens_is_closed_and_no_other_one(home: Path) -> None:
    wrap(home, EARLY)
    early = b"POST /early HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n"
    with (
        serving(home, WEBSOCKET_HEADER_TIMEOUT="1") as shell,
        contextlib.ExitStack() as stack,
        websocket(shell) as lasting,
    ):
        clients = [stack.enter_context(Connection(shell.port)) for _ in range(6)]
        silent, half, rest, more, slow, waiting = clients
        half._socket.sendall(b"GET / HTTP/1.1\r\nX")
        for client, piece in ((rest, b"hello"), (more, b"he")):
            client._socket.sendall(early)
            assert client.head().status == 413
            client._socket.sendall(piece)
        slow._socket.sendall(early.replace(b"early", b"slow") + b"hell")
        waiting.ask("/wait")
        assert [client.rest() for client in (silent, half, rest, more)] == [b""] * 4
        slow._socket.sendall(b"o")
        assert slow.response().status == 200
        (home / "go").touch()
        assert waiting.response().status == 200
        lasting.send("still here")
        assert lasting.recv() == "still here"


def knock() -> tuple[FakeTransport, HttpConnection]:
    """A connection that has been accepted, as transport and protocol."""
    transport = FakeTransport()
    connection = connection_factory(State(limit=10, is_alone=True, drain=Drain(), patience=10))()
    transport.set_protocol(connection)
    connection.connection_made(transport)
    return transport, connection


@in_a_loop
async def test_a_request_that_came_while_the_loop_was_held_up_is_not_taken_for_silence() -> None:
    transport, connection = knock()
    transport.ends[1].send(b"GET")
    connection.timeout_keep_alive_handler()
    assert transport.done == []
    transport.ends[0].recv(3)
    connection.timeout_keep_alive_handler()
    assert transport.done == ["close"]
    connection.connection_lost(None)


@in_a_loop
async def test_who_does_not_take_the_last_answer_is_not_waited_for_for_ever() -> None:
    transport, connection = knock()
    transport.buffered = 1
    transport.deliver(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    await until(lambda: "write_eof" in transport.done)
    assert isinstance(transport.protocol, PatientFarewell)
    assert connection.connections == {connection}
    connection.transport.write(b"more")
    waits_for_nobody_who_has_the_last_answer(transport, connection.shutdown)
    assert connection.connections == set()


@in_a_loop
async def test_a_handshake_that_is_refused_ends_like_any_other_answer() -> None:
    transport, connection = knock()
    transport.deliver(HANDSHAKE.replace(b"13", b"12") + b"\r\n")
    assert b"".join(transport.writes).startswith(b"HTTP/1.1 400 ")
    assert isinstance(transport.protocol, PatientFarewell)
    assert transport.done == ["pause_reading", "resume_reading", "write_eof"]  # else the farewell gets nothing to read
    transport.protocol.connection_lost(None)
    assert connection.connections == set()


@in_a_loop
async def test_a_websocket_that_had_to_wait_is_as_any_other_one() -> None:
    transport, connection = knock()
    transport.deliver(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n" + HANDSHAKE + b"\r\n")
    await until(lambda: b" 101 " in b"".join(transport.writes))
    assert connection.timeout_keep_alive_task is None
    assert transport.most == 64 * 1024
    assert transport.done[-1] == "resume_reading"
    transport.protocol.connection_lost(None)


@of_each_library
def test_who_leaves_is_missed_by_the_request_whose_turn_it_is(home: Path, variables: dict[str, str]) -> None:
    wrap(home, EARLY)
    with serving(home, **variables) as shell:
        with Connection(shell.port) as client:
            client._socket.sendall(
                b"".join(b"GET /%b HTTP/1.1\r\nHost: shop\r\n\r\n" % path for path in (b"", b"gone", b""))
            )
            assert client.response().status == 200
            client._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until((home / "heard").exists)
        about(shell)
        assert "Traceback" not in shell.log()


@of_each_library
def test_a_handshake_waits_until_the_requests_before_it_are_answered(home: Path, variables: dict[str, str]) -> None:
    request = b"GET /wait HTTP/1.1\r\nHost: shop\r\n\r\n"
    with serving(home, **variables) as shell, Connection(shell.port) as client:
        client._socket.sendall(request * 2 + HANDSHAKE + b"\r\n")
        wait_until((home / "waiting").exists)
        about(shell)
        (home / "go").touch()
        assert [client.response().status, client.response().status, client.head().status] == [200, 200, 101]
        client._socket.sendall(frame(1, b"hello"))
        assert client._reader.read(7) == b"\x81\x05hello"


@of_each_library
def test_trailers_are_no_fields_of_the_head_and_http_1_0_is_not_told_to_continue(
    home: Path, variables: dict[str, str]
) -> None:
    wrap(home, EARLY)
    with serving(home, **variables) as shell:
        with Connection(shell.port) as client:
            head = b"POST /trailers HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
            client._socket.sendall(head + b"0\r\nAuthorization: x\r\n\r\n")
            assert client.head().headers["x-names"] == "host transfer-encoding"
        for version, expected in (("1.1", [100, 200]), ("1.0", [200])):
            with Connection(shell.port) as client:
                fields = "Host: shop\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
                client._socket.sendall(f"POST / HTTP/{version}\r\n{fields}".encode())
                statuses = [client.head().status] if version == "1.1" else []
                about(shell)
                client._socket.sendall(b"hi")
                assert [*statuses, client.head().status] == expected


@of_each_library
def test_what_is_not_http_takes_no_answer_of_another_request(home: Path, variables: dict[str, str]) -> None:
    wrap(home, EARLY)
    with serving(home, **variables) as shell:
        with Connection(shell.port) as client:
            client.ask("/wait")
            wait_until((home / "waiting").exists)
            client._socket.sendall(b"not HTTP\r\n\r\n")
            about(shell)
            (home / "go").touch()
            assert client.response().status == 200
            assert client.rest()[:13] in (b"", b"HTTP/1.1 400 ")
        chunked = b"POST /%b HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n"
        with Connection(shell.port) as client:
            client._socket.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n" + chunked % b"gone")
            assert client.response().status == 200
            assert client.rest().startswith(b"HTTP/1.1 400 ")
        with Connection(shell.port) as client:
            head, bad, rest = (chunked % b"begin").partition(b"not")
            client._socket.sendall(head)
            assert client.head().status == 200
            client._socket.sendall(bad + rest)
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in client.rest()
        wait_until((home / "heard").exists)
        assert "Traceback" not in shell.log()


# The last release of the library for Python 3.10 has no answer of its own.
_TOO_MANY = 431 if sys.version_info >= (3, 11) else 400
LONG_HEADS = {
    "all cookies of a domain": (101, b"Cookie: a=" + b"x" * 32_766 + b"\r\n"),
    "many fields": (101, b"".join(b"X-%d: x\r\n" % number for number in range(300))),
    "too many fields": (_TOO_MANY, b"".join(b"X-%d: x\r\n" % number for number in range(1100))),
    "a body": (400, b"Content-Length: 2\r\n"),
}


@of_each_library
def test_every_handshake_is_answered(home: Path, variables: dict[str, str]) -> None:
    with serving(home, **variables) as shell:
        for expected, fields in LONG_HEADS.values():
            with Connection(shell.port) as client:
                client._socket.sendall(HANDSHAKE + fields + b"\r\n")
                assert client.head().status == expected
                if expected != 101:
                    client.rest()


@of_each_library
def test_a_head_may_come_in_pieces_and_be_as_long_as_nginx_passes_it_on(home: Path, variables: dict[str, str]) -> None:
    with serving(home, **variables) as shell, Connection(shell.port) as client:
        client._socket.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=" + b"x" * 32_766)
        about(shell)
        client._socket.sendall(b"\r\nAuthorization: Negotiate " + b"x" * 40_000)
        about(shell)
        client._socket.sendall(b"\r\n\r\n")
        assert client.response().status == 200


def test_a_text_that_is_not_utf_8_closes_its_websocket_without_a_traceback(home: Path) -> None:
    with serving(home) as shell, websocket(shell) as client:
        client.send(b"\xff", text=True)
        assert close_code(client) == 1007
        assert "Traceback" not in shell.log()


def test_a_message_that_is_too_long_closes_its_websocket(home: Path) -> None:
    with serving(home, WEBSOCKET_MAX_MESSAGE_SIZE="128") as shell, websocket(shell) as client:
        client.send("x" * 128)
        assert client.recv() == "x" * 128
        client.send("x" * 129)
        assert close_code(client) == 1009


def test_a_websocket_that_answers_no_ping_is_closed(home: Path) -> None:
    variables = {"WEBSOCKET_PING_INTERVAL": "1", "WEBSOCKET_PING_TIMEOUT": "1"}
    with serving(home, **variables) as shell, Connection(shell.port) as silent:
        silent._socket.sendall(HANDSHAKE + b"\r\n")
        assert silent.head().status == 101
        assert b"\x89" in silent.rest()


def test_what_it_logs_and_prints_is_there_at_once_and_no_query_ever(home: Path) -> None:
    with serving(home, LOG_LEVEL="info", PYTHONUNBUFFERED="") as shell:
        shell.get("/log?token=secret")
        with websocket(shell, "?token=secret"):
            wait_until(lambda: "[accepted]" in shell.log())
        assert " INFO shop: sold an item\n" in shell.log()
        assert "printed at once\n" in shell.log()
        assert "secret" not in shell.log()


def test_it_serves_on_the_socket_that_systemd_passes(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = [sys.executable, "-c", BECOME, str(listener.fileno()), "-m", "service"]
        environ = clean_environment(LISTEN_FDS="1", **settings(home))
        with subprocess.Popen(arguments, cwd=ROOT, env=environ, pass_fds=[listener.fileno()]) as process:
            try:
                with Connection(listener.getsockname()[1]) as client:
                    client.ask()
                    assert client.response().status == 200
            finally:
                process.kill()


def test_nginx_on_a_unix_socket_says_who_comes_and_on_tcp_beside_it_nobody_can(home: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "shop.sock")
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"
        b"Connection: close\r\n\r\n"
    )
    with running("-m service", answers_on=path, **settings(home, WEBSOCKET_SOCKET=path)) as shell:
        with socket.socket(socket.AF_UNIX) as nginx:
            nginx.connect(path)
            nginx.sendall(request)
            answer = nginx.makefile("rb").read()
        with socket.create_connection(("127.0.0.1", shell.port), source_address=("127.0.0.2", 0)) as client:
            client.sendall(request)
            forged = client.makefile("rb").read()
    assert b'"client": ["198.51.100.7", 0]' in answer
    assert b'"scheme": "https"' in answer
    assert b'"server": ["127.0.0.1", 80]' in answer
    assert b'"client": ["127.0.0.2", ' in forged
    assert b'"scheme": "http"' in forged


class Installed:
    """Releases of an application as they are on a host; each has its own price."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / ".env").write_text("WORKERS='2'\nWEBSOCKET_APP='shop.asgi:application'\n")
        self.switch(1)

    def switch(self, price: int) -> None:
        release = self.home / f"releases/{price}"
        project(release / "app")
        (release / "app/shop/prices.py").write_text(f"PRICE = {price}\n")
        (release / "service").symlink_to(ROOT / "service")
        (release / "venv").symlink_to(sys.prefix)
        (self.home / "next").symlink_to(release)
        (self.home / "next").rename(self.home / "current")

    def environ(self) -> dict[str, str]:
        return {
            **settings(self.home / "current/app", WORKERS="2"),
            "WEBSOCKET_ENV_FILE": str(self.home / ".env"),
            "WEBSOCKET_CODE": str(self.home / "current"),
            "RUNTIME_DIRECTORY": str(self.home),
        }


def reload(installed: Installed) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "service.workers.reload"]
    environ = {**os.environ, **installed.environ()}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)


def prices(shell: Shell) -> set[int]:
    return {about(shell)["price"] for _ in range(20)}


@pytest.mark.slow
def test_a_reload_brings_the_release_that_is_current_then(tmp_path: Path) -> None:
    installed = Installed(tmp_path)
    with running("-m service", **installed.environ()) as shell:
        assert prices(shell) == {1}
        installed.switch(2)
        assert reload(installed).returncode == 0
        assert prices(shell) == {2}
        assert about(shell)["cwd"] == str(tmp_path / "releases/2/app")
        installed.switch(3)
        (tmp_path / "releases/3/app/shop/prices.py").write_text("PRICE = 1 / 0\n")
        failed = reload(installed)
        assert (failed.returncode, failed.stderr) == (1, "the new worker does not start; the others stay as they are\n")
        assert prices(shell) == {2}
        fault = "shop.asgi:application cannot be imported: shop/prices.py:1: ZeroDivisionError: division by zero"
        assert fault in shell.log()


class Load:
    """Clients that ask all the time, half of them each time on a new connection, as nginx does."""

    def __init__(self, port: int, clients: int) -> None:
        self.port = port
        self.is_over = False
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        work = (self.ask_anew, self.ask_again)
        self._threads = [threading.Thread(target=work[number % 2]) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        for thread in self._threads:
            thread.join()

    def ask_anew(self) -> None:
        while not self.is_over:
            self._ask("new", 1)

    def ask_again(self) -> None:
        while not self.is_over:
            self._ask("kept", 1000)

    def _ask(self, kind: str, times: int) -> None:
        try:
            with Connection(self.port) as connection:
                for _ in range(times):
                    connection.ask("/", "POST")
                    response = connection.response()
                    self.answered[kind if response.status == 200 else str(response.status)] += 1
                    if self.is_over or response.headers.get("connection") == "close":
                        break
        except (OSError, LookupError, ValueError) as error:
            self.failed[f"{kind}: {error!r}"] += 1


COUNTING = """
import os
from shop.plain import application as plain

posts = os.open("posts", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

async def application(scope, receive, send):
    if scope["type"] == "http" and scope["method"] == "POST":
        os.write(posts, b"x")
    await plain(scope, receive, send)
"""


@pytest.mark.slow
@of_each_library
def test_no_request_fails_while_workers_are_replaced_again_and_again(home: Path, variables: dict[str, str]) -> None:
    wrap(home, COUNTING)
    with serving(home, WORKERS="2", LOG_LEVEL="info", **variables) as shell:
        with Load(shell.port, 8) as load:
            for number in range(1, 5):
                shell.process.send_signal(signal.SIGHUP)
                wait_until(lambda: shell.log().count("all workers have been replaced") == number)  # noqa: B023
        assert load.failed == Counter()
        assert set(load.answered) == {"new", "kept"}
        assert len((home / "posts").read_bytes()) == sum(load.answered.values())


@pytest.mark.slow
def test_no_request_fails_while_the_service_is_started_again_behind_the_socket_of_systemd(home: Path) -> None:
    wrap(home, COUNTING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = [sys.executable, "-c", BECOME, str(listener.fileno()), "-m", "service"]
        environ = clean_environment(LISTEN_FDS="1", **settings(home))
        with Load(listener.getsockname()[1], 8) as load:
            for _ in range(3):
                with subprocess.Popen(arguments, cwd=ROOT, env=environ, pass_fds=[listener.fileno()]) as process:
                    before = sum(load.answered.values())
                    wait_until(lambda: sum(load.answered.values()) > before + 100)  # noqa: B023
                    process.terminate()
                    assert process.wait(DEADLINE_S) == 0
            last = subprocess.Popen(arguments, cwd=ROOT, env=environ, pass_fds=[listener.fileno()])
            load.is_over = True
        last.kill()
        last.wait()
    assert load.failed == Counter()
    assert len((home / "posts").read_bytes()) == sum(load.answered.values())


DYING = """
import os, resource
from shop.plain import application as plain

async def application(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/die":
        os._exit(7)
    if scope["type"] == "http" and scope["path"] == "/leak":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        leaked.extend(os.dup(0) for _ in range(64))
    await plain(scope, receive, send)

leaked = []
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "said"), [("1", "is ended"), ("2", "it is killed")])
def test_an_application_that_takes_too_long_to_begin_is_ended_and_says_so(
    workers: str, said: str, tmp_path: Path
) -> None:
    home = project(tmp_path / "home", "import time\ntime.sleep(600)\n")
    ended = started(home, WORKERS=workers, WEBSOCKET_APP_START="1")
    assert ended.returncode == 1
    assert "does not serve after 1 s (app.start)" in ended.stderr
    assert said in ended.stderr


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(home: Path) -> None:
    wrap(home, DYING)
    with serving(home, WORKERS="2") as shell:
        pid = about(shell)["pid"]
        with Connection(shell.port) as client:
            client.ask("/die")
            assert client.rest() == b""
        wait_until(lambda: "ended with 7; another one takes its place" in shell.log())
        wait_until(lambda: len({about(shell)["pid"] for _ in range(20)} - {pid}) > 0)


@pytest.mark.slow
def test_a_worker_whose_loop_is_held_up_is_replaced(home: Path) -> None:
    wrap(home, DEAF)
    with serving(home, WORKERS="2") as shell, Connection(shell.port) as client:
        client.ask("/blocked")
        assert client.head().status == 200
        wait_until(lambda: "gave no sign of life for too long; it is killed" in shell.log())
        wait_until(lambda: "another one takes its place" in shell.log())
        assert about(shell)["price"] == 1
        # With the place where it was.
        number = 1 + DEAF[: DEAF.index("time.sleep(3600)")].count("\n")
        assert f'asgi.py", line {number} in application' in shell.log()


@pytest.mark.slow
def test_a_worker_may_hold_its_loop_up_for_as_long_as_others_allow(home: Path) -> None:
    wrap(home, DEAF.replace("time.sleep(3600)", "time.sleep(15)"))
    with serving(home, WORKERS="2") as shell, Connection(shell.port) as client:
        client.ask("/blocked")
        assert client.head().status == 200
        time.sleep(14)
        wait_until(lambda: about(shell)["price"] == 1)
        assert "sign of life" not in shell.log()


@pytest.mark.slow
def test_a_worker_that_leaks_descriptors_says_so_and_is_replaced(home: Path) -> None:
    wrap(home, DYING)
    with serving(home, WORKERS="2") as shell:
        with Connection(shell.port) as client:
            client.ask("/leak")
            client.head()
        wait_until(lambda: "the application opens more than it closes; it is restarted" in shell.log())
        wait_until(lambda: "ended with 1; another one takes its place" in shell.log())
        assert about(shell)["price"] == 1


def test_descriptors_that_clients_have_are_no_leak() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(number) for number in os.listdir("/proc/self/fd")) + 10
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            taken.extend(os.dup(2) for _ in range(most))
        leaked = have_leaked(0), have_leaked(most // 2 + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    assert leaked == (True, False)
    assert not have_leaked(0)


FRAMEWORKS = """
import asyncio
from pathlib import Path
from fastapi import BackgroundTasks, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route

async def events(request):
    async def tell():
        yield b"data: begun\\n\\n"
        while not Path("go").exists():
            await asyncio.sleep(0.01)
        yield b"data: done\\n\\n"
    return StreamingResponse(tell(), media_type="text/event-stream")

api = FastAPI()

@api.post("/orders")
async def order(tasks: BackgroundTasks, number: int = 1):
    async def deliver():
        while not Path("go").exists():
            await asyncio.sleep(0.01)
        Path("delivered").touch()
    tasks.add_task(deliver)
    return {"number": number}

@api.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())

application = Starlette(routes=[Route("/events", events), Mount("/", api)])
"""


def test_events_and_background_tasks_of_frameworks_finish_while_it_stops(tmp_path: Path) -> None:
    home = project(tmp_path / "home", FRAMEWORKS)
    with serving(home) as shell, Connection(shell.port) as events, Connection(shell.port) as orders:
        with websocket(shell, "ws") as client:
            client.send("hello")
            assert client.recv() == "hello"
            events.ask("/events")
            assert events.head().headers["content-type"].startswith("text/event-stream")
            orders.ask("/orders?number=7", "POST")
            assert orders.response().body == b'{"number":7}'
            shell.terminate()
            assert close_code(client) == 1012
        wait_until(lambda: not accepts(shell))
        (home / "go").touch()
        assert b"data: done" in events.rest()
        assert shell.process.wait(DEADLINE_S) == 0
        assert (home / "delivered").exists()
