"""A restart or a reload of the unit keeps the clients that are connected through nginx, and a stop sends them away."""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.test_certificates import make_pair
from tests.soak.neighbours import neighbours, reports

CLIENTS = 200
# The whole proof is KEEP_CLIENTS=10000 KEEP_TIMES=20, where a process may have 21,000 files open.
NEIGHBOURS = int(os.environ.get("KEEP_CLIENTS", "400"))
TIMES = int(os.environ.get("KEEP_TIMES", "2"))
PATIENCE_S = 30.0
LIMITS = {"connections_per_address": 1000, "handshakes_per_second": 1000, "handshake_burst": 1000}


class Client:
    """A client of either protocol. Each sends numbers to the next one; `heard` has those that came to it."""

    def __init__(self, number: int) -> None:
        self.name = f"client-{number}"
        self.speaks_v1 = number % 2 == 1
        self.sent = 0
        self.heard: list[int] = []
        self.heard_at = time.monotonic()
        self.silence = 0.0
        self.closed: int | None = None
        self.connection: ClientConnection

    async def open(self, address: str) -> None:
        self.connection = await connect(
            f"ws://{DOMAIN}/", host=address, port=80, proxy=None, ping_interval=None, open_timeout=PATIENCE_S,
            subprotocols=["nc.v1"] if self.speaks_v1 else None,  # type: ignore[list-item]
        )  # fmt: skip
        assert "Welcome" in str(await self.connection.recv())
        if self.speaks_v1:
            await self.say({"type": "hello", "id": 0, "uuid": self.name})
        else:
            await self.say({"recipient_uuid": self.name, "message": "connected"})
            await self.say({"recipient_uuid": self.name, "message": 0})  # it comes when the name is there
        await self.connection.recv()

    async def say(self, frame: dict[str, Any]) -> None:
        await self.connection.send(json.dumps(frame))

    async def send_to(self, other: "Client") -> None:
        self.sent += 1
        frame: dict[str, Any] = {"recipient_uuid": other.name, "message": self.sent}
        await self.say({"type": "send", **frame} if self.speaks_v1 else frame)

    async def listen(self) -> None:
        try:
            async for text in self.connection:
                frame = json.loads(text)
                if frame.get("type") == "goaway":
                    continue
                self.heard.append(frame["message"])
                self.silence = max(self.silence, time.monotonic() - self.heard_at)
                self.heard_at = time.monotonic()
        except ConnectionClosed:
            pass
        self.closed = self.connection.close_code


async def soon(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, or for too long."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if condition() or time.monotonic() > deadline:
            return
        await asyncio.sleep(0.02)


class Crowd:
    """All of them, in a ring."""

    def __init__(self, number: int) -> None:
        self.clients = [Client(index) for index in range(number)]

    async def all_send(self) -> None:
        for client, other in zip(self.clients, self.clients[1:] + self.clients[:1], strict=True):
            await client.send_to(other)

    async def all_have_heard(self) -> None:
        """Wait until everything that was sent has come, each once and in order."""
        expected = list(range(1, self.clients[0].sent + 1))
        await soon(lambda: all(len(client.heard) >= len(expected) for client in self.clients))
        assert [client.name for client in self.clients if client.heard != expected] == []
        assert {client.closed for client in self.clients} == {None}


@asynccontextmanager
async def crowd(console: Console, number: int = CLIENTS) -> AsyncIterator[Crowd]:
    there = Crowd(number)
    await asyncio.gather(*(client.open(console.host.address) for client in there.clients))
    listening = [asyncio.create_task(client.listen()) for client in there.clients]
    try:
        yield there
    finally:
        for client in there.clients:
            client.connection.transport.abort()
        await asyncio.gather(*listening)


async def run(console: Console, *command: str, check: bool = True) -> str:
    return await asyncio.to_thread(lambda: console.run(*command, check=check))


async def while_all_talk(there: Crowd, console: Console, *command: str) -> None:
    """Run a command while everybody sends again and again."""
    running = asyncio.create_task(run(console, *command))
    while not running.done():
        await there.all_send()
        await asyncio.sleep(0.05)
    await running
    await there.all_send()


@pytest.mark.parametrize("workers", [1, 3])
def test_ten_restarts_end_no_connection_and_a_stop_ends_all(installed: Console, workers: int) -> None:
    installed.install(limits=LIMITS, workers=workers)
    pids = set()

    async def play() -> None:
        async with crowd(installed) as there:
            for _ in range(10):
                await run(installed, "systemctl", "reset-failed", NAME)  # the unit may start ten times in a minute
                await while_all_talk(there, installed, "systemctl", "restart", NAME)
                await there.all_have_heard()
                pids.add(installed.main_pids()[f"{NAME}.service"])
            print("the longest silence:", max(client.silence for client in there.clients), file=sys.stderr)
            assert len(pids) == 10
            stored = await run(installed, "systemctl", "show", "--property=NFileDescriptorStore", "--value", NAME)
            assert stored.strip() == "0"
            await run(installed, "systemctl", "restart", f"{NAME}.socket", f"{NAME}.service")
            await there.all_send()
            await there.all_have_heard()
            await run(installed, "systemctl", "stop", NAME)
            await soon(lambda: all(client.closed is not None for client in there.clients))
            assert {client.closed for client in there.clients} == {1012}

    asyncio.run(play())
    assert "Traceback" not in installed.run("journalctl", "-u", NAME, "-o", "cat")


def test_ten_reloads_end_no_connection(installed: Console) -> None:
    installed.install(limits=LIMITS, workers=3)

    async def play() -> None:
        async with crowd(installed) as there:
            for _ in range(10):
                await while_all_talk(there, installed, "systemctl", "reload", NAME)
                await there.all_have_heard()
            print("the longest silence:", max(client.silence for client in there.clients))

    asyncio.run(play())
    said = installed.run("journalctl", "-u", NAME, "-o", "cat")
    assert said.count(f"Reloaded {NAME}.service") == 10
    assert "Traceback" not in said
    assert "takes no clients" not in said


@pytest.mark.parametrize(("verb", "workers"), [("reload", 2), ("restart", 2), ("restart", 1)])
def test_neighbours_who_write_to_each_other_over_tls_notice_neither(
    installed: Console, verb: str, workers: int
) -> None:
    """Of both protocols, with receipts, some in the middle of a frame, and some that do not read meanwhile."""
    installed.run(
        "sed", "-i", f"s/worker_connections .*;/worker_connections {3 * NEIGHBOURS};/", "/etc/nginx/nginx.conf"
    )
    limits = {"connections": NEIGHBOURS + 100, "connections_per_address": NEIGHBOURS + 100}
    limits |= {"handshakes_per_second": 1000, "handshake_burst": 10_000}
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < 5 * limits["connections"]:  # nginx cannot have as many files as the rendered configuration asks for
        installed.write("/etc/systemd/system/nginx.service.d/files.conf", f"[Service]\nLimitNOFILE={most - 100}\n")
        installed.run("systemctl", "daemon-reload")
        installed.run("systemctl", "restart", "nginx")
    pair = make_pair(installed, "/etc/ssl/good", DOMAIN)
    installed.install(**{**pair, "domain": DOMAIN}, limits=limits, workers=workers)
    processes = 1 + NEIGHBOURS // 5000
    with neighbours(installed.host.address, 443, DOMAIN, NEIGHBOURS, processes) as crowd:
        for _ in range(TIMES):
            time.sleep(2)
            installed.run("systemctl", "reset-failed", NAME)
            began = time.monotonic()
            installed.run("systemctl", verb, NAME)
            print(f"{verb}: {time.monotonic() - began:.2f} s", file=sys.stderr)
        time.sleep(2)
        report = reports(crowd)
    print(report, file=sys.stderr)
    assert report.clients == NEIGHBOURS
    assert report.sent > NEIGHBOURS // 10
    said = installed.run("journalctl", "-u", NAME, "-o", "cat")
    assert report.faults() == {}, said[-5000:]
    assert "Traceback" not in said
    assert "takes no clients" not in said


def test_a_start_that_fails_keeps_them_for_the_one_that_works(installed: Console) -> None:
    installed.install(limits=LIMITS)
    env = f"/etc/{NAME}/.env"

    async def play() -> None:
        async with crowd(installed, 20) as there:
            await there.all_send()
            await there.all_have_heard()
            await run(installed, "sed", "-i", "s/^WORKERS=.*/WORKERS='many'/", env)
            await run(installed, "systemctl", "restart", NAME, check=False)
            assert not installed.is_active(f"{NAME}.service")
            await there.all_send()
            await run(installed, "sed", "-i", "s/^WORKERS=.*/WORKERS='1'/", env)
            await run(installed, "systemctl", "daemon-reload")
            await run(installed, "systemctl", "reset-failed", NAME)
            await run(installed, "systemctl", "restart", NAME)
            await there.all_send()
            await there.all_have_heard()

    asyncio.run(play())


@pytest.mark.parametrize("how", ["upgrade", "rollback"])
def test_an_installation_that_restarts_the_service_ends_no_connection(installed: Console, how: str) -> None:
    installed.install(limits=LIMITS)
    installed.install(limits=LIMITS, welcome="Welcome again {uuid}")

    async def play() -> None:
        async with crowd(installed, 20) as there:
            await there.all_send()
            before = installed.main_pids()
            if how == "upgrade":
                installed.configure(limits=LIMITS, welcome="Welcome back {uuid}")
                assert "0 of 20 live connections end with it" in await run(
                    installed, ".venv/bin/wsbundle", "plan", check=False
                )
                await run(installed, ".venv/bin/wsbundle", "install")
            else:
                await run(installed, ".venv/bin/wsbundle", "rollback")
            assert installed.main_pids()[f"{NAME}.service"] != before[f"{NAME}.service"]
            await there.all_send()
            await there.all_have_heard()

    asyncio.run(play())


def test_a_process_that_is_killed_while_it_starts_leaves_them_to_the_next(installed: Console) -> None:
    installed.install(limits=LIMITS)
    # Killed so long after the new process is there.
    kill = f"""
        main() {{ systemctl show --property=MainPID --value {NAME}; }}
        old=$(main); systemctl restart --no-block {NAME}
        while new=$(main); [ "$new" = "$old" ] || [ "$new" = 0 ]; do sleep 0.01; done
        sleep $0; kill -9 $new
        until systemctl is-active --quiet {NAME}; do sleep 0.05; done
    """

    async def play() -> None:
        async with crowd(installed) as there:
            # At last it has taken them back, some or all, and they go with it.
            for pause in ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "2"):
                await run(installed, "systemctl", "reset-failed", NAME)
                await run(installed, "sh", "-c", kill, pause)
                left = [client for client in there.clients if client.closed is None]
                for client in left:
                    client.heard.clear()
                    with suppress(ConnectionClosed):
                        await client.send_to(client)
                await soon(lambda left=left: all(client.heard or client.closed for client in left))  # type: ignore[misc]
                assert all(client.heard or client.closed for client in left)
                print(f"killed after {pause} s: {len(left)} are left", file=sys.stderr)
                assert pause != "0" or len(left) == CLIENTS

    asyncio.run(play())
    assert "Traceback" not in installed.run("journalctl", "-u", NAME, "-o", "cat")
    assert installed.routes()


@pytest.mark.parametrize("servers", [("gunicorn", "uvicorn"), ("uvicorn", "gunicorn"), ("standalone", "uvicorn")])
def test_another_server_ends_them_with_1012(installed: Console, servers: tuple[str, str]) -> None:
    """Also by the signal of a restart, which the unit of the new server has for the old one."""
    installed.install(server=servers[0])
    with installed.client() as client:
        said = installed.install(server=servers[1])
        assert "1 live connections end with it" in said
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE_S)
        assert client.close_code == 1012
    assert installed.routes()
