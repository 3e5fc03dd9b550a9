"""What an engine does to a host that refuses it, is full, speaks another language or is followed by another one."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.generator.certificate_maker import Pair, pair
from tests.ports import free_port
from tests.service.servers import PROGRAMS, Relay, Server, serving
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, clean_environment, wait_until
from tests.service.test_hosts import Client, host, talk

pytestmark = pytest.mark.slow

USER = ("chat", "secret")
# What a user of the engine may at most, and does need.
RIGHTS = ("on", f">{USER[1]}", "resetchannels", "&nc:1:center:*", "-@all", "+hello", "+info", "+publish", "+subscribe")


@pytest.fixture(params=PROGRAMS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(request.param, tmp_path) as server:
        yield server


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{USER[1]}\n")
    return file


def as_user(password: Path) -> dict[str, str]:
    return {"WEBSOCKET_ENGINE_USER": USER[0], "WEBSOCKET_ENGINE_PASSWORD_FILE": str(password)}


def let(engine: Server, *rights: str) -> None:
    """Give the user these rights, and nobody else any."""
    assert engine.ask("ACL", "SETUSER", USER[0], "reset", *rights) == "+OK\r\n"


def refused(kind: str, tmp_path: Path, url: str, **more: str) -> str:
    """What a service says that does not start."""
    settings = {
        "WEBSOCKET_PORT": str(free_port()),
        "WEBSOCKET_PING_INTERVAL": "60",
        "WEBSOCKET_PING_TIMEOUT": "30",
        "WEBSOCKET_ENGINE_URL": url,
        "WEBSOCKET_ENGINE_HOST": "a",
        **more,
    }
    done = subprocess.run(
        [sys.executable, *COMMANDS[kind].format(**settings).split()],
        cwd=ROOT,
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -signal.SIGKILL), said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("kind", ["runner", "gunicorn", "standalone"])
def test_a_wrong_password_is_said_once_and_ends_the_start(
    kind: str, engine: Server, password: Path, tmp_path: Path
) -> None:
    let(engine, *RIGHTS)
    password.write_text("wrong\n")
    said = refused(kind, tmp_path, engine.url, **as_user(password))
    assert said.count("does not accept user chat") == 1
    assert "check engine.user and the password in" in said


def test_a_password_that_is_missing_ends_the_start(engine: Server, tmp_path: Path) -> None:
    engine.ask("ACL", "SETUSER", "default", "resetpass", ">secret")
    assert "does not accept user default" in refused("runner", tmp_path, engine.url)
    missing = refused("runner", tmp_path, engine.url, WEBSOCKET_ENGINE_PASSWORD_FILE=str(tmp_path / "nothing"))
    assert f"{tmp_path}/nothing cannot be read" in missing


@pytest.mark.parametrize("missing", ["+publish", "+subscribe", "&nc:1:center:*"])
def test_a_right_that_is_missing_ends_the_start(missing: str, engine: Server, password: Path, tmp_path: Path) -> None:
    let(engine, *(right for right in RIGHTS if right != missing))
    assert "refuses the service" in refused("runner", tmp_path, engine.url, **as_user(password))


def test_these_rights_are_enough(engine: Server, password: Path, tmp_path: Path) -> None:
    let(engine, *RIGHTS)
    with (
        host("runner", "a", tmp_path, engine.url, **as_user(password)) as a,
        host("runner", "b", tmp_path, engine.url, **as_user(password)) as b,
    ):
        talk(Client(a, "here"), Client(b, "there"))
        # While it runs, each host goes on alone, and is whole again when the password is right again.
        engine.ask("ACL", "SETUSER", USER[0], "resetpass", ">another")
        engine.ask("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: "does not accept user chat" in a.log())
        here = Client(a, "local")
        wait_until(lambda: here.send("there")["type"] == "error")
        password.write_text("another\n")
        wait_until(lambda: here.send("there").get("online") == 1)
        assert a.log().count("does not accept user chat") == 1


def test_an_engine_that_takes_the_connection_and_refuses_the_rest_is_not_back(
    engine: Server, password: Path, tmp_path: Path
) -> None:
    let(engine, *RIGHTS)
    with host("runner", "a", tmp_path, engine.url, **as_user(password)) as a:
        Client(a, "here")  # so that it has started
        let(engine, *(right for right in RIGHTS if right != "+subscribe"))
        engine.ask("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: "refuses the service" in a.log())
        assert "sock is back" not in a.log()


def test_an_engine_that_is_busy_does_not_refuse_us(engine: Server, tmp_path: Path) -> None:
    with (
        host("runner", "a", tmp_path, engine.url) as a,
        host("runner", "b", tmp_path, engine.url) as b,
        contextlib.closing(socket.create_connection(("127.0.0.1", engine.port))) as busy,
    ):
        here, there = Client(a, "here"), Client(b, "there")
        engine.ask("CONFIG", "SET", "busy-reply-threshold", "1")
        busy.sendall(b"EVAL 'while true do end' 0\r\n")
        wait_until(lambda: "passes nothing on now: BUSY" in a.log())
        assert engine.ask("SCRIPT", "KILL") == "+OK\r\n"
        wait_until(lambda: here.send("there").get("online") == 1)
        there.hear()
        wait_until(lambda: "is back" in a.log())
        assert "refuses the service" not in a.log()
        talk_again(here, there)


def test_an_engine_that_is_restarted_costs_what_was_on_its_way_and_says_so(engine: Server, tmp_path: Path) -> None:
    with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, engine.url) as b:
        here, there = Client(a, "here"), Client(b, "there")
        talk(here, there)
        engine.kill()
        here.say(type="send", id=1, recipient_uuid="there", message="hi")
        engine.start()
        assert here.hear()["code"] == 116
        wait_until(lambda: here.send("there").get("online") == 1)


def test_without_an_engine_a_host_starts_alone_and_is_joined_when_it_comes(tmp_path: Path) -> None:
    engine = Server("redis-server", tmp_path)
    with host("runner", "a", tmp_path, engine.url) as a, host("standalone", "b", tmp_path, engine.url) as b:
        here, there = Client(a, "here"), Client(b, "there")
        assert here.send("there")["code"] == 117
        try:
            engine.start()
            wait_until(lambda: here.send("there").get("online") == 1)
            wait_until(lambda: there.hear()["type"] == "msg")
        finally:
            engine.kill()


def test_an_engine_that_is_full_of_clients_or_of_data(engine: Server, tmp_path: Path) -> None:
    with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, engine.url) as b:
        here, there = Client(a, "here"), Client(b, "there")
        engine.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        engine.ask("CONFIG", "SET", "maxmemory", "1")
        assert "OOM" in engine.ask("SET", "x", "y")
        talk(here, there)
        engine.kill()
        engine.start("--maxclients", "1")
        wait_until(lambda: "max number of clients" in a.log() + b.log())
        wait_until(lambda: here.send("there").get("code") == 117)
        engine.kill()
        engine.start()
        wait_until(lambda: here.send("there").get("online") == 1)


def test_a_host_that_the_network_cuts_off_is_alone_until_it_is_back(engine: Server, tmp_path: Path) -> None:
    with contextlib.closing(Relay(engine.port)) as relay:
        cut = f"redis://127.0.0.1:{relay.port}"
        with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, cut) as b:
            here, there, neighbour = Client(a, "here"), Client(b, "there"), Client(b, "neighbour")
            relay.is_cut = True
            assert here.send("there")["code"] == 116  # nobody knows whether it has arrived
            assert here.send("there")["code"] == 117
            wait_until(lambda: there.send("here").get("code") == 117)
            assert there.send("neighbour")["online"] == 1
            assert neighbour.hear()["message"] == "hi"
            later = Client(a, "there")  # granted: nobody can know
            relay.is_cut = False
            assert later.close_code() == 4102
            wait_until(lambda: here.send("there", "again").get("online") == 1)
            while there.hear().get("message") != "again":
                pass


def test_an_engine_that_is_slow_costs_time_and_nothing_else(engine: Server, tmp_path: Path) -> None:
    with contextlib.closing(Relay(engine.port)) as relay:
        slow = f"redis://127.0.0.1:{relay.port}"
        with host("runner", "a", tmp_path, engine.url) as a, host("runner", "b", tmp_path, slow) as b:
            here, there = Client(a, "here"), Client(b, "there")
            relay.delay_s = 0.3
            talk(here, there)
            assert 'ends_total{why="silence"} 0.0' in a.get("/metrics").body.decode()


# Sentinel


class Sentinels:
    """A master, its replica, and three Sentinels that watch them; `relay` is between the two servers."""

    def __init__(self, name: str, home: Path, *options: str) -> None:
        self._open = contextlib.ExitStack()
        homes = [home / "master", home / "replica"]
        for each in homes:
            each.mkdir()
        self.master = self._open.enter_context(serving(name, homes[0], *options))
        self.relay = self._open.enter_context(contextlib.closing(Relay(self.master.port)))
        replica_of = ("--replicaof", f"127.0.0.1 {self.relay.port}")
        self.replica = self._open.enter_context(serving(name, homes[1], *options, *replica_of))
        wait_until(lambda: "state=online" in self.master.ask("INFO", "replication"))
        self.ports = []
        for number in range(3):
            file = home / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor chat 127.0.0.1 {self.master.port} 2\n"
                "sentinel down-after-milliseconds chat 1000\nsentinel failover-timeout chat 5000\n"
            )
            options = (str(file), "--sentinel")
            self.ports.append(self._open.enter_context(serving(name, home, *options)).port)
        wait_until(lambda: all(self._knows_all(port) for port in self.ports))

    def _knows_all(self, port: int) -> bool:
        said = Server.ask_port(port, "SENTINEL", "MASTER", "chat")
        return "num-other-sentinels\r\n$1\r\n2" in said and "num-slaves\r\n$1\r\n1" in said

    def settings(self) -> dict[str, str]:
        sentinels = " ".join(f"127.0.0.1:{port}" for port in self.ports)
        return {"WEBSOCKET_ENGINE_SENTINELS": sentinels, "WEBSOCKET_ENGINE_MASTER": "chat"}

    def close(self) -> None:
        self._open.close()


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_sentinels_say_who_is_the_master(name: str, fault: signal.Signals, tmp_path: Path) -> None:
    sentinels = Sentinels(name, tmp_path)
    with contextlib.closing(sentinels):
        more = sentinels.settings()
        with (
            host("runner", "a", tmp_path, "redis://127.0.0.1:1", **more) as a,
            host("standalone", "b", tmp_path, "redis://127.0.0.1:1", **more) as b,
        ):
            here, there = Client(a, "here"), Client(b, "there")
            talk(here, there)
            sentinels.master.send(fault)
            wait_until(lambda: sentinels.replica.is_a("master"))
            wait_until(lambda: here.send("there").get("online") == 1)
            there.hear()
            if fault == signal.SIGSTOP:
                sentinels.master.send(signal.SIGCONT)
                wait_until(lambda: sentinels.master.is_a("slave"))
            talk_again(here, there)


def test_sentinels_that_do_not_answer_any_more_harm_nobody(engine: Server, tmp_path: Path) -> None:
    file = tmp_path / "sentinel.conf"
    file.write_text(f"sentinel monitor chat 127.0.0.1 {engine.port} 1\n")
    with serving("redis-server", tmp_path, str(file), "--sentinel") as sentinel:
        three = " ".join([f"127.0.0.1:{sentinel.port}"] * 3)
        more = {"WEBSOCKET_ENGINE_SENTINELS": three, "WEBSOCKET_ENGINE_MASTER": "chat"}
        with (
            host("runner", "a", tmp_path, "redis://127.0.0.1:1", **more) as a,
            host("runner", "b", tmp_path, "redis://127.0.0.1:1", **more) as b,
        ):
            here, there = Client(a, "here"), Client(b, "there")
            talk(here, there)
            sentinel.send(signal.SIGSTOP)
            # Both hosts say sixty times that they are alive: they do so eight times in a silence, in which they also
            # ask who is the master.
            enough = published(engine) + 60
            wait_until(lambda: published(engine) > enough)
            sentinel.send(signal.SIGCONT)
            talk(here, there)
            assert 'ends_total{why="silence"} 0.0' in a.get("/metrics").body.decode()


def published(engine: Server) -> int:
    """How often something was."""
    _, _, rest = engine.ask("INFO", "commandstats").partition("cmdstat_publish:calls=")
    return int(rest.partition(",")[0])


def test_what_is_no_sentinel_is_told_of_in_words(engine: Server, tmp_path: Path) -> None:
    more = {"WEBSOCKET_ENGINE_SENTINELS": f"127.0.0.1:{engine.port}", "WEBSOCKET_ENGINE_MASTER": "chat"}
    with host("runner", "a", tmp_path, "redis://127.0.0.1:1", **more) as a:
        assert Client(a, "here").send("there")["code"] == 117
        assert "no Sentinel knows the master chat now: unknown command" in a.log()
        assert "Traceback" not in a.log()


def talk_again(here: Client, there: Client) -> None:
    assert here.send("there", "again")["online"] == 1
    while there.hear().get("message") != "again":
        pass


# TLS


@pytest.fixture
def certificates(tmp_path: Path) -> list[Pair]:
    """Two that are for 127.0.0.1, each signed by itself."""
    return [pair(tmp_path / name, "IP:127.0.0.1") for name in ("engine", "another")]


def test_tls_with_certificates_on_both_sides(certificates: list[Pair], tmp_path: Path) -> None:
    port, ca, key = free_port(), str(certificates[0].file), str(certificates[0].key)
    options = ("--tls-port", str(port), "--tls-cert-file", ca, "--tls-key-file", key, "--tls-ca-cert-file", ca)
    url = f"valkeys://127.0.0.1:{port}"
    ours = {"WEBSOCKET_ENGINE_CA": ca, "WEBSOCKET_ENGINE_CERT": ca, "WEBSOCKET_ENGINE_KEY": key}
    with serving("redis-server", tmp_path, *options) as engine:
        with host("runner", "a", tmp_path, url, **ours) as a, host("gunicorn", "b", tmp_path, url, **ours) as b:
            talk(Client(a, "here"), Client(b, "there"))
        other = refused("runner", tmp_path, url, **{**ours, "WEBSOCKET_ENGINE_CA": str(certificates[1].file)})
        assert "certificate of the engine" in other
        assert "check engine.ca" in other
        with host("runner", "a", tmp_path, f"valkeys://127.0.0.1:{engine.port}", **ours) as a:
            assert Client(a, "here").send("there")["code"] == 117
            assert "does this port speak TLS?" in a.log()
