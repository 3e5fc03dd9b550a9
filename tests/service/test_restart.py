"""A restart of the unit ends no connection, and a stop ends them all."""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from service.fast.handover import Given
from service.fast.restart import keep_clients, take_clients_back
from service.mailbox.database import Lock
from service.process.descriptor_store import PER_MESSAGE, stored_sets
from service.process.notify import Notifier
from tests.service.service_manager import ServiceManager, Unit, managing
from tests.service.shells import DEADLINE_S, HANDSHAKE, Client
from tests.service.test_handover import CLOSE, LOOPS, TEXT, Guest, Process, give_all, run
from tests.service.test_mailbox_conformance import Kept
from tests.service.test_v1_conformance import Caller
from tests.service.transports import frame


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    with managing(tmp_path / "notify") as manager, contextlib.closing(Unit(tmp_path, manager)) as unit:
        yield unit


class Pair:
    """Two clients that send each other numbers."""

    def __init__(self, unit: Unit, stack: ExitStack, number: int) -> None:
        self.names = (f"left-{number}", f"right-{number}")
        self.clients = [stack.enter_context(Client(unit.url)) for _ in self.names]
        for client, name in zip(self.clients, self.names, strict=True):
            client.register(name)
        self.sent = self.heard = 0

    def send(self) -> None:
        self.sent += 1
        self.clients[0].send_to(self.names[1], self.sent)

    def hears_all(self) -> None:
        while self.heard < self.sent:
            self.heard += 1
            assert json.loads(self.clients[1].receive())["message"] == self.heard


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(1, 1, 1), (3, 2, 1, 3)])
def test_clients_stay_over_restarts_and_what_they_send_meanwhile_arrives_in_order(
    workers: tuple[int, ...], unit: Unit
) -> None:
    unit.start(WORKERS=str(workers[0]))
    with ExitStack() as stack:
        pairs = [Pair(unit, stack, number) for number in range(40)]
        for number in workers[1:]:
            for pair in pairs:
                pair.send()
            assert unit.end(signal.SIGINT) == 0
            for pair in pairs:
                pair.send()
            unit.start(WORKERS=str(number))
            for pair in pairs:
                pair.send()
                pair.hears_all()
            assert unit.manager.stored == []
            taken = [
                int(line) for line in re.findall("(\\d+) clients are served on, 0 have gone", unit.log.read_text())
            ]
            assert sum(taken) == 80
            unit.log.write_text("")
        assert unit.end(signal.SIGTERM) == 0
        assert {client.close_code() for pair in pairs for client in pair.clients} == {1012}
    assert "Traceback" not in unit.log.read_text()
    assert unit.manager.stored == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_stay_whose_address_others_ask_for_again_and_again(workers: str, unit: Unit) -> None:
    unit.start(WORKERS=workers)
    with ExitStack() as stack:
        alice = stack.enter_context(Caller(unit, "alice"))
        mallories = [stack.enter_context(Caller(unit)) for _ in range(4)]
        for mallory in mallories:
            for number in range(20):
                mallory.tell("hello", id=f"{number}", uuid="alice")
                mallory.tell("ping")
        time.sleep(0.1)  # one probe is answered at once, and the next one has to wait for a second
        unit.restart()
        assert alice.ask("ping")["type"] == "pong"
    assert "Traceback" not in unit.log.read_text()


def test_what_a_recipient_has_acknowledged_is_told_to_the_sender_though_it_is_on_its_way_to_the_disk(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    with (
        managing(tmp_path / "notify") as manager,
        contextlib.closing(Unit(tmp_path, manager, **kept.settings())) as unit,
    ):
        unit.start()
        with kept.caller(unit, "bob", {}) as bob, kept.caller(unit, "alice") as alice:
            assert alice.ask("send", recipient_uuid="bob", message=1, ack="delivered")["receipts"] == 1
            offset = bob.hear()["offset"]
            with Lock(kept.mailbox / "lock").held():
                bob.tell("ack", offset=offset)
                bob.ask("ping")
                assert unit.process is not None
                unit.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            assert unit.process.wait(DEADLINE_S) == 0
            unit.start()
            assert alice.hear()["type"] == "delivered"


def test_nobody_holds_up_a_restart_for_which_clients_wait(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    settings = {"WEBSOCKET_KEYS": kept.keys, "WEBSOCKET_DRAIN_TIMEOUT": "30", "WEBSOCKET_HEADER_TIMEOUT": "30"}
    head = f"POST /publish/alice HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {kept.token('script')}\r\n"
    with (
        managing(tmp_path / "notify") as manager,
        contextlib.closing(Unit(tmp_path, manager, **settings)) as unit,
        ExitStack() as stack,
    ):
        unit.start()
        alice = stack.enter_context(Client(unit.url))
        slow, broken = [
            stack.enter_context(socket.create_connection(("127.0.0.1", unit.port), DEADLINE_S)) for _ in range(2)
        ]
        slow.sendall(f"{head}Content-Length: 9\r\n\r\nwhat".encode())
        broken.sendall(HANDSHAKE + b"\r\n\xff\xff")
        while b"\x03\xea" not in broken.recv(65536):  # the close frame, with 1002
            pass
        began = time.monotonic()
        unit.restart()
        assert time.monotonic() - began < 20
        alice.hears_nothing_but_itself()
        assert slow.recv(65536).startswith(b"HTTP/1.1 503 ")
    assert " ERROR " not in unit.log.read_text()


async def say(guest: Guest, recipient: str, message: object) -> None:
    await guest.say(frame(TEXT, json.dumps({"recipient_uuid": recipient, "message": message}).encode()))


@LOOPS
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nobody_is_read_before_all_are_there(
    order: tuple[int, int], new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """What the one sends while no process runs is for the other, whichever of them comes first."""

    async def play(manager: ServiceManager) -> None:
        old, new = Process("old-"), Process("new-")
        environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
        notifier = Notifier({"NOTIFY_SOCKET": manager.path})
        guests = [await old.connect(), await old.connect()]
        for index in order:
            await say(guests[index], f"guest-{index}", "connected")
            await say(guests[index], f"guest-{index}", "me")
            assert b"me" in (await guests[index].hears())[1]
        await keep_clients(old.shell, notifier, environ)
        assert not old.shell.clients
        for index in order:
            await say(guests[index], f"guest-{1 - index}", f"from {index}")
        sets = list(stored_sets([(name, os.dup(descriptor)) for name, descriptor in manager.stored]))
        await take_clients_back(new.shell, sets, notifier, environ)
        for index in order:
            assert f"from {1 - index}".encode() in (await guests[index].hears())[1]
        notifier.settle()
        assert manager.stored == []

    with managing(tmp_path / "notify") as manager:
        run(new_loop, play(manager))


@LOOPS
def test_who_sends_something_and_goes_while_no_process_runs_is_heard(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def play(manager: ServiceManager) -> None:
        old, new = Process("old-"), Process("new-")
        environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
        notifier = Notifier({"NOTIFY_SOCKET": manager.path})
        alice, bob = await old.connect(), await old.connect()
        await say(alice, "alice", "connected")
        await say(alice, "alice", "me")
        assert b"me" in (await alice.hears())[1]
        await keep_clients(old.shell, notifier, environ)
        await say(bob, "alice", "goodbye")
        await bob.say(frame(CLOSE, b"\x03\xe8"))
        sets = list(stored_sets([(name, os.dup(descriptor)) for name, descriptor in manager.stored]))
        await take_clients_back(new.shell, sets, notifier, environ)
        assert b"goodbye" in (await alice.hears())[1]

    with managing(tmp_path / "notify") as manager:
        run(new_loop, play(manager))


def test_what_cannot_be_kept_is_closed_with_1012(tmp_path: Path) -> None:
    async def play() -> None:
        old = Process("old-")
        guest = await old.connect()
        await keep_clients(old.shell, Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}), {})
        assert await guest.hears() == (CLOSE, b"\x03\xf4service restart")

    run(asyncio.new_event_loop, play())


def free_below(end: int) -> set[int]:
    return set(range(end)) - {int(each) for each in os.listdir("/proc/self/fd")}


def test_without_descriptors_for_all_the_others_stay_connected(tmp_path: Path) -> None:
    number = 60

    async def play(manager: ServiceManager, stack: ExitStack) -> None:
        old = Process("old-")
        for _ in range(number):
            await old.connect()
        notifier = Notifier({"NOTIFY_SOCKET": manager.path})
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # What is open above the limit takes none of the places below it.
        limit = next(end for end in range(soft) if len(free_below(end)) == number // 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        await keep_clients(old.shell, notifier, {"RUNTIME_DIRECTORY": str(tmp_path)})
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        kept = 0
        for each in stored_sets([(name, os.dup(descriptor)) for name, descriptor in manager.stored]):
            with contextlib.closing(each):
                for _, connection in chain.from_iterable(each.read()):
                    kept += 1
                    connection.close()
        assert 0 < kept < number
        assert kept + len(old.shell.clients) == number

    with managing(tmp_path / "notify") as manager, ExitStack() as stack:
        run(asyncio.new_event_loop, play(manager, stack))


@pytest.mark.slow
def test_a_process_that_dies_while_it_takes_them_back_loses_those_alone_that_it_has(unit: Unit) -> None:
    unit.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(unit.url)) for _ in range(2 * PER_MESSAGE)]
        assert unit.end(signal.SIGINT) == 0
        # What a process has read when it is killed goes with it.
        (stored,) = stored_sets([(name, os.dup(descriptor)) for name, descriptor in unit.manager.stored])
        for _, connection in next(stored.read()):
            connection.close()
        stored.close()
        unit.start()
        assert "25 clients are served on, 0 have gone or could not be" in unit.log.read_text()
        assert sum(is_open(client) for client in clients) == PER_MESSAGE
        assert unit.manager.stored == []


def is_open(client: Client) -> bool:
    try:
        client.hears_nothing_but_itself()
    except ConnectionClosed:
        return False
    return True


@pytest.mark.slow
def test_however_often_it_is_killed_what_is_left_is_served_on(unit: Unit) -> None:
    unit.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(unit.url)) for _ in range(10 * PER_MESSAGE)]
        for pause in (0.2, 0.4, 0.6, 0.8):
            unit.end(signal.SIGINT)
            process = unit.begin()
            time.sleep(pause)  # wherever it is then
            process.kill()
            process.wait()
        unit.start()
        those = [client for client in clients if is_open(client)]
        unit.restart()
        assert all(map(is_open, those))
        assert unit.manager.stored == []
    assert "Traceback" not in unit.log.read_text()


@pytest.mark.slow
def test_a_stop_before_the_service_can_keep_anybody_leaves_them_to_the_next_process(unit: Unit) -> None:
    unit.start()
    with Client(unit.url) as client:
        unit.end(signal.SIGINT)
        for _ in range(3):
            unit.begin()
            assert unit.end(signal.SIGINT) in (0, -signal.SIGINT)
        assert "Traceback" not in unit.log.read_text()
        unit.start()
        client.hears_nothing_but_itself()


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"WEBSOCKET_DRAIN_KEEP": "false"}, {"FDSTORE": ""}, {"FDSTORE": "0"}])
def test_where_nobody_keeps_them_they_are_sent_away(variables: dict[str, str], unit: Unit) -> None:
    unit.start(**variables)
    with Client(unit.url) as client:
        assert unit.end(signal.SIGINT) == 0
        assert client.close_code() == 1012
    assert unit.manager.stored == []


def test_how_many_are_handed_over_and_taken_over_is_counted() -> None:
    async def play() -> None:
        old, new, strict = Process("old-"), Process("new-"), Process("strict-", auth="token")
        for _ in range(3):
            await old.connect()
        given = await give_all(old.shell)
        assert old.world.center.hub.tally.handed_over == 3
        await new.take([Given(b"of another release", given[0].connection), given[1]])
        assert new.world.center.hub.tally.taken_over == 1
        assert new.world.center.hub.tally.not_taken_over == {"not_understood": 1}
        await strict.take([given[2]])
        assert strict.world.center.hub.tally.not_taken_over == {"refused": 1}
        assert strict.world.center.hub.tally.closed == {4001: 1}

    run(asyncio.new_event_loop, play())
