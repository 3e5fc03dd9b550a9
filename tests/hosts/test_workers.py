"""Four workers are one notification center, whoever is killed, replaced or installed anew."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from hosts.console import DOMAIN, NAME, Console
from hosts.talkers import TALKERS, talk

WORKERS, CALLERS = 4, 80
PATIENCE_S = 20.0
SERVERS = ("uvicorn", "gunicorn", "standalone")


def workers_of(console: Console) -> set[int]:
    """The processes that take part in the bus."""
    listed = console.run("sh", "-c", f"cd /run/{NAME}/bus && ls")
    return {int(name.removesuffix(".sock")) for name in listed.split() if name[0] != "."}


def that_have_clients(console: Console) -> set[int]:
    """The processes that nginx has passed connections on to."""
    shown = console.run("ss", "-Htnp", "state", "established", "sport = :8765")
    return {int(line.rpartition("pid=")[2].partition(",")[0]) for line in shown.splitlines() if "pid=" in line}


class Caller:
    """A client that comes back for ever; `life` counts its connections, `heard` has all it was sent."""

    def __init__(self, console: Console, number: int) -> None:
        self.name = f"caller-{number}"
        self.life = 0
        self.sent = 0
        self.heard: list[int] = []
        self.is_there = asyncio.Event()
        self._address = console.host.address
        self._connection: ClientConnection | None = None

    async def live(self) -> None:
        while True:
            try:
                async with await dial(self._address) as self._connection:
                    await self.say(self.name, "connected")
                    await self.say(self.name, 0)
                    async for text in self._connection:
                        self._hear(str(text))
            except (OSError, ConnectionClosed, InvalidHandshake):
                await asyncio.sleep(0.3)
            finally:
                self.is_there.clear()

    def _hear(self, text: str) -> None:
        message = json.loads(text)["message"] if text.startswith("{") else None
        if message == 0:
            self.life += 1
            self.is_there.set()
        elif message is not None:
            self.heard.append(message)

    async def say(self, recipient: str, message: object) -> None:
        if self._connection is not None:
            await self._connection.send(json.dumps({"recipient_uuid": recipient, "message": message}))

    async def call(self, recipient: "Caller") -> None:
        """Send the next number of a pair; one that is just coming back sends nothing."""
        if self.is_there.is_set():
            self.sent += 1
            await self.say(recipient.name, self.sent)


async def dial(address: str) -> Any:
    return await connect(f"ws://{DOMAIN}/", host=address, port=80, proxy=None, open_timeout=10, ping_interval=None)


@asynccontextmanager
async def crowd(console: Console) -> AsyncIterator[list[Caller]]:
    """All callers, connected."""
    callers = [Caller(console, number) for number in range(CALLERS)]
    tasks = [asyncio.create_task(caller.live()) for caller in callers]
    try:
        await all_there(callers)
        yield callers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_there(callers: list[Caller]) -> None:
    await asyncio.wait_for(asyncio.gather(*(caller.is_there.wait() for caller in callers)), PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def pairs(callers: list[Caller]) -> list[tuple[Caller, Caller]]:
    return list(zip(callers, callers[1:] + callers[:1], strict=True))


async def lost_while(callers: list[Caller], act: Callable[[], Awaitable[object]]) -> tuple[int, int]:
    """What was lost between callers that stayed connected while something happened, and how many pairs of them were."""
    for caller in callers:
        caller.sent, caller.heard = 0, []
    lives = {caller: caller.life for caller in callers}
    acting = asyncio.ensure_future(act())
    ends = time.monotonic() + 3
    while time.monotonic() < ends or not acting.done():
        for sender, recipient in pairs(callers):
            try:
                await sender.call(recipient)
            except ConnectionClosed:
                continue
        await asyncio.sleep(0.1)
    await acting
    await asyncio.sleep(1)
    stayed = [pair for pair in pairs(callers) if all(one.is_there.is_set() and one.life == lives[one] for one in pair)]
    lost = [pair for pair in stayed if pair[1].heard != list(range(1, pair[0].sent + 1))]
    return len(lost), len(stayed)


async def nothing_happens() -> None: ...


async def handshakes_during(console: Console, act: Callable[[], Awaitable[object]]) -> int:
    """How many clients have connected while something happened; each that is refused fails the test."""
    acting, number = asyncio.ensure_future(act()), 0
    while not acting.done():
        connection = await dial(console.host.address)
        assert "Welcome" in await connection.recv()
        await connection.close()
        number += 1
        await asyncio.sleep(0.05)
    await acting
    return number


async def replaced(console: Console, *command: str) -> None:
    """Run a command, and wait until all workers are others than before."""
    await until(lambda: len(workers_of(console)) == WORKERS)
    before = workers_of(console)
    await asyncio.to_thread(console.run, *command)
    await until(lambda: len(there := workers_of(console)) == WORKERS and not there & before)


@pytest.mark.parametrize("server", SERVERS)
def test_what_is_sent_arrives_whichever_worker_dies(installed: Console, server: str) -> None:
    installed.install(server=server, workers=WORKERS)

    async def kill(worker: int) -> None:
        installed.run("kill", "-9", str(worker))

    async def play() -> None:
        await until(lambda: len(workers_of(installed)) == WORKERS)
        async with crowd(installed) as callers, talk(installed) as talking:
            before = workers_of(installed)
            assert that_have_clients(installed) == before
            assert await lost_while(callers, nothing_happens) == (0, CALLERS)
            for worker in before:
                lost, stayed = await lost_while(callers, lambda worker=worker: kill(worker))  # type: ignore[misc]
                assert lost == 0
                assert stayed > 0
                await all_there(callers)
                await until(lambda: len(workers_of(installed)) == WORKERS)
                accepted = talking.accepted
                await until(lambda accepted=accepted: talking.accepted > accepted + TALKERS)  # type: ignore[misc]
            assert await lost_while(callers, nothing_happens) == (0, CALLERS)
            assert not before & workers_of(installed)

    asyncio.run(play())
    assert installed.is_active(f"{NAME}.service")
    assert "NRestarts=0" in installed.run("systemctl", "show", "--property=NRestarts", f"{NAME}.service")


@pytest.mark.parametrize("server", SERVERS)
def test_no_handshake_is_refused_while_workers_are_replaced_or_installed_anew(installed: Console, server: str) -> None:
    installed.install(server=server, workers=WORKERS)

    async def reload() -> None:
        await replaced(installed, "systemctl", "reload", NAME)

    async def upgrade() -> None:
        changed = {"server": server, "workers": WORKERS, "limits": {"registrations": 9}}
        await asyncio.to_thread(lambda: installed.install(**changed))  # type: ignore[arg-type]

    for act in (reload, upgrade):
        assert asyncio.run(handshakes_during(installed, act)) > 3
    assert installed.routes()


@pytest.mark.parametrize("server", SERVERS)
def test_under_supervisor_a_hangup_replaces_the_workers_and_refuses_nobody(installed: Console, server: str) -> None:
    installed.install(server=server, manager="supervisor", workers=WORKERS)
    before = installed.main_pids()["supervisor"]

    async def hang_up() -> None:
        await replaced(installed, "supervisorctl", "signal", "HUP", NAME)

    assert asyncio.run(handshakes_during(installed, hang_up)) > 3
    assert installed.main_pids()["supervisor"] == before
    installed.host.reboot()
    assert installed.comes_to_route()
    asyncio.run(until(lambda: len(workers_of(installed)) == WORKERS))
