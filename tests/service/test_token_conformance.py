"""What a token opens, whichever way the service was started, and that it is told to nobody."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.mint import add_key, mint
from service.tokens import MAX_TOKEN_LENGTH
from tests.ports import free_port
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Shell, clean_environment, running

DEBUG = {"uvicorn": " --log-level=debug", "gunicorn": " --log-level=debug"}


class Service(NamedTuple):
    """A running service that asks for tokens, and the file of its keys."""

    shell: Shell
    keys: str
    shows_a_connection: str

    @contextlib.contextmanager
    def client(self, *subprotocols: str, query: str = "", **fields: str) -> Iterator[ClientConnection]:
        """A connection that has been welcomed."""
        with connect(
            f"{self.shell.url}{query}",
            proxy=None,
            compression=None,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers=fields,
        ) as client:
            client.recv(timeout=DEADLINE_S)
            yield client

    def status(self, *subprotocols: str, query: str = "", **fields: str) -> int:
        """How a handshake that fails is answered."""
        with pytest.raises(InvalidStatus) as caught, self.client(*subprotocols, query=query, **fields):
            pass
        return caught.value.response.status_code


def ask(client: ClientConnection, **frame: object) -> dict[str, Any]:
    """The answer to a frame."""
    client.send(json.dumps(frame))
    answer: dict[str, Any] = json.loads(client.recv(timeout=DEADLINE_S))
    return answer


@pytest.fixture(scope="module", params=COMMANDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    keys = str(tmp_path_factory.mktemp("keys") / "keys.json")
    add_key(keys, "EdDSA")
    command = COMMANDS[request.param] + DEBUG.get(request.param, "")
    with running(command, WEBSOCKET_AUTH="token", WEBSOCKET_KEYS=keys, LOG_LEVEL="debug") as shell:
        yield Service(shell, keys, '"WebSocket /a/path" [accepted]' if request.param == "uvicorn" else "connected")


def test_a_token_may_come_in_the_header_in_a_subprotocol_or_in_the_hello(service: Service) -> None:
    token = mint(service.keys, "alice", 60, [])
    for offered, shown, told in (
        (("nc.v1",), {"Authorization": f"Bearer {token}"}, {}),
        (("nc.v1", f"bearer.{token}"), {}, {}),
        ((f"bearer.{token}", "nc.v1"), {}, {}),
        (("nc.v1",), {}, {"token": token}),
    ):
        with service.client(*offered, **shown) as client:
            assert client.subprotocol == "nc.v1"
            assert ask(client, type="hello", id=1, uuid="alice", **told)["uuid"] == "alice"


def test_the_longest_token_fits_into_every_place(service: Service) -> None:
    def minted(length: int) -> str:
        """A token for 24 addresses that have so many characters in all."""
        return mint(service.keys, "alice", 60, [f"{n:02}".ljust((length + n) // 24, "x") for n in range(24)])

    assert len(minted(2003)) - len(minted(2000)) == 4
    token = minted(2000 + (MAX_TOKEN_LENGTH - len(minted(2000))) // 4 * 3)
    assert MAX_TOKEN_LENGTH - 4 < len(token) <= MAX_TOKEN_LENGTH
    for offered, shown in ((("nc.v1", f"bearer.{token}"), {}), (("nc.v1",), {"Authorization": f"Bearer {token}"})):
        with service.client(*offered, **shown) as client:
            assert ask(client, type="hello", id=1, uuid="alice")["uuid"] == "alice"


def test_a_client_of_v0_needs_it_in_the_header(service: Service) -> None:
    token = mint(service.keys, "alice", 60, ["alice"])
    text = {"recipient_uuid": "alice", "message": "hello"}
    with service.client(Authorization=f"Bearer {token}") as client:
        client.send(json.dumps({"recipient_uuid": "alice", "message": "connected"}))
        assert ask(client, **text) == text
    assert service.status() == 401
    assert service.status(query=f"?token={token}") == 401
    assert service.status(Authorization=f"Basic {token}") == 401
    assert service.status(Authorization=f"Bearer {token[:-1]}") == 401
    assert service.status(f"bearer.{token[:-1]}", "nc.v1") == 401


def test_nobody_registers_what_the_token_of_another_is_for(service: Service) -> None:
    with service.client("nc.v1") as client:
        refused = ask(client, type="hello", id=1, uuid="bob", token=mint(service.keys, "alice", 60, ["*"]))
        assert (refused["type"], refused["code"]) == ("error", 103)


def test_a_token_that_expires_ends_its_connection_within_a_second(service: Service) -> None:
    token = mint(service.keys, "alice", 2, [])
    with service.client("nc.v1", f"bearer.{token}") as client:
        expires = ask(client, type="hello", id=1)["expires"]
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4200
        assert 0 <= time.time() - expires < 1.5
    with service.client("nc.v1") as client:
        assert ask(client, type="hello", id=1, token=token)["code"] == 109


def test_no_token_reaches_the_log_at_any_level(service: Service) -> None:
    token = mint(service.keys, "alice", 60, ["*"])
    wrong = f"{token[:-2]}xx"
    bearer = {"Authorization": f"Bearer {token}"}
    with service.client("nc.v1", f"bearer.{token}", query=f"a/path?token={token}&x=1", **bearer) as client:
        ask(client, type="hello", id=1, token=token)
        ask(client, type="refresh", id=2, token=token)
        ask(client, type="refresh", id=3, token=wrong)
        ask(client, type="hello", id=4, token=[token])
    service.status(query=f"?token={token}")
    service.status("nc.v1", f"bearer.{wrong}")
    for method, path in (("GET", f"/health?token={token}"), ("POST", f"/publish/bob?token={token}")):
        plain = http.client.HTTPConnection("127.0.0.1", service.shell.port, DEADLINE_S)
        with contextlib.closing(plain), contextlib.suppress(http.client.HTTPException, OSError):
            plain.request(method, path, headers=bearer)  # the standalone server reads no POST
            plain.getresponse().read()
    log = service.shell.log()
    assert service.shows_a_connection in log
    assert not any(part[:-2] in log for part in token.split(".")[1:])


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "WEBSOCKET_KEYS: is not set, and WEBSOCKET_AUTH=token needs it; name a file of keys"),
        (
            "/nowhere/keys.json",
            "WEBSOCKET_KEYS: /nowhere/keys.json is missing; `wsbundle install` makes a deployment's, ",
        ),
    ],
)
def test_without_keys_a_service_that_asks_for_tokens_does_not_start(command: str, keys: str, told: str) -> None:
    words = command.format(WEBSOCKET_PORT=free_port(), WEBSOCKET_PING_INTERVAL=60, WEBSOCKET_PING_TIMEOUT=30).split()
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=clean_environment(WEBSOCKET_AUTH="token", WEBSOCKET_KEYS=keys),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(told)
    assert len(ended.stderr.splitlines()) == 1
