"""Root on the host sees who is connected to which worker, sends one away, and watches; nobody else can."""

import contextlib
import http.client
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from tests.hosts.console import DOMAIN, NAME, Console


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_clients_are_listed_and_kicked_and_top_shows_it(manager: str, installed: Console) -> None:
    installed.install(workers=2, manager=manager)
    assert installed.comes_to_route()
    with installed.client() as alice, installed.client() as bob:
        for client, name in ((alice, "alice"), (bob, "bob")):
            client.send(json.dumps({"recipient_uuid": name, "message": "connected"}))
            client.send(json.dumps({"recipient_uuid": name, "message": "am I there?"}))
            client.recv(timeout=10)
        told = json.loads(installed.wsbundle("clients", "--format", "json"))["clients"]
        assert sorted(address for each in told for address in each["addresses"]) == ["alice", "bob"]
        assert all(each["from"] for each in told)
        assert "bob" not in installed.wsbundle("clients", "--address", "alice")
        assert told[0]["uuid"] in installed.wsbundle("clients")
        shown = json.loads(installed.wsbundle("top", "--format", "json"))["stats"]
        assert shown["service"]["connections"] == 2
        assert len(shown["workers"]) == 2
        assert "2 of " in installed.wsbundle("top", "--once")
        installed.wsbundle("kick", "alice")
        with pytest.raises(ConnectionClosed) as closed:
            alice.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4011
        assert "nobody has the address alice" in installed.wsbundle("kick", "alice", code=1)
        bob.send(json.dumps({"recipient_uuid": "bob", "message": "still here"}))
        assert json.loads(bob.recv(timeout=10))["message"] == "still here"
    for path in ("/status", "/stats", "/metrics"):
        with contextlib.closing(http.client.HTTPConnection(installed.host.address, 80, timeout=30)) as outside:
            outside.request("GET", path, headers={"Host": DOMAIN})
            assert outside.getresponse().status == 404
    # A worker that was killed leaves its socket behind, which stops nobody.
    before = installed.run("sh", "-c", f"ls /run/{NAME}/bus/control-*").split()
    installed.run("kill", "-9", before[0].rpartition("-")[2])
    deadline = time.monotonic() + 60
    while len(json.loads(installed.wsbundle("top", "--format", "json"))["stats"]["workers"]) < 2:
        assert time.monotonic() < deadline
    assert json.loads(installed.wsbundle("clients", "--format", "json"))["clients"] == []
    assert before[0] not in installed.run("sh", "-c", f"ls /run/{NAME}/bus").split()
