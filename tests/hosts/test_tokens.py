"""Keys that an installation makes, and tokens that open connections through nginx."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.hosts.console import DOMAIN, NAME, Console

KEYS = f"/etc/{NAME}/keys.json"
METHODS: dict[str, dict[str, Any]] = {
    "uvicorn": {},
    "gunicorn": {"server": "gunicorn"},
    "standalone": {"server": "standalone"},
    "supervisor": {"manager": "supervisor"},
}


@contextmanager
def opened(console: Console, *subprotocols: str, query: str = "", **headers: str) -> Iterator[ClientConnection]:
    """A connection through nginx that has been welcomed."""
    with connect(
        f"ws://{DOMAIN}/{query}",
        address=(console.host.address, 80),
        proxy=None,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        additional_headers=headers,
    ) as client:
        client.recv(timeout=5)
        yield client


def refuses(console: Console, query: str = "", **headers: str) -> bool:
    """Whether the handshake is answered with 401."""
    with pytest.raises(InvalidStatus) as caught, opened(console, query=query, **headers):
        pass
    return caught.value.response.status_code == 401


def said(client: ClientConnection, **frame: object) -> dict[str, object]:
    """The answer to a frame of nc.v1."""
    client.send(json.dumps(frame))
    answer: dict[str, object] = json.loads(client.recv(timeout=5))
    return answer


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_token_that_is_minted_on_the_host_opens_a_connection_through_nginx(
    empty: Console, method: dict[str, Any]
) -> None:
    empty.install(auth="token", **method)
    alice, bob = (empty.wsbundle("token", who, "--send-to", "*").splitlines()[-1] for who in ("alice", "bob"))
    with opened(empty, "nc.v1", Authorization=f"Bearer {alice}") as one, opened(empty, "nc.v1") as other:
        assert said(one, type="hello", id=1, uuid="alice")["uuid"] == "alice"
        assert said(other, type="hello", id=1, uuid="bob", token=bob)["uuid"] == "bob"
        assert said(one, id=2, recipient_uuid="bob", message="hello")["online"] == 1
        assert json.loads(other.recv(timeout=5))["sender_uuid"] == "alice"
    assert all(refuses(empty, Authorization=f"Bearer {wrong}") for wrong in ("", alice[:-4]))
    with opened(empty, Authorization=f"Bearer {bob}"):
        pass


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_no_log_of_the_host_has_a_token(empty: Console, method: dict[str, Any]) -> None:
    empty.install(auth="token", log={"level": "debug"}, **method)
    token = empty.wsbundle("token", "alice").splitlines()[-1]
    bearer = {"Authorization": f"Bearer {token}"}
    with opened(empty, "nc.v1", f"bearer.{token}", query=f"?token={token}") as client:
        said(client, type="hello", id=1, token=token)
    with opened(empty, query=f"?token={token}", **bearer):
        pass
    assert refuses(empty, query=f"?token={token}")
    logs = empty.run("journalctl", "--no-pager")
    logs += empty.run("sh", "-c", "find /var/log -type f ! -path '*/journal/*' -exec cat {} +")
    assert '"status":101' in logs
    assert "connected" in logs
    assert not any(part in logs for part in token.split(".")[1:])


def test_only_root_and_the_service_may_read_the_keys_and_nothing_else_shows_them(empty: Console) -> None:
    told = empty.install(auth="token")
    assert empty.run("stat", "--format=%a %U:%G", KEYS) == f"640 root:{NAME}\n"
    (secret,) = (key["k"] for key in json.loads(empty.run("cat", KEYS))["keys"])
    assert "Permission denied" in empty.run("runuser", "-u", "nobody", "--", "cat", KEYS, check=False)
    assert secret in empty.run("runuser", "-u", NAME, "--", "cat", KEYS)
    told += empty.status() + empty.wsbundle("plan") + empty.wsbundle("history") + empty.wsbundle("token", "alice")
    told += empty.run("journalctl", "--no-pager") + empty.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert secret not in told
    # In a file, because sudo and runuser write their command lines to the journal.
    empty.write("/srv/the-secret", secret)
    assert empty.run("grep", "-rlsFf", "/srv/the-secret", "/etc", "/opt", "/run", "/var", "/root").split() == [KEYS]


def test_keys_outlive_every_change_and_go_with_a_purge(empty: Console) -> None:
    empty.install(auth="token")
    token = empty.wsbundle("token", "alice").splitlines()[-1]
    empty.wsbundle("token", "--new-key", "--algorithm", "EdDSA")
    keys = empty.run("cat", KEYS)
    assert empty.run("stat", "--format=%a %U:%G", KEYS) == f"640 root:{NAME}\n"
    empty.install(auth="token", port=9000)
    empty.wsbundle("rollback")
    empty.wsbundle("uninstall")
    empty.install(auth="token")
    assert empty.run("cat", KEYS) == keys
    with opened(empty, Authorization=f"Bearer {token}"):
        pass
    empty.wsbundle("uninstall", "--purge")
    assert empty.run("sh", "-c", f"ls -d /etc/{NAME} 2>&1 || true").endswith("No such file or directory\n")


def test_a_first_installation_that_fails_leaves_no_keys(empty: Console) -> None:
    before = empty.run("ls", "/etc")
    empty.install(auth="token", env={"MALLOC_ARENA_MAX": "1"}, keys="/etc/none.json", code=1)
    left = set(empty.run("ls", "/etc").split()) - set(before.split())
    assert NAME not in left


def test_a_key_that_is_dropped_lets_nobody_in_any_more_without_a_restart(installed: Console) -> None:
    installed.install(auth="token")
    token = installed.wsbundle("token", "alice").splitlines()[-1]
    kid = json.loads(installed.run("cat", KEYS))["keys"][0]["kid"]
    with opened(installed, Authorization=f"Bearer {token}"):
        pass
    installed.wsbundle("token", "--new-key")
    installed.wsbundle("token", "--drop-key", kid)
    installed.run("sleep", "1.1")  # as often as the service looks
    assert refuses(installed, Authorization=f"Bearer {token}")
