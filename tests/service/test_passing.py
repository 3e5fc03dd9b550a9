"""A reload replaces all workers, and no client can tell when."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from service.core.frames import SUBPROTOCOL
from tests.examples import EXAMPLES
from tests.service.processes import several
from tests.service.servers import PROGRAMS, serving
from tests.service.shells import wait_until
from tests.service.test_reload import Deployment

pytestmark = pytest.mark.slow


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with contextlib.ExitStack() as stack:
        deployment = Deployment(tmp_path, "runner", stack)
        yield deployment
        assert "Traceback" not in deployment.workers.shell.log()


class Pair:
    """A client of each version; both send each other numbers, and want to hear of each that is has arrived."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.old_hears: list[int] = []
        self.new_hears: list[int] = []
        self.answers: dict[int, list[str]] = {}
        self.sent = 0
        self.may_stop = asyncio.Event()
        self.other_frames: list[str] = []

    async def talk(self, url: str, ready: asyncio.Semaphore, to: str | None = None) -> None:
        """The one of nc.v1 may be on another host."""
        protocols = [SUBPROTOCOL]
        async with (
            connect(url, proxy=None) as old,
            connect(to or url, proxy=None, subprotocols=protocols) as new,  # type: ignore[arg-type]
        ):
            await old.recv()
            for message in ("connected", "are you there?"):
                await old.send(json.dumps({"recipient_uuid": f"old-{self.number}", "message": message}))
            await old.recv()
            await new.recv()
            await new.send(json.dumps({"type": "hello", "id": 0, "uuid": f"new-{self.number}"}))
            await new.recv()
            listening = [asyncio.create_task(self._listen_old(old)), asyncio.create_task(self._listen_new(new))]
            ready.release()
            while not self.may_stop.is_set():
                self.sent += 1
                await old.send(json.dumps({"recipient_uuid": f"new-{self.number}", "message": self.sent}))
                request = {"id": self.sent, "recipient_uuid": f"old-{self.number}", "message": self.sent}
                await new.send(json.dumps({**request, "ack": "accepted"}))
                await asyncio.sleep(0.02)
            for _ in range(200):
                if min(len(self.old_hears), len(self.new_hears), len(self.answers)) >= self.sent:
                    break
                await asyncio.sleep(0.05)
            for task in listening:
                task.cancel()

    async def _listen_old(self, connection: ClientConnection) -> None:
        async for text in connection:
            self.old_hears.append(json.loads(text)["message"])

    async def _listen_new(self, connection: ClientConnection) -> None:
        async for text in connection:
            frame = json.loads(text)
            if frame["type"] == "msg":
                self.new_hears.append(frame["message"])
            elif "id" in frame:
                self.answers.setdefault(frame["id"], []).append(frame["type"])
            else:
                self.other_frames.append(frame["type"])


def test_no_client_notices_that_all_workers_are_replaced(deployment: Deployment) -> None:
    async def talk() -> list[Pair]:
        pairs, ready = [Pair(number) for number in range(8)], asyncio.Semaphore(0)
        talks = [asyncio.create_task(pair.talk(deployment.workers.shell.url, ready)) for pair in pairs]
        for _ in pairs:
            await ready.acquire()
        await asyncio.sleep(0.2)
        for _ in range(3):
            await asyncio.to_thread(deployment.reload_to, 2)
        for pair in pairs:
            pair.may_stop.set()
        await asyncio.gather(*talks)
        return pairs

    for pair in asyncio.run(talk()):
        numbers = list(range(1, pair.sent + 1))
        assert pair.old_hears == numbers
        assert pair.new_hears == numbers
        assert pair.answers == {number: ["ok"] for number in numbers}
        assert pair.other_frames == []
    log = deployment.workers.shell.log()
    assert "takes no clients" not in log
    assert "cannot be served on" not in log
    wait_until(lambda: deployment.workers.are_complete())


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_client_of_two_hosts_notices_that_all_workers_of_both_are_replaced(name: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(serving(name, tmp_path))
        settings = {"WEBSOCKET_ENGINE_URL": engine.url, "WEBSOCKET_ENGINE_SILENCE": "4"}
        here, there = (
            Deployment(tmp_path / host, "runner", stack, WEBSOCKET_ENGINE_HOST=host, **settings) for host in "ab"
        )
        urls = here.workers.shell.url, there.workers.shell.url

        async def talk() -> tuple[list[Pair], list[Watcher]]:
            pairs, ready = [Pair(number) for number in range(8)], asyncio.Semaphore(0)
            watchers = [Watcher() for _ in urls]
            talks = [
                asyncio.create_task(pair.talk(urls[pair.number % 2], ready, urls[1 - pair.number % 2]))
                for pair in pairs
            ]
            for _ in pairs:
                await ready.acquire()
            uuids = [f"{kind}-{pair.number}" for pair in pairs for kind in ("old", "new")]
            talks += [
                asyncio.create_task(watcher.watch(url, uuids, ready))
                for watcher, url in zip(watchers, urls, strict=True)
            ]
            for _ in watchers:
                await ready.acquire()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(here.reload_to, 2)
            await asyncio.to_thread(there.reload_to, 2)
            await asyncio.gather(*(asyncio.to_thread(each.reload_to, 2) for each in (here, there)))
            for each in watchers:
                each.may_stop.set()
            await asyncio.gather(*talks[len(pairs) :])
            for pair in pairs:
                pair.may_stop.set()
            await asyncio.gather(*talks)
            return pairs, watchers

        pairs, watchers = asyncio.run(talk())
        for pair in pairs:
            numbers = list(range(1, pair.sent + 1))
            assert pair.old_hears == numbers
            assert pair.new_hears == numbers
            assert pair.answers == {number: ["ok"] for number in numbers}
            assert pair.other_frames == []
        for watcher in watchers:
            assert watcher.heard == []
        for each in (here, there):
            log = each.workers.shell.log()
            assert "takes no clients" not in log
            assert "cannot be served on" not in log
            assert "Traceback" not in log


class Watcher:
    """A client that watches who is there, and has everybody confirm what it sends to a group of all."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.may_stop = asyncio.Event()

    async def watch(self, url: str, uuids: list[str], ready: asyncio.Semaphore) -> None:
        async with connect(url, proxy=None, subprotocols=[SUBPROTOCOL]) as link:  # type: ignore[list-item]
            await link.recv()
            await link.send(json.dumps({"type": "hello", "id": 0}))
            await link.recv()
            await link.send(json.dumps({"type": "presence", "id": 1, "uuids": uuids, "watch": True}))
            assert sorted(json.loads(await link.recv())["online"]) == sorted(uuids)
            ready.release()
            listening = asyncio.create_task(self._listen(link))
            await self.may_stop.wait()
            assert not listening.done()
            listening.cancel()

    async def _listen(self, link: ClientConnection) -> None:
        async for text in link:
            self.heard.append(str(text))


def test_what_else_is_in_the_directory_of_the_bus_keeps_no_worker_from_serving(tmp_path: Path) -> None:
    bus = tmp_path / "bus"
    bus.mkdir(mode=0o700)
    for name in ("x.door", "1-x.door", "99999999-0.door"):
        (bus / name).touch()
    with several("runner", 2, bus) as workers:
        assert "x.door" not in {path.name for path in bus.iterdir()}
        assert workers.shell.log().count("Application startup complete") == 2
        assert "lifespan" not in workers.shell.log()
    (bus / "99999999-0.door").mkdir()
    with several("runner", 2, bus) as workers:
        assert "no clients can pass to or from this worker at a reload" in workers.shell.log()
        assert workers.shell.log().count("Application startup complete") == 2
        assert "lifespan" not in workers.shell.log()


class Witness:
    """One that sends to another until either is cut off, and whether what it was told is true."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard: list[int] = []
        self.said_to_have_left: list[int] = []
        self.may_stop = asyncio.Event()

    async def talk(self, url: str, ready: asyncio.Semaphore) -> None:
        async with (
            connect(url, proxy=None, close_timeout=1) as recipient,
            connect(url, proxy=None, close_timeout=1, subprotocols=[SUBPROTOCOL]) as sender,  # type: ignore[list-item]
        ):
            await recipient.recv()
            for message in ("connected", "are you there?"):
                await recipient.send(json.dumps({"recipient_uuid": f"to-{self.number}", "message": message}))
            await recipient.recv()
            await sender.recv()
            await sender.send(json.dumps({"type": "hello", "id": 0}))
            await sender.recv()
            listening = [asyncio.create_task(self._listen(recipient)), asyncio.create_task(self._answers(sender))]
            ready.release()
            number = 0
            with contextlib.suppress(ConnectionClosed):
                while not self.may_stop.is_set():
                    number += 1
                    request = {"id": number, "recipient_uuid": f"to-{self.number}", "message": number}
                    await sender.send(json.dumps({**request, "ack": "accepted"}))
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            await sender.close()
            await recipient.close()
            await asyncio.gather(*listening)

    async def _listen(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                self.heard.append(json.loads(text)["message"])

    async def _answers(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                answer = json.loads(text)
                if answer["type"] == "ok":
                    self.said_to_have_left.append(answer["id"])


@pytest.mark.parametrize("seed", range(2 * EXAMPLES))
def test_when_a_worker_is_killed_in_the_middle_nobody_was_told_what_is_not_true(
    deployment: Deployment, seed: int
) -> None:
    chance = random.Random(seed)

    async def talk() -> list[Witness]:
        witnesses, ready = [Witness(number) for number in range(12)], asyncio.Semaphore(0)
        talks = [asyncio.create_task(witness.talk(deployment.workers.shell.url, ready)) for witness in witnesses]
        for _ in witnesses:
            await ready.acquire()
        for _ in range(3):
            deployment.workers.shell.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(chance.random() * 2)
            deployment.workers.kill(chance.choice(deployment.workers.pids()))
            await asyncio.to_thread(deployment.workers.wait)
        for witness in witnesses:
            witness.may_stop.set()
        await asyncio.gather(*talks)
        return witnesses

    for witness in asyncio.run(talk()):
        assert witness.heard == sorted(set(witness.heard))
        assert set(witness.said_to_have_left) <= set(witness.heard)
    deployment.reload_to(2)
    assert deployment.welcome() == "Welcome!"
