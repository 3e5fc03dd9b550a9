"""The way by which clients pass on from worker to worker, when one of the two does not do its part."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import uvloop

from service.core.addresses import Address
from service.core.bus_records import Moving, Passed, Restarts
from service.core.close_codes import RESTART
from service.core.frames import SUBPROTOCOL
from service.core.restarts import AWAY_S
from service.core.session import Session
from service.engine.envelope import MOVES, VERSIONS, Beat, Greeting, encode
from service.engine.links import Identity, Links
from service.fast import passing, restart
from service.fast.fast import FastShell, WebSocket
from service.fast.handover import Given, freeze
from service.fast.handover import settle as until_settled
from service.fast.passing import Door, PassingError
from service.process.notify import Notifier
from tests.service.centers import Party
from tests.service.engines import FakeTeller
from tests.service.test_handover import CLOSE, PING, PONG, TEXT, Guest, Process, run, to
from tests.service.transports import frame, until
from tests.service.workers import Host, Worker


class Two:
    """Two workers that hear each other at once, the second of a later release. Some have an engine, on which another
    host is.
    """

    def __init__(self, directory: Path, joined: Collection[str] = (), versions: tuple[int, int] = VERSIONS) -> None:
        loop = asyncio.get_running_loop()
        self.host = Host(0)
        self.old, self.new = self.host.add(str(os.getpid())), self.host.add("1")  # who connects is known by the first
        for worker in (self.old, self.new):
            for sender, wire in worker.incoming.items():
                wire.send_also = partial(loop.call_soon, worker.arrive, sender)
        self.host.settle()
        self.process = _process(self.old)
        self.links = {name: _join(getattr(self, name), versions) for name in joined}
        self.doors = [
            Door(_process(worker).shell if worker is self.new else self.process.shell, worker.bus, directory, release)
            for release, worker in enumerate((self.old, self.new))
        ]

    async def guest(self) -> Guest:
        guest = await self.process.connect()
        await guest.say(frame(TEXT, to("me", "connected")))
        await guest.say(frame(TEXT, to("me", "there")))
        assert await guest.hears() == (TEXT, to("me", "there"))
        return guest

    def close(self) -> None:
        for door in self.doors:
            door._listener.close()

    def is_tidy(self) -> bool:
        moves = (self.old.bus.moves, self.new.bus.moves)
        return not any(each._arriving or each._behind or each._lost for each in moves)


def _process(worker: Worker) -> Process:
    process = Process.__new__(Process)
    process.world, process.shell = worker, FastShell(worker.center, set())
    Process.all.append(process)
    return process


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "PATIENCE_S", 0.3)


def test_clients_pass_on_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "BATCH", 3)

    async def pass_on() -> None:
        two = Two(tmp_path)
        guests = [await two.process.connect() for _ in range(7)]
        two.doors[1].open()
        batches: list[int] = []
        assert await two.doors[0].pass_on(lambda: batches.append(len(two.new.center.hub.members))) == 7
        assert batches == [3, 6, 7]
        assert len(two.new.center.hub.members) == 7
        assert not two.old.center.hub.members
        assert two.old.center.hub.tally.handed_over == two.new.center.hub.tally.taken_over == 7
        for guest in guests:
            await guest.say(frame(PING, b"?"))
            assert await guest.hears() == (PONG, b"?")
        assert two.is_tidy()
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def _join(worker: Worker, versions: tuple[int, int]) -> Links:
    """Give a worker an engine, on which a worker of another host is that speaks these versions."""
    me, soon = Identity(f"a.{worker.number}.x", "a", "boot", "a"), asyncio.get_running_loop().call_soon
    links = Links(worker.bus, me, 0.5, publish=lambda *_: None, soon=soon, teller=FakeTeller())
    links.hear(encode(Beat("b.1.x", "b", "boot", versions, 0.5, 0, 0.0, {})))
    links.hear(encode(Greeting("b.1.x", "b", versions, 0.5, 5, links._links["b.1.x"].mine, 0)))
    worker.bus.far = links
    return links


def test_clients_stay_while_another_host_would_not_know_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def pass_on() -> None:
        two = Two(tmp_path, ("old", "new"), (1, MOVES - 1))
        assert two.links["old"].up
        two.doors[1].open()
        guest = await two.guest()
        assert await two.doors[0].pass_on() == 0
        assert "another host has an older release" in caplog.text
        await guest.say(frame(PING, b"?"))
        assert await guest.hears() == (PONG, b"?")
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def test_a_worker_of_another_host_that_does_not_answer_is_waited_for_until_its_link_ends(
    tmp_path: Path, short_patience: None
) -> None:
    async def pass_on() -> None:
        two = Two(tmp_path, ("old", "new"))
        two.doors[1].open()
        await two.guest()
        passing_on = asyncio.create_task(two.doors[0].pass_on())
        await asyncio.sleep(passing.PATIENCE_S + 0.1)
        assert not passing_on.done()
        two.links["old"]._end(two.links["old"]._links["b.1.x"], "silence")
        assert await passing_on == 1
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


@pytest.mark.parametrize("has_engine", ["old", "new"])
def test_clients_do_not_pass_between_workers_of_which_one_has_an_engine(tmp_path: Path, has_engine: str) -> None:
    async def pass_on() -> None:
        two = Two(tmp_path, (has_engine,))
        two.doors[1].open()
        await two.guest()
        assert await two.doors[0].pass_on() == 0
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def test_one_that_was_just_about_something_passes_on_when_that_is_over(tmp_path: Path) -> None:
    async def pass_on() -> None:
        two = Two(tmp_path)
        two.doors[1].open()
        owner = await two.guest()
        claimant = await two.process.connect(SUBPROTOCOL)
        await claimant.tell(type="hello", id=1, uuid="me")
        opcode, payload = await owner.hears()  # whether it is alive
        assert opcode == PING
        passing_on = asyncio.create_task(two.doors[0].pass_on())
        await asyncio.sleep(0.1)
        await owner.say(frame(PONG, payload))
        assert await passing_on == 2
        assert (await claimant.hears_text())["code"] == 113
        assert two.is_tidy()
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def test_one_that_is_about_something_for_long_is_waited_for_as_long_as_others_pass_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pass_on() -> None:
        two = Two(tmp_path)
        two.doors[1].open()
        owner, other = await two.guest(), await two.process.connect()
        claimant = await two.process.connect(SUBPROTOCOL)
        await claimant.tell(type="hello", id=1, uuid="me")
        opcode, payload = await owner.hears()  # whether it is alive
        assert opcode == PING
        rounds: list[int] = []

        async def settle(clients: Iterable[WebSocket]) -> None:
            rounds.append(len(list(clients)))
            if len(rounds) == 2:
                await owner.say(frame(PONG, payload))  # it is read when that round is over
            elif len(rounds) == 3:
                await until_settled(clients)

        monkeypatch.setattr(passing, "settle", settle)
        assert await two.doors[0].pass_on() == 3
        assert rounds == [3, 2, 2]
        await other.say(frame(PING, b"?"))
        assert await other.hears() == (PONG, b"?")
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def test_clients_pass_on_however_much_they_have_let_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "BATCH_BYTES", 75_000, raising=False)
    monkeypatch.setattr(passing, "MAX_BYTES", 100_000)

    async def pass_on() -> None:
        two = Two(tmp_path)
        guests, frames = [await two.process.connect() for _ in range(5)], []
        for guest, length in zip(guests, (60_000, 60_000, 10, 10, 60_000), strict=True):
            frames.append(frame(TEXT, to("nobody", "x" * length)))
            await guest.say(frames[-1][:-1])
        await asyncio.sleep(0.1)
        two.doors[1].open()
        assert await two.doors[0].pass_on() == 5
        for guest, whole in zip(guests, frames, strict=True):
            await guest.say(whole[-1:] + frame(PING, b"behind"))
            assert await guest.hears() == (PONG, b"behind")
        assert two.is_tidy()
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, pass_on())


def test_where_nobody_takes_them_they_stay(tmp_path: Path) -> None:
    async def stay() -> None:
        two = Two(tmp_path)
        guest = await two.guest()
        assert await two.doors[0].pass_on() == 0
        path = tmp_path / f"{two.new.number}-1.door"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert await two.doors[0].pass_on() == 0
        await guest.say(frame(TEXT, to("me", "still")))
        assert await guest.hears() == (TEXT, to("me", "still"))
        two.close()

    run(uvloop.new_event_loop, stay())


def test_a_worker_that_does_not_hear_of_them_gets_none(
    tmp_path: Path, short_patience: None, caplog: pytest.LogCaptureFixture
) -> None:
    async def stay() -> None:
        two = Two(tmp_path)
        guest = await two.guest()
        two.doors[1].open()
        for wire in two.new.incoming.values():
            wire.send_also = lambda: None
        assert await two.doors[0].pass_on() == 0
        await guest.say(frame(TEXT, to("me", "still")))
        assert await guest.hears() == (TEXT, to("me", "still"))
        two.host.settle()
        assert two.is_tidy()
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, stay())
    assert "takes no clients: a worker does not answer" in caplog.text


def test_when_the_states_cannot_be_sent_clients_are_closed_with_1012(
    tmp_path: Path, short_patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    async def close() -> None:
        two = Two(tmp_path)
        guest = await two.guest()
        two.doors[1].open()
        monkeypatch.setattr(passing, "_write", fail)
        assert await two.doors[0].pass_on() == 0
        opcode, payload = await guest.hears()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf4")
        for worker in (two.old, two.new):
            await until(lambda: worker.center.hub.owner_of("me") is None)  # type: ignore[arg-type]  # noqa: B023
            assert worker.center.connections == 0
        await until(two.is_tidy)
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, close())


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0",
        passing._head.pack(1, 0),
        passing._head.pack(0, passing.MAX_BYTES + 1),
        passing._head.pack(0, 100) + b"cut off",
        passing._head.pack(0, 4) + b"\xc1\xc1\xc1\xc1",
        passing._head.pack(0, 2) + msgspec.msgpack.encode([b""])[:2],
    ],
)
def test_who_says_nothing_sensible_is_logged_and_nobody_waits_for_its_clients(
    said: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def hear() -> None:
        two = Two(tmp_path)
        guest = await two.guest()
        two.doors[1].open()
        frozen = freeze(two.process.shell.clients)
        fenced = asyncio.get_running_loop().create_future()
        number = two.old.bus.moves.announce([frozen[0].session], two.old.peers[two.new.number], fenced.set_result)
        assert await fenced
        state, connection = frozen[0].leave()
        two.old.bus.moves.left(frozen[0].session, two.old.peers[two.new.number])
        two.old.bus.moves.finish(number, two.old.peers[two.new.number])
        connection.close()
        assert state
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(two.doors[1]._path))
            other.sendall(said)
        await until(two.is_tidy)
        assert two.new.center.hub.owner_of("me") is None  # type: ignore[arg-type]
        assert guest.rest == b""
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, hear())
    assert "has not handed over all of its clients" in caplog.text


def test_one_whose_worker_has_died_meanwhile_comes_all_the_same_and_nothing_remains(tmp_path: Path) -> None:
    async def come() -> None:
        two = Two(tmp_path)
        guest = await two.guest()
        two.doors[1].open()
        frozen = freeze(two.process.shell.clients)
        fenced = asyncio.get_running_loop().create_future()
        to_new = two.old.peers[two.new.number]
        two.old.bus.moves.announce([frozen[0].session], to_new, fenced.set_result)
        assert await fenced
        given = Given(*frozen[0].leave())
        two.host.kill(two.old.number)
        assert not two.is_tidy()
        assert two.new.center.hub.owner_of("me") is None  # type: ignore[arg-type]
        with socket.socket(socket.AF_UNIX) as other:
            other.setblocking(False)
            await asyncio.get_running_loop().sock_connect(other, str(two.doors[1]._path))
            await passing._write(asyncio.get_running_loop(), other, [given])
            given.connection.close()
        await asyncio.sleep(0.05)
        await guest.say(frame(PING, b"?"))
        assert await guest.hears() == (PONG, b"?")
        assert two.new.bus.moves._lost == {}
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, come())


def test_nobody_passes_on_while_another_host_restarts(tmp_path: Path) -> None:
    """What is kept for its clients would be overtaken by what is sent later, from the new worker."""

    async def wait() -> None:
        two = Two(tmp_path, ("old", "new"))
        two.doors[1].open()
        await two.guest()
        (peer,) = (peer for peer in two.old.bus.peers.values() if not peer.is_near)
        for record in (Restarts([Moving(None, Address("x"), [(Address("x"), 0.0)], [])]), Passed(1, "1")):
            two.old.bus.act(peer, record)
        signs: list[float] = []
        passing_on = asyncio.create_task(two.doors[0].pass_on(lambda: signs.append(0.0)))
        await asyncio.sleep(3 * passing.LOOK_S)
        assert not passing_on.done()
        assert signs
        two.links["old"]._end(two.links["old"]._links["b.1.x"], "silence")
        two.old.passes(AWAY_S)
        assert await passing_on == 1
        two.doors[1].close()
        two.close()

    run(uvloop.new_event_loop, wait())


def test_a_restart_does_not_wait_long_for_a_worker_of_another_host_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restart, "FOLLOWING_S", 0.05)

    async def keep() -> None:
        two = Two(tmp_path, ("old",))
        guest = await two.guest()
        await restart.keep_clients(two.process.shell, Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}), {})
        assert await guest.hears() == (CLOSE, b"\x03\xf4service restart")
        two.close()

    run(uvloop.new_event_loop, keep())
    assert "a worker of another host does not answer" in caplog.text


class FakeWebSocket:
    """A client that is ready to leave."""

    may_leave = True

    def __init__(self, session: Session) -> None:
        self.session = session

    def freeze(self) -> bool:
        return True

    def thaw(self) -> None:
        pass


async def pass_in_vain(directory: Path, stuck: str, others: Callable[[], object]) -> tuple[Party, Party, list[Worker]]:
    """Ann is to pass from the first worker to the next one, of which the first hears nothing, or of the third one."""
    shell: Any = SimpleNamespace(loop=asyncio.get_running_loop())
    source, target, third = workers = [Worker(str(os.getpid())), Worker("1"), Worker("2")]
    for worker, other in ((target, source), (third, source), (third, target)):
        worker.meet(other)
    ann, watcher = source.v1("ann"), target.v1("watcher")
    while target.arrive(source.number) or source.arrive("1"):
        pass
    watcher.say(type="presence", id=0, uuids=["ann"], watch=True)
    assert watcher.heard()[0]["online"] == ["ann"]
    door, source_door = (Door(shell, worker.bus, directory, 1) for worker in (target, source))
    door.open()
    clients: Any = [FakeWebSocket(ann.session)]
    leaving = asyncio.create_task(source_door._pass(clients, source.peers["1"], door._path, others))
    while not leaving.done():
        if source.bus.moves.leaving:  # what follows is heard of later
            target.arrive(source.number)
            if stuck != "1":
                source.arrive("1")
        await asyncio.sleep(0)
    assert isinstance(leaving.exception(), PassingError)
    await asyncio.gather(*door._tasks)
    assert len(target.bus.moves._arriving) == 1
    while any(worker.arrive(sender) for worker in workers for sender in worker.peers):
        pass
    door.close()
    source_door.close()
    for worker in workers:
        moves = worker.bus.moves
        assert not any((moves._arriving, moves._fences, moves._behind, moves.leaving))
    return ann, watcher, workers


def test_who_stays_because_the_next_worker_does_not_answer_in_time_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "PATIENCE_S", 0.05)
    ann, watcher, (source, *others) = asyncio.run(pass_in_vain(tmp_path, "1", lambda: None))
    assert watcher.heard() == []
    assert ann.client.closed == []
    for worker in others:
        assert worker.center.hub.owner_of(ann.session.addresses[1]) is worker.peers[source.number]


def test_who_can_stay_no_more_because_a_third_worker_is_stuck_is_waited_for_and_then_closed_with_1012(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "PATIENCE_S", 0.05)
    monkeypatch.setattr(passing, "OTHERS_S", 0.05)
    signs: list[float] = []
    ann, watcher, workers = asyncio.run(pass_in_vain(tmp_path, "2", lambda: signs.append(0.0)))
    assert signs
    assert ann.client.closed == [RESTART]
    assert [(frame["type"], frame["state"]) for frame in watcher.heard()] == [("presence", "offline")]
    for worker in workers:
        assert worker.center.hub.owner_of(ann.session.addresses[1]) is None
        assert not worker.center.hub.is_ours(ann.session)
