"""Publishing and watching behind a real nginx: what gets through, and what does not."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from service.mint import add_key, mint
from tests.run.stage import DEADLINE_S, Stage, deployed, wait_until

pytestmark = pytest.mark.slow

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "uvicorn": {},
    "uvicorn-no-port-tls": {"port": "none", "tls": "files"},
    "gunicorn-no-port": {"server": "gunicorn", "port": "none"},
    "supervisor-gunicorn": {"manager": "supervisor", "server": "gunicorn"},
}
LIMITS = {"message_size": 20_000, "connections_per_address": 3}
INTERNAL = (
    "/metrics",
    "/stats",
    "/status",
    "/readyz",
    "/livez",
    "/publish/../metrics",
    "/publish/%2e%2e/metrics",
    "//metrics",
    "/%6detrics",
)


def started(stack: ExitStack, **settings: Any) -> Stage:
    directory = stack.enter_context(TemporaryDirectory(prefix="ws-"))
    keys = f"{directory}/keys.json"
    add_key(keys, "EdDSA")
    settings = {"keys": keys, "limits": LIMITS, "log": {"level": "info"}, **settings}
    stage, _ = stack.enter_context(deployed(Path(directory), **settings))
    return stage


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield started(stack, **DEPLOYMENTS[request.param])


def post(stage: Stage, target: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], str]:
    token = mint(str(stage.deploy.keys), "the-script", 60, ["alice"])
    return stage.ask("POST", f"/publish/{target}", body, headers={"Authorization": f"Bearer {token}", **headers})


def test_a_message_of_a_script_reaches_a_client(stage: Stage) -> None:
    assert post(stage, "alice", b"hello")[::2] == (202, '{"online": 0}')
    with stage.connect() as alice:
        alice.text()
        alice.register("alice")
        assert post(stage, "alice", b"x" * 19_000)[::2] == (201, '{"online": 1}')
        assert json.loads(alice.text()) == {"recipient_uuid": "alice", "message": "x" * 19_000}


def test_a_message_of_a_script_that_offers_http_2_reaches_a_client(stage: Stage) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
    with stage.connect() as alice:
        alice.text()
        alice.register("alice")
        assert post(stage, "alice", b"hello", **offer)[::2] == (201, '{"online": 1}')
        assert json.loads(alice.text()) == {"recipient_uuid": "alice", "message": "hello"}


def test_what_is_wrong_is_told_through_nginx_as_well(stage: Stage) -> None:
    assert stage.ask("POST", "/publish/alice", b"hello")[0] == 401
    assert post(stage, "bob", b"hello")[0] == 403
    status, headers, _ = stage.ask("GET", "/publish/alice")
    assert (status, headers["allow"]) == (405, "POST")
    assert post(stage, "alice", b"x" * 20_001)[0] == 413
    assert post(stage, "alice", b"{", **{"Content-Type": "application/json"})[0] == 400


def test_nothing_internal_gets_through(stage: Stage) -> None:
    for path in INTERNAL:
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}):
            status, _, body = stage.get(path, headers=headers)
            assert (path, status) == (path, 404)
            assert "wsbundle" not in body
    assert stage.get("/health")[0] == 200


def test_programs_of_this_host_see_it(stage: Stage) -> None:
    if stage.deploy.port == "none":
        pytest.skip("no port is open for them")
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.port}/metrics", timeout=DEADLINE_S) as response:
        assert "wsbundle_connections " in response.read().decode()


def test_a_forged_address_does_not_change_who_is_limited() -> None:
    with ExitStack() as stack:
        stage = started(stack)
        forged = ({"X-Forwarded-For": f"6.6.6.{number}", "Forwarded": f"for=6.6.6.{number}"} for number in range(9))
        clients = [stack.enter_context(stage.connect(**next(forged))) for _ in range(4)]
        assert [client.status for client in clients] == [101, 101, 101, 429]
        wait_until(lambda: stage.log().count(" connected ") >= 3, "three clients are logged")
        assert stage.log().count("address=127.0.0.1") == 3
        assert "6.6.6" not in stage.log()


def test_one_address_cannot_try_tokens_faster_than_it_may_publish() -> None:
    with ExitStack() as stack:
        stage = started(stack, limits={"messages_per_second": 1})
        statuses = [stage.ask("POST", "/publish/alice", b"hello")[0] for _ in range(4)]
        assert statuses[:2] == [401, 401]
        assert statuses[-1] == 429
