"""The load generator tells a server that does its job from one that does not."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bench import load
from bench.behind import OURS, WAYS
from bench.load import Cost, LoadError
from bench.programs import MissingError
from bench.servers import SERVERS, Running, Server, StartError, running
from service.core.frames import SUBPROTOCOL

pytestmark = pytest.mark.slow

NC_V1 = Subprotocol(SUBPROTOCOL)

WRONG_SERVER = str(Path(__file__).with_name("wrong_server.py"))


@pytest.fixture(autouse=True)
def _with_a_compiler() -> None:
    try:
        load.program()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def floor() -> Iterator[Running]:
    with running(SERVERS["floor"]) as server:
        yield server


class Slow:
    """A server that does the job, and keeps each message for one of its clients for a while."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self._clients: dict[int, ServerConnection] = {}

    async def measure(self, pairs: int, seconds: float) -> Cost:
        async with serve(self._serve_client, "127.0.0.1", 0, compression=None) as server:
            (listener,) = server.sockets
            running = Running(listener.getsockname()[1], [os.getpid()], subscribes_by_path=False, cpus=1, home=Path())
            return await asyncio.to_thread(load.route, running, window=1, seconds=seconds, pairs=pairs)

    async def _serve_client(self, client: ServerConnection) -> None:
        await client.send("Welcome!")
        async for text in client:
            data = json.loads(text)
            number = int(data["recipient_uuid"][-12:])
            if data["message"] == "connected":
                self.order.append(number)
                self._clients[number] = client
                continue
            if number == 1:
                await asyncio.sleep(0.01)
            await self._clients[number].send(text)


def what_is_found(wrong: str, window: int) -> str:
    server = Server("wrong", lambda port, _: [sys.executable, WRONG_SERVER, str(port), wrong])
    with running(server) as started, pytest.raises(LoadError) as found:
        load.route(started, window, seconds=0.5, pairs=4)
    return str(found.value)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("lose", "lost or out of order"),
        ("change", "changed"),
        ("shorten", "changed"),
        # Its recipient may miss it before the other client gets it.
        ("misroute", "misrouted|out of order"),
        ("return_to_sender", "misrouted|out of order"),
        ("repeat", "out of order"),
        ("close", "closed the connection of client [0-9]+ with 1013"),
    ],
)
def test_a_server_that_is_wrong_once_is_found_out(wrong: str, found: str) -> None:
    assert re.search(found, what_is_found(wrong, window=8))


def test_the_last_message_of_a_client_is_missed_too() -> None:
    assert what_is_found("lose", window=1) == "route: lost: 1 messages"


def test_messages_that_arrived_are_counted(floor: Running) -> None:
    cost = load.route(floor, window=4, seconds=0.5, pairs=3)
    assert cost.done > 10
    assert 0.5 <= cost.seconds < 30
    assert 0 < cost.server_seconds <= cost.seconds
    assert 0 < cost.load_seconds <= cost.seconds


def test_the_cpu_time_of_each_process_is_told_apart(floor: Running) -> None:
    cost = load.route(floor._replace(pids=[os.getpid(), *floor.pids]), window=4, seconds=0.2, pairs=3)
    idle, busy = cost.process_seconds
    assert 0 <= idle < busy / 2


def test_no_pair_runs_away_from_one_that_is_served_late() -> None:
    cost = asyncio.run(Slow().measure(pairs=4, seconds=0.2))
    assert cost.done < 4 * 2 * 64


@pytest.mark.parametrize("together", [1, 2, 10])
def test_about_half_of_the_pairs_have_one_in_each_worker_however_many_workers_take_together(together: int) -> None:
    server = Slow()
    asyncio.run(server.measure(pairs=50, seconds=0.5))
    worker = {number: turn // together % 2 for turn, number in enumerate(server.order)}
    assert 15 <= sum(worker[number] != worker[number + 1] for number in range(0, 100, 2)) <= 35


def test_handshakes_to_the_close_are_counted(floor: Running) -> None:
    cost = load.handshakes(floor, seconds=0.5)
    assert cost.done > 5
    assert 0 < cost.server_seconds <= cost.seconds


def test_memory_of_idle_connections_is_that_of_one(floor: Running) -> None:
    assert 0 <= load.idle(floor, 200) < 100


def test_the_result_is_a_line_of_json(floor: Running) -> None:
    command = [load.program(), "idle", str(floor.port), "20", str(floor.pids[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).keys() == {"connections", "resident_kib"}
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["route"], ["walk", "8765", "1", "1"], ["idle", "8765", "many", "1"], ["idle", "1", "1", "1"]]
)
def test_what_it_cannot_do_is_said_as_json_too(words: list[str]) -> None:
    done = subprocess.run([load.program(), *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert json.loads(done.stdout)["fault"]


def test_the_time_of_each_message_counts_from_when_it_was_due(floor: Running) -> None:
    pace = load.pace(floor, 1000, seconds=0.5, pairs=3)
    assert pace.done == 500
    assert 0 < pace.p50 <= pace.p99 < 5


def test_clients_of_a_storm_that_are_turned_away_are_counted() -> None:
    fast = SERVERS["fast"]
    with running(fast._replace(environment={**fast.environment, "WEBSOCKET_MAX_CONNECTIONS": "20"})) as server:
        storm = load.storm(server, 50)
        assert (storm.done, storm.lost) == (20, 30)


def test_clients_speak_tls() -> None:
    with running(WAYS["deployed-tls"]) as server:
        assert load.route(server, 4, seconds=0.3, pairs=3).done > 10
        assert load.handshakes(server, seconds=0.5).done > 5
        assert load.storm(server, 50).lost == load.storm(server, 50, no_more_than_tls=True).lost == 0
        with pytest.raises(LoadError, match=r"dropped the connection|wrong|refused"):
            load.route(server._replace(tls=False), 4, seconds=0.3, pairs=3)


class Group:
    """A group of all that have joined, of which one hears the tenth message in a wrong way."""

    def __init__(self, wrong: str) -> None:
        self._wrong = wrong
        self._members: list[ServerConnection] = []
        self._said = 0

    async def measure(self) -> Cost:
        async with serve(self._serve_client, "127.0.0.1", 0, compression=None, subprotocols=[NC_V1]) as server:
            (listener,) = server.sockets
            running = Running(listener.getsockname()[1], [os.getpid()], subscribes_by_path=False, cpus=1, home=Path())
            return await asyncio.to_thread(load.group, running, OURS, members=5, seconds=0.5)

    async def _serve_client(self, client: ServerConnection) -> None:
        await client.send("Welcome!")
        with contextlib.suppress(ConnectionClosed):
            await self._hear(client)

    async def _hear(self, client: ServerConnection) -> None:
        async for text in client:
            data = json.loads(text)
            if data["type"] == "send":
                await self._pass_on(client, str(data["message"]))
                continue
            if data["type"] == "join":
                self._members.append(client)
            await client.send("ok")

    async def _pass_on(self, sender: ServerConnection, text: str) -> None:
        self._said += 1
        members = [member for member in self._members if member is not sender]
        for member in members:
            is_last = self._said == 10 and member is members[-1]
            texts = {"lose": [], "change": [text[::-1]], "repeat": [text, text]}.get(self._wrong, [text])
            for each in texts if is_last else [text]:
                await member.send(each)


def test_messages_to_a_group_are_counted_for_each_member() -> None:
    cost = asyncio.run(Group("").measure())
    assert cost.done > 10


@pytest.mark.parametrize(
    ("wrong", "found"),
    [("lose", "lost: nothing has arrived|lost: 1 members"), ("change", "not the message"), ("repeat", "got it twice")],
)
def test_a_group_in_which_one_member_hears_something_else_is_found_out(wrong: str, found: str) -> None:
    with pytest.raises(LoadError, match=found):
        asyncio.run(Group(wrong).measure())


def test_a_server_that_does_not_start_says_why() -> None:
    broken = Server("broken", lambda port, _: [sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(StartError, match="no such luck"), running(broken):
        pass


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_of_the_comparison_routes(name: str) -> None:
    try:
        with running(SERVERS[name]) as server:
            assert load.route(server, window=2, seconds=0.5, pairs=3).done > 0
    except MissingError as error:
        pytest.skip(str(error))
