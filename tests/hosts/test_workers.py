"""Four workers are one notification center, whoever is killed, replaced or installed anew."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.talkers import TALKERS, talk

WORKERS, CALLERS = 4, 80
PATIENCE_S = 60.0
SERVERS = ("uvicorn", "gunicorn", "standalone")
OURS = ("uvicorn", "standalone")


def workers_of(console: Console) -> set[int]:
    """The processes that take part in the bus."""
    listed = console.run("sh", "-c", f"cd /run/{NAME}/bus && ls")
    return {int(name.removesuffix(".sock")) for name in listed.split() if name.endswith(".sock") and name[0].isdigit()}


def that_have_clients(console: Console) -> set[int]:
    """The processes that nginx has passed connections on to."""
    shown = console.run("sh", "-c", f"ss -Hxnp state established | grep /run/{NAME}/ws.sock || true")
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
                pass
            finally:
                self.is_there.clear()
            await asyncio.sleep(0.3)

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


@asynccontextmanager
async def one_in_each(console: Console) -> AsyncIterator[dict[int, ClientConnection]]:
    """A client in each worker: while it connects, the other workers are held up."""
    workers, clients = workers_of(console), {}
    for worker in workers:
        others = " ".join(map(str, workers - {worker}))
        await asyncio.to_thread(console.run, "sh", "-c", f"kill -STOP {others}")
        try:
            clients[worker] = await dial(console.host.address)
            assert "Welcome" in await clients[worker].recv()
        finally:
            await asyncio.to_thread(console.run, "sh", "-c", f"kill -CONT {others}")
    yield clients
    for client in clients.values():
        await client.close()


async def welcome(console: Console) -> str:
    async with await dial(console.host.address) as client:
        return str(await client.recv())


async def fewest_workers(console: Console, act: Callable[[], Awaitable[object]]) -> int:
    """How many workers there were at least while something happened."""
    acting, numbers = asyncio.ensure_future(act()), [WORKERS]
    while not acting.done():
        numbers.append(len(await asyncio.to_thread(workers_of, console)))
    await acting
    return min(numbers)


async def ended(client: ClientConnection) -> float:
    """When a client was sent away by a worker that stops."""
    await client.wait_closed()
    assert client.close_code == 1012
    return time.monotonic()


async def several_there(console: Console) -> set[int]:
    await until(lambda: len(workers_of(console)) == WORKERS)
    return workers_of(console)


@pytest.mark.parametrize(("server", "keep"), [("uvicorn", True), ("uvicorn", False), ("standalone", False)])
def test_an_upgrade_replaces_one_worker_after_the_other(installed: Console, server: str, keep: bool) -> None:
    # All clients come from one address.
    limits = {"connections_per_address": 1000, "handshakes_per_second": 1000, "handshake_burst": 1000}
    running: dict[str, Any] = {"server": server, "workers": WORKERS, "limits": limits, "drain": {"keep": keep}}
    ends_them = "live connections end with it, those of each worker in its turn"
    changed = {**running, "welcome": "Welcome back {uuid}"}
    installed.install(**running)
    before = installed.main_pids()
    said = []

    async def upgrade() -> None:
        said.append(await asyncio.to_thread(lambda: installed.install(**changed)))

    async def play() -> None:
        old = await several_there(installed)
        async with crowd(installed) as callers, one_in_each(installed) as clients:
            installed.configure(**changed)
            planned = await asyncio.to_thread(installed.wsbundle, "plan", code=3)
            assert "  reloads the service, worker by worker" in planned
            number = CALLERS + WORKERS
            assert (f"0 of {number} live connections end" if keep else f"{number} {ends_them}") in planned
            handshakes, fewest, *ends = await asyncio.gather(
                handshakes_during(installed, upgrade),
                fewest_workers(installed, lambda: until(lambda: len(said) > 0)),
                *(() if keep else map(ended, clients.values())),
            )
            assert handshakes > 10
            assert fewest >= WORKERS - 1
            moments = sorted(ends)
            # A successor has to start in between.
            assert all(later - earlier > 0.2 for earlier, later in itertools.pairwise(moments))
            assert {client.close_code for client in clients.values()} == ({None} if keep else {1012})
            await all_there(callers)
            assert await lost_while(callers, nothing_happens) == (0, CALLERS)
        assert not old & await several_there(installed)
        assert "Welcome back" in await welcome(installed)

    asyncio.run(play())
    assert f"reload {NAME}.service, worker by worker" in said[0]
    assert (ends_them in said[0]) is not keep
    assert installed.main_pids() == before
    assert "Nothing to do" in installed.install(**changed)
    for number in (2, 6):
        installed.install(**{**changed, "workers": number})
        asyncio.run(until(lambda: len(workers_of(installed)) == number))  # noqa: B023
    assert installed.main_pids() == before
    assert installed.comes_to_route()


def test_other_code_is_reloaded_and_restarted_only_where_workers_would_not_understand_it(installed: Console) -> None:
    installed.install(workers=WORKERS)
    before = installed.main_pids()
    old = asyncio.run(several_there(installed))
    installed.run("sh", "-c", "echo '# New.' >>service/web/metrics.py")
    assert "worker by worker" in installed.install(workers=WORKERS)
    new = asyncio.run(several_there(installed))
    assert not old & new
    runs_in = {installed.run("readlink", f"/proc/{pid}/cwd").strip() for pid in new}
    assert runs_in == {installed.run("sh", "-c", f"dirname $(readlink -f /opt/{NAME}/current/service)").strip()}
    assert installed.main_pids() == before
    installed.run("sh", "-c", "echo '# New.' >>service/core/bus.py")
    assert "worker by worker" not in installed.install(workers=WORKERS)
    assert installed.main_pids()[f"{NAME}.service"] != before[f"{NAME}.service"]
    assert installed.comes_to_route()


@pytest.mark.parametrize("server", OURS)
def test_an_upgrade_whose_workers_do_not_start_is_undone(installed: Console, server: str) -> None:
    installed.install(server=server, workers=WORKERS)
    generation = installed.current()
    installed.write("/etc/keys.json", "{")
    said = installed.install(server=server, workers=WORKERS, auth="token", keys="/etc/keys.json", code=1)
    assert f"reloading {NAME}.service failed" in said
    assert "the new worker does not start; the others stay as they are" in said
    assert f"Undone: generation {generation} runs again." in said
    assert installed.current() == generation
    assert installed.comes_to_route()
    asyncio.run(several_there(installed))


def test_an_upgrade_that_is_killed_while_workers_are_replaced_is_undone(installed: Console) -> None:
    installed.install(workers=WORKERS, drain={"rate": 1, "keep": False})
    generation = installed.current()
    old = asyncio.run(several_there(installed))
    with ExitStack() as clients:
        for _ in range(5):  # one second for each
            clients.enter_context(installed.client())
        installed.configure(workers=WORKERS, drain={"rate": 1, "keep": False}, welcome="Welcome back {uuid}")
        installed.run("sh", "-c", ".venv/bin/wsbundle install >/dev/null 2>&1 & echo $! >/run/installer")
        asyncio.run(until(lambda: bool(workers_of(installed) - old)))
        installed.run("sh", "-c", "kill -9 $(cat /run/installer)")
        asyncio.run(until(lambda: "pending.json" not in installed.run("ls", f"/opt/{NAME}")))
    assert installed.current() == generation
    assert installed.comes_to_route()
    assert "Welcome! " in asyncio.run(welcome(installed))
    asyncio.run(several_there(installed))


@pytest.mark.parametrize("server", OURS)
def test_a_reload_says_what_has_become_of_it_and_takes_its_time(installed: Console, server: str) -> None:
    installed.install(server=server, workers=WORKERS, drain={"rate": 1, "keep": False})
    old = asyncio.run(several_there(installed))
    before = installed.main_pids()
    installed.run("sed", "-i", "s/^WORKERS=.*/WORKERS='many'/", f"/etc/{NAME}/.env")
    assert installed.host.run("systemctl", "reload", NAME, check=False).returncode == 1
    assert "WORKERS: 'many' is not a whole number" in installed.run("journalctl", "-u", NAME, "-n", "20", "-o", "cat")
    assert workers_of(installed) == old
    installed.run("sed", "-i", f"s/^WORKERS=.*/WORKERS='{WORKERS}'/", f"/etc/{NAME}/.env")
    # Longer than systemd would wait: the service tells it how long each step may take.
    installed.write(f"/etc/systemd/system/{NAME}.service.d/short.conf", "[Service]\nTimeoutStartSec=3s\n")
    installed.run("systemctl", "daemon-reload")
    with ExitStack() as clients:
        for _ in range(5):
            clients.enter_context(installed.client())
        began = time.monotonic()
        installed.run("systemctl", "reload", NAME)
        assert time.monotonic() - began > 4
    new = workers_of(installed)
    assert len(new) == WORKERS
    assert not new & old
    assert installed.main_pids() == before


@pytest.mark.parametrize("server", SERVERS)
def test_under_supervisor_a_hangup_replaces_the_workers_and_refuses_nobody(installed: Console, server: str) -> None:
    installed.install(server=server, manager="supervisor", workers=WORKERS)
    before = installed.main_pids()["supervisor"]

    async def hang_up() -> None:
        await replaced(installed, "supervisorctl", "signal", "HUP", NAME)

    installed.run("sed", "-i", "s/'Welcome!/'Welcome back!/", f"/etc/{NAME}/.env")
    assert asyncio.run(handshakes_during(installed, hang_up)) > 3
    assert installed.main_pids()["supervisor"] == before
    # gunicorn's first process keeps the settings that it was started with.
    assert ("Welcome back!" in asyncio.run(welcome(installed))) is (server in OURS)
    installed.host.reboot()
    assert installed.comes_to_route()
    asyncio.run(until(lambda: len(workers_of(installed)) == WORKERS))
