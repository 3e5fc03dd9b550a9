"""From a desk to three hosts with real sshd: all of them, one that fails, one that vanishes, and back."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.console import NAME, Console
from tests.hosts.desk import HOME, HOSTS, Desk, a_desk, with_sshd
from tests.hosts.test_engine import CERTIFICATE, KEY, certify
from tests.hosts.test_several_hosts import nothing_is_lost, they_are_one

KEYS = f"/etc/{NAME}/keys.json"
UNIT = f"wsbundle-deploy-{NAME}.service"
PATIENCE_S = 300.0  # for three installations on a busy machine


@pytest.fixture
def desk(prepared: tuple[Path, ...], suite: str) -> Iterator[Desk]:
    with a_desk(with_sshd(prepared, suite), len(HOSTS)) as desk:
        desk.configure(hosts=list(HOSTS))
        yield desk


def rows(said: str) -> list[list[str]]:
    """The table at the end: host, before, now and result of each."""
    lines = said.splitlines()
    (head,) = [number for number, line in enumerate(lines) if line.split() == "host before now seconds result".split()]
    table = [line.split(None, 4) for line in lines[head + 1 : head + 1 + len(HOSTS)]]
    return [[host, before, now, result] for host, before, now, _, result in table]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what}"
        time.sleep(0.05)


def is_at_work(host: Console) -> bool:
    return host.is_active(UNIT)


def begins(host: Console) -> None:
    wait_for(lambda: is_at_work(host), "a job")


@contextmanager
def deploying(desk: Desk, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """`wsbundle deploy`, under way."""
    command = desk.console.host.command(*desk.console._sudo, ".venv/bin/wsbundle", "deploy", *words, directory="clone")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process


def test_three_hosts_are_deployed_changed_and_taken_back(desk: Desk) -> None:
    _, ws2, ws3 = desk.hosts.values()
    assert rows(desk.deploy("--plan", "--parallel", "3", code=3)) == [
        [host, "-", "-", "changes are pending"] for host in HOSTS
    ]
    assert all(host.current() == "" for host in desk.hosts.values())
    assert rows(desk.deploy("--parallel", "3")) == [[host, "-", "1", "installed"] for host in HOSTS]
    assert all(host.routes() for host in desk.hosts.values())
    keys = [host.run("sh", "-c", f"cat {KEYS}; stat -c '%a %U:%G' {KEYS}") for host in desk.hosts.values()]
    assert keys[0].endswith(f"640 root:{NAME}\n")
    assert len(set(keys)) == 1
    before = [host.main_pids() for host in desk.hosts.values()]
    desk.configure(hosts=list(HOSTS[:2]))  # one host less, and
    told = json.loads(desk.deploy(*HOSTS, "--format", "json"))
    assert [(row["before"], row["now"], row["result"]) for row in told["hosts"]] == [(1, 1, "nothing to do")] * 3
    assert [host.main_pids() for host in desk.hosts.values()] == before

    desk.configure(hosts=list(HOSTS), port=9000)
    ws2.host.run("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "9000", "--bind", "127.0.0.1")
    wait_for(lambda: "127.0.0.1:9000" in ws2.run("ss", "-Hltn"), "the other program on port 9000")
    said = desk.deploy(code=1)
    assert [row[:3] for row in rows(said)] == [["ws1", "1", "2"], ["ws2", "1", "1"], ["ws3", "1", "1"]]
    assert "Failed: ws2. Not tried: ws3." in said
    assert "port 9000" in said
    assert "Setting up" not in said  # the environment is that of the archive before
    assert all(host.routes() for host in desk.hosts.values())
    ws2.host.run("systemctl", "stop", "squatter")
    assert [row[3] for row in rows(desk.deploy())] == ["nothing to do", "installed", "installed"]

    said = desk.deploy("--back")
    assert rows(said) == [[host, "2", "1", "went back"] for host in HOSTS]
    assert said.index("ws3 |") < said.index("ws2 |") < said.index("ws1 |")
    assert all(host.routes() for host in desk.hosts.values())
    said = desk.deploy("--back")
    assert [row[3] for row in rows(said)] == ["nothing to take back"] * 3
    assert "To go further back:\n  .venv/bin/wsbundle rollback --host ws1\n" in said
    assert len(ws3.run("sh", "-c", f"ls -d {HOME}/{NAME}-*").split()) <= 3


def test_three_hosts_become_one_center_and_a_change_loses_no_message(desk: Desk) -> None:
    several: Any = desk
    address = desk.network.addresses[2]  # of ws2, behind the desk and ws1
    certify(desk.hosts["ws2"], address)
    engine = {"url": f"valkeys://{address}:6390", "user": NAME, "serve": True}
    desk.configure(hosts=list(HOSTS), engine={**engine, "ca": CERTIFICATE, "cert": CERTIFICATE, "key": KEY})
    assert [row[3] for row in rows(desk.deploy("--plan", code=3))] == ["changes are pending"] * 3
    said = desk.deploy()
    assert rows(said) == [[host, "-", "1", "installed"] for host in HOSTS]
    assert said.index("ws2 | Generation 1") < said.index("ws1 | Generation 1") < said.index("ws3 | Generation 1")
    assert "ws1 | ws2 reaches it over the engine" in said
    asyncio.run(they_are_one(several))
    for words in (("--set", "welcome=Hello {uuid}"), ("--back",)):
        assert asyncio.run(nothing_is_lost(several, lambda words=words: desk.deploy(*words))) > 20
        asyncio.run(they_are_one(several))
    assert [host.current() for host in desk.consoles] == ["1", "1", "1"]


def test_a_lost_connection_is_taken_up_again_and_a_host_that_vanishes_is_whole(desk: Desk) -> None:
    ws1, ws2, _ = desk.hosts.values()
    with deploying(desk, "--parallel", "3") as process:
        for host in (ws1, ws2):
            begins(host)
            host.host.run("pkill", "-f", "^sshd(-session)?: root")
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, said
    assert "ws1 | the connection is lost; connecting again" in said
    assert "ws2 | the connection is lost; connecting again" in said
    assert said.count("Generation 1 of queue-websocket runs") == 3

    desk.configure(hosts=list(HOSTS), port=9000)
    with deploying(desk, "ws1", "ws2") as process:
        begins(ws1)
        desk.network.cut(2)
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 1, said
    assert "unknown, what has begun goes on there" in said
    assert "Failed: ws1. Not tried: ws2." in said
    wait_for(lambda: not is_at_work(ws1), "the end of the job")
    assert ws1.current() == "2"
    assert ws1.routes()
    desk.network.join(2)
    assert [row[3] for row in rows(desk.deploy())] == ["nothing to do", "installed", "installed"]


def test_what_a_host_lacks_is_told_of_all_of_them_before_anything_changes(desk: Desk) -> None:
    ws1, ws2, ws3 = desk.hosts.values()
    for host, user in ((ws1, "ann"), (ws2, "ann"), (ws2, "bob")):
        host.run("useradd", "--create-home", "--shell", "/bin/bash", user)
        desk.let_in(host, user, f"/home/{user}")
    ws1.write("/etc/sudoers.d/ann", "ann ALL=(ALL) NOPASSWD: ALL\n")
    ws3.write("/root/.ssh/authorized_keys", "")
    said = desk.deploy("ann@ws1", "root@ws1", "ann@ws2", "ws3", code=1)
    assert "root@ws1: is the same machine as ann@ws1; name it once" in said
    assert "ann@ws2: its user is not root, and sudo -n refuses: " in said
    assert "ws3: root@" in said
    assert "Permission denied" in said
    assert "Nothing was changed on any host." in said
    sudo = ws2.run("sh", "-c", "command -v sudo").strip()
    ws2.host.run("mv", sudo, "/root/sudo")
    assert "bob@ws2: its user is not root, and there is no sudo" in desk.deploy("bob@ws2", code=1)
    ws2.host.run("mv", "/root/sudo", sudo)  # a console may need it
    assert all(host.current() == "" for host in desk.hosts.values())

    assert "ann@ws1  -       1" in desk.deploy("ann@ws1")
    wsbundle = desk.console.wsbundle
    assert "deployment:   queue-websocket, generation 1" in wsbundle("status", "--host", "ann@ws1")
    assert json.loads(wsbundle("history", "--host", "ann@ws1", "--format", "json"))["current"] == 1
    assert "no such generation to go back to" in wsbundle("rollback", "--host", "ann@ws1", code=1)
    assert "1 ok" in wsbundle("doctor", "--only", "port", "--host", "ann@ws1")
    assert "connections" in wsbundle("top", "--once", "--host", "ann@ws1")
    ws1.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    assert "systemd" in wsbundle("logs", "--host", "ann@ws1")
    assert "NOT RUNNING" in wsbundle("status", "--host", "ann@ws1", code=1)
    assert "has not installed queue-websocket there" in wsbundle("status", "--host", "root@ws2", code=1)
