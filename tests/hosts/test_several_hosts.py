"""Three hosts, of which one serves the engine, are one notification center, whatever happens to one of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import running
from tests.hosts.console import DOMAIN, NAME, Console, clients_come_to
from tests.hosts.driver import Network
from tests.hosts.test_engine import CERTIFICATE, KEY, PASSWORD, certify, engine_of
from tests.hosts.test_mailbox import IN_ENGINE, People, goes_on_sending, play, restarted
from tests.hosts.test_tokens import KEYS
from wsbundle_client import Client, RequestError

PATIENCE_S = 20.0
NOBODY = 114  # has this address, as far as is known
NAMES = ("one", "two", "three")


class Hosts:
    """Three of them, not yet installed; the first one is to serve the engine."""

    def __init__(self, consoles: list[Console], network: Network) -> None:
        self.consoles, self.network = consoles, network
        certify(consoles[0], network.addresses[0])

    def engine(self, number: int, **other: Any) -> dict[str, Any]:
        engine = {"url": f"valkeys://{self.network.addresses[0]}:6390", "user": NAME, "host": NAMES[number]}
        if number == 0:
            return {**engine, "ca": CERTIFICATE, "serve": True, "cert": CERTIFICATE, "key": KEY, **other}
        return {**engine, "ca": CERTIFICATE, "password_file": PASSWORD, **other}

    def carry(self, number: int, *paths: str) -> None:
        """Bring files of the first host to another, as the operator does."""
        for path in paths:
            self.consoles[number].write(path, self.consoles[0].run("cat", path))

    def install(self, number: int, code: int = 0, engine: dict[str, Any] | None = None, **settings: Any) -> str:
        return self.consoles[number].install(code=code, engine=engine or self.engine(number), **settings)


@pytest.fixture
def hosts(warm_layers: tuple[Path, ...]) -> Iterator[Hosts]:
    with running(*warm_layers) as one, running(*warm_layers) as two, running(*warm_layers) as three:
        network = Network([each.host for each in (one, two, three)])
        try:
            yield Hosts([one, two, three], network)
        finally:
            network.destroy()


@asynccontextmanager
async def clients(hosts: Hosts, *uuids: str) -> AsyncIterator[list[Client]]:
    """One on each host."""
    with clients_come_to():
        async with AsyncExitStack() as stack:
            pairs = zip(uuids, hosts.consoles, strict=False)
            made = [Client(f"ws://{DOMAIN}/?{console.host.address}", uuid=uuid) for uuid, console in pairs]
            for client in made:
                await asyncio.wait_for(stack.enter_async_context(client), PATIENCE_S)
            yield made


async def is_sent(client: Client, to: str) -> None:
    """Say something as soon as it can be said."""
    while (refusal := await refusal_of(client, to)) is not None:
        if not refusal.temporary and refusal.code != NOBODY:
            raise refusal
        await asyncio.sleep(0.05)


async def refusal_of(client: Client, to: str) -> RequestError | None:
    """Why a message is not accepted; None where it is."""
    try:
        await client.send(to, "hello")
    except RequestError as error:
        return error
    return None


async def in_time(awaited: Any) -> Any:
    return await asyncio.wait_for(awaited, PATIENCE_S)


async def they_are_one(hosts: Hosts) -> None:
    async with clients(hosts, "alice", "bob", "carol") as (alice, bob, carol):
        for sender, to, recipient in ((alice, "bob", bob), (bob, "carol", carol), (carol, "alice", alice)):
            sent = await alice_sends(sender, to)
            assert (await asyncio.wait_for(anext(recipient), PATIENCE_S)).message == "hello"
            await recipient.confirm()
            assert await asyncio.wait_for(sent.outcome(), PATIENCE_S) == "delivered"
        for client in (alice, bob, carol):
            await client.join("room")
        for _ in range(round(PATIENCE_S / 0.05)):  # the news that they are members takes a moment
            if (await alice.send_to_group("room", "all of you")).online == 2:
                break
            await asyncio.sleep(0.05)
        for client in (bob, carol):
            assert (await asyncio.wait_for(anext(client), PATIENCE_S)).message == "all of you"
        assert await carol.presence(["alice", "bob", "nobody"]) == {"alice", "bob"}


async def alice_sends(sender: Client, to: str) -> Any:
    return await asyncio.wait_for(sender.send(to, "hello", ack="delivered"), PATIENCE_S)


class Traffic:
    """Clients of two hosts that talk to each other: what was accepted must come."""

    def __init__(self) -> None:
        self.accepted: set[int] = set()
        self.heard: set[int] = set()

    async def talk(self, client: Client, to: str, step: int) -> None:
        number = step
        while True:
            try:
                await client.send(to, number)
                self.accepted.add(number)
            except RequestError as error:
                if not error.temporary and error.code != NOBODY:
                    raise
            number += 2
            await asyncio.sleep(0.02)

    async def has_come(self) -> None:
        for _ in range(round(PATIENCE_S / 0.05)):
            if self.accepted <= self.heard:
                break
            await asyncio.sleep(0.05)
        assert self.accepted <= self.heard

    async def listen(self, client: Client) -> None:
        async for message in client:
            self.heard.add(message.message)


async def nothing_is_lost(hosts: Hosts, act: Any) -> int:
    """While something is done to the hosts; how many messages were accepted meanwhile."""
    traffic = Traffic()
    async with clients(hosts, "alice", "bob") as (alice, bob):
        tasks = [
            traffic.talk(alice, "bob", 0),
            traffic.talk(bob, "alice", 1),
            traffic.listen(alice),
            traffic.listen(bob),
        ]
        talking = [asyncio.create_task(task) for task in tasks]
        await asyncio.to_thread(act)
        for task in talking[:2]:
            task.cancel()
        await traffic.has_come()
        for task in talking[2:]:
            assert not task.done()
            task.cancel()
    return len(traffic.accepted)


def test_they_are_one_center_through_changes_a_cut_and_a_leave(hosts: Hosts) -> None:
    hosts.install(0)
    for number in (1, 2):
        hosts.carry(number, PASSWORD, CERTIFICATE)
        said = hosts.install(number)
        assert "meet the other hosts" in said
        assert ", ".join(sorted(NAMES[:number])) in said
    asyncio.run(they_are_one(hosts))
    assert "3: two (this one), one, three" in hosts.consoles[1].status()

    def another_welcome() -> None:
        for number in (1, 0, 2):
            hosts.install(number, welcome="Hello {uuid}")

    assert asyncio.run(nothing_is_lost(hosts, another_welcome)) > 50
    assert asyncio.run(nothing_is_lost(hosts, lambda: hosts.consoles[2].wsbundle("uninstall"))) > 5
    assert "2: two (this one), one" in hosts.consoles[1].status()
    assert asyncio.run(nothing_is_lost(hosts, lambda: hosts.install(2))) > 5
    asyncio.run(it_is_cut_off(hosts))


def test_a_phone_that_was_off_finds_all_of_it_once_and_in_order_on_whichever_host_it_comes_back_to(
    hosts: Hosts, tmp_path: Path
) -> None:
    one, two, three = hosts.consoles
    hosts.install(0, **IN_ENGINE)
    for number in (1, 2):
        hosts.carry(number, PASSWORD, CERTIFICATE, KEYS)
        hosts.consoles[number].run("chmod", "600", KEYS)  # its user there is only made now
        hosts.install(number, **IN_ENGINE)
    people, unit = People(one, tmp_path), engine_of(one)
    play(
        partial(people.look, two, lambda: True),
        partial(people.send, one, 5),
        partial(people.look, three, people.has_all),
        *(partial(goes_on_sending, people, two, partial(restarted, console)) for console in hosts.consoles),
        partial(goes_on_sending, people, three, partial(one.run, "systemctl", "restart", unit)),
        partial(goes_on_sending, people, two, partial(one.run, "systemctl", "kill", "--signal=KILL", unit)),
        partial(people.send, three, 5),
    )
    assert len(people.heard) == 5
    enough = len(people.stored) // 2
    play(
        partial(people.look, one, lambda: len(people.heard) > enough),
        partial(people.look, two, people.has_all),
        partial(people.look, three, lambda: len(people.heard) > len(people.stored) + len(people.unsure)),
    )
    people.had_all_once_in_order()


async def a_refusal(client: Client, to: str) -> RequestError:
    for _ in range(round(PATIENCE_S / 0.05)):
        if (refusal := await refusal_of(client, to)) is not None:
            return refusal
        await asyncio.sleep(0.05)
    raise AssertionError("everything is accepted")


async def it_is_cut_off(hosts: Hosts) -> None:
    async with clients(hosts, "alice", "bob", "carol") as (alice, _, carol):
        await in_time(is_sent(alice, "carol"))
        hosts.network.cut(3)
        assert (await a_refusal(alice, "carol")).temporary
        await in_time(is_sent(alice, "bob"))
        await in_time(is_sent(carol, "carol"))
        said = await asyncio.to_thread(hosts.consoles[2].status, 1)
        assert "ALONE: the engine at" in said
        hosts.network.join(3)
        await in_time(is_sent(alice, "carol"))
    said = await asyncio.to_thread(hosts.consoles[2].status)
    assert "3: three (this one), one, two" in said


def test_what_would_not_join_them_is_told_before_anything_changes(hosts: Hosts) -> None:
    hosts.install(0)
    two = hosts.consoles[1]
    hosts.carry(1, CERTIFICATE)
    assert f"there is no {PASSWORD}; copy it from the host that serves the engine" in hosts.install(1, code=1)
    two.write(PASSWORD, "guessed\n")
    assert f"refuses the user {NAME}" in hosts.install(1, code=1)
    hosts.carry(1, PASSWORD)
    assert "lets queue-websocket do too little" in hosts.install(1, code=1, engine=hosts.engine(1, name="others"))
    plain = hosts.engine(1, url=f"valkey://{hosts.network.addresses[0]}:6390", insecure=True)
    plain.pop("ca")
    assert "is this port without TLS?" in hosts.install(1, code=1, engine=plain)
    without = hosts.engine(1)
    without.pop("ca")
    assert "name its authority in engine.ca" in hosts.install(1, code=1, engine=without)
    assert "another machine is host one there already" in hosts.install(1, code=1, engine=hosts.engine(1, host="one"))
    assert two.run("ls", "/opt") == f"{NAME}\n"  # its runtime, which was there
    assert two.current() == ""
    hosts.install(1)
    assert "2: two (this one), one" in two.status()
    assert "leaves the other hosts" in leave(two)


def leave(console: Console) -> str:
    console.configure()
    return console.wsbundle("plan", code=3)
