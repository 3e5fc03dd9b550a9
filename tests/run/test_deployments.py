"""Every server under every manager, behind a real nginx, as clients see it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.run.stage import DEADLINE_S, DOMAIN, Client, Stage, deployed, wait_until

pytestmark = pytest.mark.slow

CONNECTIONS_PER_ADDRESS = 6
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "systemd-uvicorn": {},
    "systemd-uvicorn-no-port-tls": {"port": "none", "tls": "files"},
    "systemd-gunicorn-no-port": {"server": "gunicorn", "port": "none"},
    "systemd-standalone-tls": {"server": "standalone", "tls": "files"},
    "systemd-uvicorn-no-port-workers": {"workers": 3, "port": "none"},
    "systemd-gunicorn-workers": {"workers": "auto", "server": "gunicorn"},
    "supervisor-standalone-workers": {"workers": 2, "manager": "supervisor", "server": "standalone"},
    "supervisor-uvicorn-no-port": {"manager": "supervisor", "port": "none"},
    "supervisor-gunicorn": {"manager": "supervisor", "server": "gunicorn"},
    "supervisor-gunicorn-no-port": {"manager": "supervisor", "server": "gunicorn", "port": "none"},
    "supervisor-standalone-no-port-tls": {
        "manager": "supervisor",
        "server": "standalone",
        "port": "none",
        "tls": "files",
    },
}
# Pings are due after 1 s and wait 1 s for their answer; the machine may be busy.
PING_INTERVAL_S = PING_TIMEOUT_S = 1.0
TOLERANCE_S = 15.0  # of a busy machine; by default both are longer


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    limits = {"connections_per_address": CONNECTIONS_PER_ADDRESS}
    with (
        TemporaryDirectory(prefix="ws-") as directory,
        deployed(Path(directory), limits=limits, **DEPLOYMENTS[request.param]) as (running, _),
    ):
        yield running


@pytest.fixture
def clients(stage: Stage) -> Iterator[list[Client]]:
    """Two clients that have been welcomed."""
    with ExitStack() as stack:
        both = [stack.enter_context(stage.connect()) for _ in range(2)]
        for client in both:
            assert "Your temporary UUID is" in client.text()
        yield both


def test_a_message_reaches_the_client_that_registered_its_uuid(clients: list[Client]) -> None:
    first, second = clients
    first.register("uuid-of-the-first")
    second.register("uuid-of-the-second")
    frame = first.send("uuid-of-the-second", "hello")
    assert second.text() == frame
    frame = second.send("uuid-of-the-first", "hello yourself")
    assert first.text() == frame


def test_health_answers_this_host_with_the_number_of_connections(stage: Stage, clients: list[Client]) -> None:
    status, headers, body = stage.get("/health")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["status"] == "healthy"
    wait_until(lambda: json.loads(stage.get("/health")[2])["connections"] == len(clients), "old connections are gone")


def test_plain_http_gets_404(stage: Stage) -> None:
    for path in ("/", "/index.html", "/health/", "/metrics", "/ws"):
        status, headers, body = stage.get(path)
        assert (path, status, body) == (path, 404, "WebSocket endpoint only")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["server"] == "nginx"


def test_http_is_redirected_where_there_is_tls_and_only_there(stage: Stage) -> None:
    redirected = (308, f"https://{DOMAIN}/some/path?query=1")
    status, headers, _ = stage.get("/some/path?query=1", encrypted=False)
    encrypted = stage.deploy.tls != "off"
    assert (status, headers.get("location")) == (redirected if encrypted else (404, None))
    _, headers, _ = stage.get("/")
    assert headers.get("strict-transport-security") == ("max-age=63072000" if encrypted else None)


def test_one_address_cannot_hold_more_connections_than_allowed(stage: Stage) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(stage.connect()) for _ in range(CONNECTIONS_PER_ADDRESS)]
        assert {client.status for client in held} == {101}
        assert stack.enter_context(stage.connect()).status == 429


def test_an_idle_client_stays_connected_because_of_pings(clients: list[Client]) -> None:
    first, idle = clients
    idle.register("idle")
    wait_until(lambda: all(client.read(0.05) for client in clients) and len(idle.pinged_at) >= 3, "three pings")
    frame = first.send("idle", "still there?")
    assert idle.text() == frame


def test_a_silent_client_is_pinged_and_given_up_on_time(stage: Stage) -> None:
    started = time.monotonic()
    with stage.connect() as silent:
        silent.text()
        silent.read_until(lambda: silent.pinged_at, answer=False)
        assert -0.3 < time.monotonic() - started - PING_INTERVAL_S < TOLERANCE_S
        silent.read_until(lambda: silent.close_code, answer=False)
        assert -0.3 < time.monotonic() - started - PING_INTERVAL_S - PING_TIMEOUT_S < TOLERANCE_S
        assert silent.close_code == 1011


@pytest.mark.parametrize("settings", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_stopping_closes_clients_with_1012_in_time_and_leaves_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    with (
        TemporaryDirectory(prefix="ws-") as directory,
        deployed(Path(directory), **settings) as (stage, manager),
        stage.connect() as client,
    ):
        client.text()
        assert stage.processes()
        started = time.monotonic()
        os.kill(manager.pid, signal.SIGTERM)
        client.read_until(lambda: client.close_code)
        assert client.close_code == 1012
        try:
            status = manager.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(stage.log())
        assert time.monotonic() - started < stage.deploy.drain.timeout + TOLERANCE_S
        assert status == 0, stage.log()
        assert stage.processes() == [], stage.log()
