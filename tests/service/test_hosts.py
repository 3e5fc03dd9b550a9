"""Several hosts, each a real service with a bus of its own, over a real engine."""

import contextlib
import itertools
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from service.core.bus import PATIENCE_S
from service.mint import add_key, mint
from tests.service.processes import several
from tests.service.releases import release_before
from tests.service.servers import PROGRAMS, Server, serving
from tests.service.service_manager import Unit
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Shell, running, wait_until
from tests.service.test_reload import Deployment

pytestmark = pytest.mark.slow


def health(shell: Shell) -> dict[str, object]:
    """What /health says."""
    said: dict[str, object] = json.loads(shell.get("/health").body)
    return said


class Client:
    """A client of nc.v1 that has an address."""

    def __init__(self, shell: Shell | Unit, uuid: str) -> None:
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(
            connect(shell.url, proxy=None, compression=None, subprotocols=[Subprotocol("nc.v1")], close_timeout=1)
        )
        self.hear()
        answer = self.ask(type="hello", uuid=uuid)
        assert answer["type"] == "ok", answer

    def hear(self) -> dict[str, object]:
        frame: dict[str, object] = json.loads(self._socket.recv(timeout=DEADLINE_S))
        return frame

    def say(self, **frame: object) -> None:
        self._socket.send(json.dumps(frame))

    def ask(self, **frame: object) -> dict[str, object]:
        """The next frame after a request."""
        self.say(id=1, **frame)
        return self.hear()

    def send(self, uuid: str, message: object = "hi", **more: object) -> dict[str, object]:
        """What a message to an address is answered with."""
        return self.ask(type="send", recipient_uuid=uuid, message=message, **more)

    def close_code(self) -> int:
        """Wait until the service closes the connection, and tell why."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.hear()
        code = self._socket.close_code
        assert code is not None
        return code

    def close(self) -> None:
        self._open.close()


@contextlib.contextmanager
def host(kind: str, name: str, home: Path, url: str, **more: str) -> Iterator[Shell]:
    """A host with one worker."""
    variables = {"WEBSOCKET_ENGINE_URL": url, "WEBSOCKET_ENGINE_HOST": name, "WEBSOCKET_ENGINE_SILENCE": "2", **more}
    with running(COMMANDS[kind], WEBSOCKET_BUS=str(home / f"bus-{name}"), LOG_LEVEL="info", **variables) as shell:
        yield shell


@pytest.fixture(params=PROGRAMS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(request.param, tmp_path) as server:
        yield server


def talk(here: Client, there: Client) -> None:
    """Both reach each other, with receipts and in a group."""
    assert here.send("there")["online"] == 1
    assert there.hear()["message"] == "hi"
    assert here.send("there", ack="delivered")["receipts"] == 1
    there.say(type="ack", key=there.hear()["key"])
    assert here.hear()["type"] == "delivered"
    for client in (here, there):
        assert client.ask(type="join", group="g")["type"] == "ok"
    wait_until(lambda: there.ask(type="send", group="g", message="all", ack="accepted")["online"] == 1)
    assert here.hear()["group"] == "g"


@pytest.mark.parametrize("kind", COMMANDS)
def test_clients_of_two_hosts_reach_each_other_in_every_shell(kind: str, engine: Server, tmp_path: Path) -> None:
    with host(kind, "a", tmp_path, engine.url) as a, host(kind, "b", tmp_path, f"redis://127.0.0.1:{engine.port}") as b:
        talk(Client(a, "here"), Client(b, "there"))
        assert "Traceback" not in a.log() + b.log()


def test_workers_and_hosts_are_one(engine: Server, tmp_path: Path) -> None:
    settings = {"WEBSOCKET_ENGINE_URL": engine.url}
    with (
        several("runner", 2, tmp_path / "a", WEBSOCKET_ENGINE_HOST="a", **settings) as a,
        several("standalone", 2, tmp_path / "b", WEBSOCKET_ENGINE_HOST="b", **settings) as b,
    ):
        clients = []
        for number, processes in enumerate((a, a, b, b)):
            with processes.only(processes.pids()[number % 2]):
                clients.append(Client(processes.shell, f"client {number}"))
        for number, client in enumerate(clients):
            for other in range(4):
                if other != number:
                    assert client.send(f"client {other}", [number])["online"] == 1
                    assert clients[other].hear()["message"] == [number]
        assert clients[0].send("nobody")["code"] == 114
        a.kill(a.pids()[1])  # the other worker of the host says so
        wait_until(lambda: clients[2].send("client 1")["code"] == 114)


def test_a_host_of_the_release_before_and_one_of_this_are_one_also_when_workers_are_replaced(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(serving(PROGRAMS[0], tmp_path))
        settings = {"WEBSOCKET_ENGINE_URL": engine.url}

        def begins(name: str, at: str) -> Shell:
            begun = several("runner", 2, tmp_path / name, at, WEBSOCKET_ENGINE_HOST=name, **settings)
            return stack.enter_context(begun).shell

        def all_reach(*shells: Shell) -> None:
            for one, other in itertools.permutations(shells, 2):
                here, there = Client(one, "here"), Client(other, "there")
                talk(here, there)
                assert here.ask(type="presence", uuids=["there"], watch=True)["online"] == ["there"]
                there.close()
                assert here.hear() == {"type": "presence", "uuid": "there", "state": "offline"}
                here.close()

        before = begins("b", release_before(tmp_path / "before"))
        deployment = Deployment(tmp_path / "a", "runner", stack, WEBSOCKET_ENGINE_HOST="a", **settings)
        this = deployment.workers.shell
        all_reach(this, before)
        client, watcher = Client(this, "client"), Client(before, "watcher")
        # The other host hears of it a moment later.
        wait_until(lambda: watcher.ask(type="presence", uuids=["client"], watch=True)["online"] == ["client"])
        deployment.reload_to(2)
        assert watcher.send("client")["online"] == 1
        assert client.hear()["message"] == "hi"
        client.close()
        all_reach(this, before)
        before.terminate()
        before.process.wait(DEADLINE_S)
        all_reach(this, begins("c", str(ROOT)))
        for shell in (this, before):
            assert "Traceback" not in shell.log()
            assert "the bus does not understand" not in shell.log()


def test_an_address_is_one_on_all_hosts(engine: Server, tmp_path: Path) -> None:
    with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, engine.url) as b:
        first = Client(a, "bob")
        with pytest.raises(AssertionError, match="address in use"):
            Client(b, "bob")
        assert first.send("bob")["type"] in ("ok", "msg")


def test_without_an_engine_its_library_is_not_loaded(tmp_path: Path) -> None:
    with running(COMMANDS["runner"]) as shell:
        assert shell.get("/livez").status == 200
        assert "hiredis" not in Path(f"/proc/{shell.process.pid}/maps").read_text()
    with serving("redis-server", tmp_path) as server, host("runner", "a", tmp_path, server.url) as shell:
        assert shell.get("/livez").status == 200
        assert "hiredis" in Path(f"/proc/{shell.process.pid}/maps").read_text()


def test_health_and_figures_say_how_it_stands_with_other_hosts(engine: Server, tmp_path: Path) -> None:
    with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, engine.url):
        wait_until(lambda: health(a)["hosts"] == 2)
        assert (health(a)["status"], health(a)["engine"]) == ("healthy", "up")
        figures = a.get("/metrics").body.decode()
        assert "wsbundle_engine_up 1.0" in figures
        assert "wsbundle_engine_links 1.0" in figures
        engine.kill()
        wait_until(lambda: health(a)["engine"] == "alone")
        assert a.get("/readyz").status == 200
        figures = a.get("/metrics").body.decode()
        assert "wsbundle_engine_up 0.0" in figures
        assert 'wsbundle_engine_link_ends_total{why="silence"} 1.0' in figures


def test_a_worker_of_another_host_that_is_stuck_holds_up_nobody_who_looks(engine: Server, tmp_path: Path) -> None:
    def looked() -> tuple[float, dict[str, Any]]:
        began = time.monotonic()
        other: dict[str, Any] = json.loads(a.get("/stats").body)["hosts"][1]
        return time.monotonic() - began, other

    longer = {"WEBSOCKET_ENGINE_SILENCE": "60"}
    with (
        host("runner", "a", tmp_path, engine.url, **longer) as a,
        host("runner", "b", tmp_path, engine.url, **longer) as b,
    ):
        wait_until(lambda: health(a)["hosts"] == 2)
        bob = Client(b, "bob")
        bob.send("bob")
        wait_until(lambda: looked()[1]["messages_routed"] == 1)
        b.process.send_signal(signal.SIGSTOP)
        told_at = looked()[1]["stale_since"]
        looks = [looked() for _ in range(5)]
        assert min(seconds for seconds, _ in looks) < PATIENCE_S / 2
        shown = {(each["messages_routed"], each["workers_counted"], each["stale_since"]) for _, each in looks}
        assert shown == {(1, 0, told_at)}
        b.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "stale_since" not in looked()[1])


def test_without_an_engine_health_and_figures_are_as_they_were() -> None:
    with running(COMMANDS["runner"]) as shell:
        assert set(health(shell)) == {"status", "connections"}
        assert "engine" not in shell.get("/metrics").body.decode() + shell.get("/stats").body.decode()


def test_a_publication_for_nobody_is_refused_while_hosts_are_cut_off(tmp_path: Path) -> None:
    """Over HTTP, as 117 says it to a client."""
    engine = Server("redis-server", tmp_path)
    keys = tmp_path / "keys.json"
    add_key(str(keys), "HS256")
    token = mint(str(keys), "alice", 600, ["bob"])
    with host("runner", "a", tmp_path, engine.url, WEBSOCKET_KEYS=str(keys)) as a:
        request = urllib.request.Request(
            f"http://127.0.0.1:{a.port}/publish/bob", b"hi", {"Authorization": f"Bearer {token}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=DEADLINE_S)
        with refused.value as error:
            assert (error.code, error.headers["Retry-After"]) == (503, "1")
            assert b"Other hosts cannot be reached now" in error.read()
