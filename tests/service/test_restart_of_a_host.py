"""A host restarts, and its clients stay connected: no client of another host notices, nor does any of its own."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.core.frames import SUBPROTOCOL
from tests.service.processes import Processes, several
from tests.service.releases import release_before
from tests.service.servers import PROGRAMS, serving
from tests.service.service_manager import Unit, managing
from tests.service.shells import ROOT, wait_until
from tests.service.test_hosts import Client

pytestmark = pytest.mark.slow

PAIRS = 10


class Talker:
    """Sends numbers to another one, watches it, and confirms what it hears."""

    def __init__(self, name: str, other: str) -> None:
        self.name, self.other = name, other
        self.is_watching = asyncio.Event()
        self.may_stop = asyncio.Event()
        self.has_heard = asyncio.Event()
        self.may_leave = asyncio.Event()
        self.sent = 0
        self.heard: list[int] = []
        self.in_group: dict[str, list[int]] = {}
        self.answers: dict[int, list[str]] = {}
        self.others: list[dict[str, Any]] = []

    async def talk(self, url: str) -> None:
        """Until it may stop, and has heard of all that it has sent. If it fails, nobody waits for it."""
        try:
            await self._talk(url)
        finally:
            self.is_watching.set()
            self.has_heard.set()

    async def _talk(self, url: str) -> None:
        async with connect(url, proxy=None, subprotocols=[Subprotocol(SUBPROTOCOL)]) as connection:
            await connection.recv()
            await self._ask(connection, type="hello", uuid=self.name)
            await self._ask(connection, type="join", group="all")
            listening = asyncio.create_task(self._listen(connection))
            await self._watch(connection)
            while not self.may_stop.is_set():
                await self._send(connection)
                await asyncio.sleep(0.02)
            for _ in range(400):
                if all(self.has_heard_of(number) for number in range(1, self.sent + 1)):
                    break
                await asyncio.sleep(0.05)
            self.has_heard.set()
            await self.may_leave.wait()
            listening.cancel()

    def has_heard_of(self, number: int) -> bool:
        """Whether it was told all that it is to be told: `ok`, and of each third message that it has arrived."""
        answers = self.answers.get(number, [])
        return "error" in answers or len(answers) == (2 if number % 3 == 0 else 1)

    async def _ask(self, connection: ClientConnection, **frame: object) -> dict[str, Any]:
        await connection.send(json.dumps({"id": 0, **frame}))
        answer: dict[str, Any] = json.loads(await connection.recv())
        assert answer["type"] == "ok"
        return answer

    async def _watch(self, connection: ClientConnection) -> None:
        while not self.is_watching.is_set():
            await connection.send(json.dumps({"type": "presence", "id": "watch", "uuids": [self.other], "watch": True}))
            await asyncio.sleep(0.1)
        self.others.clear()

    async def _send(self, connection: ClientConnection) -> None:
        self.sent += 1
        ack = ("delivered", "accepted", "accepted")[self.sent % 3]
        to = {"group": "all"} if self.sent % 5 == 0 and ack == "accepted" else {"recipient_uuid": self.other}
        await connection.send(json.dumps({"type": "send", "id": self.sent, **to, "message": self.sent, "ack": ack}))

    async def _listen(self, connection: ClientConnection) -> None:
        async for text in connection:
            frame = json.loads(text)
            if "key" in frame:
                await connection.send(json.dumps({"type": "ack", "key": frame["key"]}))
            if frame["type"] == "msg" and "group" in frame:
                self.in_group.setdefault(frame["sender_uuid"], []).append(frame["message"])
            elif frame["type"] == "msg":
                self.heard.append(frame["message"])
            elif frame.get("id") == "watch":
                if frame["online"]:
                    self.is_watching.set()
            elif frame["type"] in ("ok", "error", "delivered", "lost"):
                self.answers.setdefault(frame["id"], []).append(frame["type"])
            else:
                self.others.append(frame)


@contextlib.contextmanager
def logged(**logs: Callable[[], str]) -> Iterator[None]:
    """If it fails, it is seen what each said."""
    try:
        yield
    except BaseException:
        for name, log in logs.items():
            print(f"--- {name}:", log(), sep="\n")
        raise


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    with managing(tmp_path / "notify") as manager, contextlib.closing(Unit(tmp_path, manager)) as unit:
        yield unit
        assert "Traceback" not in unit.log.read_text()


def to_group(number: int) -> bool:
    return number % 5 == 0 and number % 3 != 0


@contextlib.asynccontextmanager
async def talking(unit: Unit, there: Processes) -> AsyncIterator[list[Talker]]:
    """Some here and some there, for as long as it lasts, and until they have heard of all that they have sent."""
    here = [Talker(f"here-{number}", f"there-{number}") for number in range(PAIRS)]
    others = [Talker(talker.other, talker.name) for talker in here]
    talks = [asyncio.create_task(talker.talk(unit.url)) for talker in here]
    talks += [asyncio.create_task(talker.talk(there.shell.url)) for talker in others]
    for talker in here + others:
        await talker.is_watching.wait()
    await asyncio.sleep(0.3)
    yield here + others
    await asyncio.sleep(0.3)
    for talker in here + others:
        talker.may_stop.set()
    for talker in here + others:
        await talker.has_heard.wait()
    await asyncio.sleep(0.3)
    for talker in here + others:
        talker.may_leave.set()
    await asyncio.gather(*talks)


async def restart(unit: Unit, there: Processes, restarts: tuple[int, ...], **variables: str) -> list[Talker]:
    """Restarts, with so many workers each, while they talk."""
    async with talking(unit, there) as talkers:
        for workers in restarts:
            await asyncio.to_thread(unit.restart, WORKERS=str(workers), **variables)
            await asyncio.sleep(0.3)
    return talkers


async def restart_while_one_is_slow(unit: Unit, there: Processes, **variables: str) -> list[Talker]:
    """The same, once, while a worker of the other host stands still for longer than it is waited for."""
    async with talking(unit, there) as talkers:
        slow = there.pids()[0]
        os.kill(slow, signal.SIGSTOP)
        restarting = asyncio.create_task(asyncio.to_thread(unit.restart, WORKERS="2", **variables))
        await asyncio.to_thread(wait_until, lambda: "a worker of another host does not answer" in unit.log.read_text())
        await asyncio.sleep(1)
        os.kill(slow, signal.SIGCONT)
        await restarting
    return talkers


async def restart_while_one_stands_still(unit: Unit, there: Processes, **variables: str) -> list[Talker]:
    """The same, once; a worker of the other host stands still while the next process hears of the others."""
    async with talking(unit, there) as talkers:
        still = there.pids()[0]
        assert await asyncio.to_thread(unit.end, signal.SIGINT) == 0
        os.kill(still, signal.SIGSTOP)
        starting = asyncio.create_task(asyncio.to_thread(unit.start, WORKERS="2", **variables))
        await asyncio.sleep(1.8)
        os.kill(still, signal.SIGCONT)
        await starting
        await asyncio.sleep(0.3)
    return talkers


def check_that_nobody_has_noticed(talkers: list[Talker]) -> None:
    by_name = {talker.name: talker for talker in talkers}
    for talker in talkers:
        assert talker.others == [], talker.name
        numbers = range(1, talker.sent + 1)
        assert by_name[talker.other].heard == [number for number in numbers if not to_group(number)]
        assert {number: sorted(answers) for number, answers in talker.answers.items()} == {
            number: ["delivered", "ok"] if number % 3 == 0 else ["ok"] for number in numbers
        }
        for other in talkers:
            if other is not talker:
                assert other.in_group[talker.name] == [number for number in numbers if to_group(number)]


@contextlib.contextmanager
def two_hosts(
    engine: str, unit: Unit, tmp_path: Path, silence: str = "4", release: str = str(ROOT)
) -> Iterator[tuple[Processes, dict[str, str]]]:
    """One is a unit, and the other one, which is of that release, is given with what the unit is to be started with."""
    with serving(engine, tmp_path) as server:
        settings = {"WEBSOCKET_ENGINE_URL": server.url, "WEBSOCKET_ENGINE_SILENCE": silence}
        ours = {**settings, "WEBSOCKET_ENGINE_HOST": "a", "WEBSOCKET_BUS": str(tmp_path / "bus")}
        unit.start(WORKERS="2", **ours)
        with (
            several("runner", 2, tmp_path / "b", release, WEBSOCKET_ENGINE_HOST="b", **settings) as there,
            logged(here=unit.log.read_text, there=there.shell.log),
        ):
            yield there, ours
            assert "Traceback" not in there.shell.log()
        assert unit.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_nobody_notices_that_the_service_of_a_host_restarts(name: str, unit: Unit, tmp_path: Path) -> None:
    with two_hosts(name, unit, tmp_path) as (there, ours):
        check_that_nobody_has_noticed(asyncio.run(restart(unit, there, (2, 1, 3), **ours)))


def test_the_next_process_waits_for_those_that_keep_what_is_for_its_clients(unit: Unit, tmp_path: Path) -> None:
    with two_hosts(PROGRAMS[0], unit, tmp_path) as (there, ours):
        check_that_nobody_has_noticed(asyncio.run(restart_while_one_stands_still(unit, there, **ours)))


def test_if_a_worker_of_another_host_is_slow_what_is_lost_is_told_and_nobody_is_disconnected(
    unit: Unit, tmp_path: Path
) -> None:
    with two_hosts(PROGRAMS[0], unit, tmp_path, silence="20") as (there, ours):
        talkers = asyncio.run(restart_while_one_is_slow(unit, there, **ours))
        by_name = {talker.name: talker for talker in talkers}
        for talker in talkers:
            assert [frame["type"] for frame in talker.others if frame["type"] != "presence"] == []
            states = [frame["state"] for frame in talker.others]
            assert states in ([], ["offline", "online"]), talker.name
            for number in range(1, talker.sent + 1):
                assert talker.has_heard_of(number)
            for numbers in (by_name[talker.other].heard, *talker.in_group.values()):
                assert numbers == sorted(set(numbers))

            told = {number for number, answers in talker.answers.items() if "delivered" in answers}
            assert told <= {*by_name[talker.other].heard}


def test_a_host_of_the_release_before_sees_them_go_and_come_back(unit: Unit, tmp_path: Path) -> None:
    before = release_before(tmp_path / "before")
    with two_hosts(PROGRAMS[0], unit, tmp_path, release=before) as (there, ours):
        here, watcher = Client(unit, "here"), Client(there.shell, "watcher")
        wait_until(lambda: watcher.ask(type="presence", uuids=["here"], watch=True)["online"] == ["here"])
        unit.restart(WORKERS="2", **ours)
        assert [watcher.hear().get("state") for _ in range(2)] == ["offline", "online"]
        assert here.send("watcher")["online"] == 1
        assert watcher.hear()["message"] == "hi"
        assert watcher.send("here")["online"] == 1
        assert here.hear()["message"] == "hi"
        assert "does not understand" not in there.shell.log() + unit.log.read_text()
        here.close()
        watcher.close()
