"""The rendered monitoring, really run: a Prometheus scrapes, each alert fires on its fault, and panels have data."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from generator.doctor.patient import Patient, children
from generator.doctor.stress import a_slow_reader
from generator.host.store import Store
from generator.minting import with_keys
from generator.paths import Paths
from generator.rendering import dashboard
from generator.rendering.alerts import PREFIX, RULES
from tests.ports import free_port
from tests.run.stage import DOMAIN, NAME, SBIN, Client, Stage, deployed, needed, process, wait_until
from tests.run.test_doctor import findings

pytestmark = pytest.mark.slow

PATHS = Paths(NAME)


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory with a name that is short enough for Unix sockets in it."""
    with TemporaryDirectory(prefix="ws-") as directory:
        yield Path(directory)


@pytest.mark.parametrize("tls", ["off", "files"])
def test_a_prometheus_elsewhere_gets_the_figures_where_it_is_listed_and_nothing_else(tls: str, root: Path) -> None:
    with deployed(root, tls=tls, nginx={"metrics_from": ["127.0.0.1"]}) as (stage, _):
        status, fields, body = stage.get("/metrics")
        assert (status, "wsbundle_connections 0.0" in body) == (200, True)
        assert fields["content-type"].startswith("text/plain; version=0.0.4")
        assert [stage.get(path)[0] for path in ("/stats", "/status", "/livez", "/readyz")] == [404] * 4


def test_each_of_several_hosts_gives_its_figures_by_a_name_of_its_own(root: Path) -> None:
    nginx = {"metrics_from": ["127.0.0.1"], "default_server": True}
    with deployed(root, domain=[DOMAIN, "ws1.example.com"], nginx=nginx) as (stage, _):
        assert stage.get("/metrics", headers={"Host": "ws1.example.com"})[0] == 200
        with pytest.raises(http.client.RemoteDisconnected):
            stage.get("/metrics", headers={"Host": "127.0.0.1"})


def test_curl_and_nginx_get_the_figures_on_a_unix_socket_and_a_page_from_elsewhere_does_not(root: Path) -> None:
    with deployed(root, port="none", nginx={"metrics_from": ["127.0.0.1"]}) as (stage, _):
        assert stage.get("/metrics")[0] == 200
        ask = [needed("curl"), "--silent", "--write-out", " %{http_code}"]
        for name, status in (("localhost", "200"), ("evil.example", "421")):
            for path in ("/metrics", "/stats", "/status"):
                words = [*ask, "--unix-socket", f"{root}/run/{NAME}/ws.sock", f"http://{name}{path}"]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                assert done.stdout.endswith(f" {status}")


def test_who_is_not_listed_gets_no_figures(root: Path) -> None:
    with deployed(root, nginx={"metrics_from": ["192.0.2.1"]}) as (stage, _):
        assert stage.get("/metrics")[0] == 403


class Prometheus:
    """One that scrapes a stage every other second, with the rendered job and rules."""

    def __init__(self, port: int) -> None:
        self._api = f"http://127.0.0.1:{port}/api/v1"
        self._ready = f"http://127.0.0.1:{port}/-/ready"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready, timeout=30):
                return True
        except OSError:
            return False

    def _asked(self, path: str, **words: str) -> Any:
        with urllib.request.urlopen(f"{self._api}/{path}?{urllib.parse.urlencode(words)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> list[Any]:
        found: list[Any] = self._asked("query", query=expression)["result"]
        return found

    def firing(self) -> set[str]:
        alerts = self._asked("alerts")["alerts"]
        return {alert["labels"]["alertname"].removeprefix(PREFIX) for alert in alerts if alert["state"] == "firing"}

    def workers(self) -> int:
        """How many workers there have been."""
        (seen,) = self.value("count(count_over_time(wsbundle_worker_start_time_seconds[1h]))")
        return int(seen["value"][1])

    def comes_to_fire(self, name: str) -> None:
        wait_until(lambda: name in self.firing(), f"{name} fires")

    def ceases(self, name: str) -> None:
        wait_until(lambda: name not in self.firing(), f"{name} ceases")


def hurried(rules: str) -> str:
    """The rules for a Prometheus that looks often: the same series and comparisons, over seconds, at once.

    Much CPU is not to be had on a busy machine: a hundredth of a core will do.
    """
    rules = re.sub(r"\[\d+m\]", "[20s]", rules.replace("[1h]", "[120s]"))
    rules = rules.replace("> 0.8 * wsbundle_workers", "> 0.01 * wsbundle_workers")
    return re.sub(r'for: "[^"]*"', 'for: "0s"', rules)


@contextlib.contextmanager
def prometheus(stage: Stage) -> Iterator[Prometheus]:
    program, port = needed("prometheus"), free_port()
    job = stage.text(PATHS.scraping)
    (stage.root / "rules.yaml").write_text(hurried(stage.text(PATHS.alerts)))
    head = "global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}\n"
    conf = stage.root / "prometheus.yaml"
    conf.write_text(f"{head}rule_files: [{stage.root}/rules.yaml]\n{job}")
    words = [
        f"--config.file={conf}",
        f"--storage.tsdb.path={stage.root}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with process(stage, "prometheus", [program, *words], cwd=stage.root, env={"PATH": SBIN}) as child:
        there = Prometheus(port)
        wait_until(lambda: there.is_ready() or child.poll() is not None, "prometheus is ready")
        assert child.poll() is None, stage.log()
        wait_until(lambda: there.value(f'up{{job="{NAME}"}} == 1'), "the first scrape")
        yield there


@contextlib.contextmanager
def scraped(root: Path, **settings: Any) -> Iterator[tuple[Stage, Prometheus, int]]:
    """A service, a Prometheus that scrapes it as the rendered job says, and the service's pid."""
    with deployed(root, **settings) as (stage, manager), prometheus(stage) as there:
        yield stage, there, manager.pid


def comes_true(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether a condition comes true in time."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.1)
    return False


def stuck(worker: int, there: Prometheus) -> bool:
    """Whether it shows that a worker does not answer, while it does not; its manager may replace it meanwhile."""
    os.kill(worker, signal.SIGSTOP)
    is_seen = comes_true(lambda: "WorkerStuck" in there.firing(), 12)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    return is_seen


def refused(stage: Stage, number: int, status: int, **headers: str) -> None:
    """Handshakes that are refused; more than one a second."""
    for _ in range(number):
        with stage.connect(**headers) as client:
            assert client.status == status


def test_every_query_of_the_dashboard_has_an_answer(root: Path) -> None:
    with scraped(root, ping={"interval": 60, "timeout": 30}) as (stage, there, _), stage.connect() as alice:
        alice.text()
        alice.register("alice")
        wait_until(lambda: there.value("count_over_time(wsbundle_connections[20s]) > 5"), "a few scrapes")
        for _ in range(5):
            alice.send("alice", "to myself")
            alice.text()
        queries = list(dashboard.queries(stage.text(PATHS.dashboard)))
        assert len(queries) > 20
        empty = [query for query in queries if not there.value(shown(query))]
        assert empty == []
        assert there.firing() <= {"Busy"}


def shown(query: str) -> str:
    """A query as Grafana sends it."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "20s")


LIMIT = 5
SMALL = {
    "connections": LIMIT,
    "connections_per_address": LIMIT - 1,
    "queue": 70_000,
    "handshakes_per_second": 500,
    "handshake_burst": 500,
}


def direct(stage: Stage, address: str = "", **headers: str) -> Client:
    """A client at the service itself, as if nginx had passed it on from this address: nginx has some limits as well."""
    raw = socket.create_connection(("127.0.0.1", stage.port), 30)
    return Client(raw, {"X-Forwarded-For": address, **headers} if address else headers)


def full_while_clients_come_and_go(stage: Stage, there: Prometheus) -> None:
    """At the limit for a moment only, which no scrape sees: those who are refused meanwhile say it."""
    next_at = 0.0

    def is_seen() -> bool:
        nonlocal next_at
        # On a busy machine a moment is long, and scrapes see each second one if there is another right after it.
        if time.monotonic() >= next_at:
            with direct(stage, "192.0.2.2") as last:
                assert last.status == 101
                with direct(stage, "192.0.2.3") as client:
                    assert client.status == 503
            next_at = time.monotonic() + 15
        unseen = there.value(f"max_over_time(wsbundle_connections[8s]) < {LIMIT}")
        return bool(unseen) and "Full" in there.firing()

    wait_until(is_seen, "Full fires")


def test_alerts_of_what_clients_do(root: Path) -> None:
    ping = {"interval": 60, "timeout": 30}  # a client that does not read answers no ping
    settings = {"origins": ["https://example.com"], "limits": SMALL, "ping": ping}
    with scraped(root, **settings) as (stage, there, pid), contextlib.ExitStack() as stack:
        refused(stage, 30, 403, Origin="https://other.example.org")
        there.comes_to_fire("RefusesPages")
        for _ in range(LIMIT - 1):
            stack.enter_context(direct(stage, "192.0.2.1"))
        for _ in range(30):
            with direct(stage, "192.0.2.1") as client:
                assert client.status == 429
        there.comes_to_fire("RefusesAddresses")
        assert "NearlyFull" not in there.firing()
        with direct(stage, "192.0.2.2"):
            there.comes_to_fire("NearlyFull")
            there.comes_to_fire("Full")
        there.ceases("Full")
        full_while_clients_come_and_go(stage, there)
        with direct(stage, "192.0.2.2") as client:
            for _ in range(100):
                client.send("nobody", "hello")
            there.comes_to_fire("MessagesMiss")
        stack.close()
        there.ceases("NearlyFull")
        of = Patient(stage.deploy, Store(NAME, stage.root), stage.endpoint, under_stress=True)
        assert all(a_slow_reader.see(of).is_closed for _ in range(2))
        there.comes_to_fire("SlowClients")
        there.comes_to_fire("Busy")
        os.kill(pid, signal.SIGSTOP)
        there.comes_to_fire("Down")
        os.kill(pid, signal.SIGCONT)
        there.ceases("Down")


def test_alerts_of_workers(root: Path) -> None:
    ping = {"interval": 60, "timeout": 30}
    with scraped(root, workers=2, ping=ping) as (stage, there, manager), contextlib.ExitStack() as stack:
        assert there.firing() <= {"Busy"}
        wait_until(lambda: there.workers() == 2, "both workers")
        for number in range(3, 10):
            assert "Restarts" not in there.firing()
            os.kill(children(manager)[0], signal.SIGKILL)
            wait_until(lambda number=number: there.workers() == number, "another worker")  # type: ignore[misc]
        there.comes_to_fire("Restarts")
        # Prometheus is connected to one of them; only the other one shows as stuck.
        wait_until(lambda: any(stuck(worker, there) for worker in children(manager)), "WorkerStuck fires")
        there.ceases("WorkerStuck")
        for _ in range(8):  # who has no clients does not look whether it is late
            stack.enter_context(stage.connect())
        worker = children(manager)[0]
        os.kill(worker, signal.SIGSTOP)
        time.sleep(4)  # the fault itself: for so long nothing is done
        os.kill(worker, signal.SIGCONT)
        there.comes_to_fire("LoopLate")
        os.kill(manager, signal.SIGSTOP)  # so that nobody replaces what ends
        os.kill(worker, signal.SIGKILL)
        there.comes_to_fire("WorkerMissing")
        os.kill(manager, signal.SIGCONT)
        there.ceases("WorkerMissing")


def test_alerts_of_tokens_files_and_deliveries(root: Path) -> None:
    limits = {"queue": 32 * 1024 * 1024, "bytes_per_second": 1024**3, "handshakes_per_second": 500}
    keys = str(root / "keys.json")
    with_keys("new-key", keys, "HS256")
    token = with_keys("token", keys, "alice", "600", "alice")
    ping = {"interval": 60, "timeout": 30}  # a client that reads late answers late
    with scraped(root, auth="token", keys=keys, limits=limits, ping=ping) as (stage, there, pid):
        refused(stage, 30, 401, Authorization="Bearer e30.e30.forged")
        there.comes_to_fire("RefusesTokens")
        with stage.connect(Authorization=f"Bearer {token}") as alice:
            alice.text()
            alice.register("alice")
            with direct(stage, Authorization=f"Bearer {token}") as flood:
                flood.text()
                # The kernel and nginx take up to 20 MB of them, and the delivery of only a part is timed.
                unread = [flood.send("alice", "x" * 60_000) for _ in range(500)]
                wait_until(lambda: there.value("min_over_time(wsbundle_queue_bytes[5s]) > 8000000"), "much waits")
                for text in unread:
                    assert alice.text() == text
                there.comes_to_fire("DeliverySlow")
        wait_until(lambda: there.value("wsbundle_connections == 0"), "all have gone")
        most = len(os.listdir(f"/proc/{pid}/fd")) + 2  # so that it can still be scraped
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        there.comes_to_fire("FilesRunOut")


def test_the_alert_of_an_engine_that_is_away_ceases_when_it_comes(root: Path) -> None:
    program, port = needed("redis-server"), free_port()
    with scraped(root, engine={"url": f"redis://127.0.0.1:{port}"}) as (stage, there, _):
        there.comes_to_fire("EngineAway")
        words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(root)]
        with process(stage, "engine", words):
            there.ceases("EngineAway")
            of = Patient(stage.deploy, Store(NAME, stage.root), stage.endpoint)
            assert findings(of, "engine-up")["engine-up"].state == "ok"


def open_mailbox(stage: Stage, uuid: str, token: dict[str, str]) -> None:
    """Say hello, hear the answer, and go away."""
    address = f"ws://127.0.0.1:{stage.port}/"
    with connect(address, additional_headers=token, subprotocols=[Subprotocol("nc.v1")], proxy=None) as owner:
        owner.send(json.dumps({"type": "hello", "id": 1, "uuid": uuid, "mailbox": {}}))
        wait_until(lambda: json.loads(owner.recv(30)).get("id") == 1, "hello is answered")


def test_alerts_of_mailboxes_that_are_full_and_of_a_disk_that_is(root: Path) -> None:
    keys = str(root / "keys.json")
    with_keys("new-key", keys, "HS256")
    token = {"Authorization": f"Bearer {with_keys('token', keys, 'alice', '600', 'alice')}"}
    with scraped(root, auth="token", keys=keys, mailbox={"keep": "disk", "messages": 1}) as (stage, there, pid):
        open_mailbox(stage, "alice", token)
        assert "MailboxFull" not in there.firing()

        def fires() -> bool:
            status, _, body = stage.ask("POST", "/publish/alice", b"hello", headers=token)
            assert (status, "stored" in body) in {(202, True), (507, False), (429, False)}
            return "MailboxFull" in there.firing()

        wait_until(fires, "MailboxFull fires")
        no_more = os.stat(root / f"var/lib/{NAME}/mailbox/mail.db-wal").st_size
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE, (no_more, resource.RLIM_INFINITY))
        bob = {"Authorization": f"Bearer {with_keys('token', keys, 'bob', '600', 'bob')}"}
        with pytest.raises(ConnectionClosedError, match="4103"):
            open_mailbox(stage, "bob", bob)
        there.comes_to_fire("MailboxFailing")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        there.ceases("MailboxFailing")
        there.ceases("MailboxFull")


def test_every_alert_is_among_those_that_were_fired() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    fired = {one or other for one, other in re.findall(r'comes_to_fire\("(\w+)"\)|"(\w+)" in there\.firing', source)}
    assert fired == {rule.name for rule in RULES}
