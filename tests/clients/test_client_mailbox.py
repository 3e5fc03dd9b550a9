"""The client for Python with a mailbox, against a service that comes and goes."""

import asyncio
from pathlib import Path

import pytest

from tests.clients.client_behaviours import FOUND, SECOND, Server
from tests.service.shells import DEADLINE_S
from tests.service.test_mailbox_conformance import Kept
from wsbundle_client import Client, Event, File, Memory, Position

NO_POSITIONS = [
    *("[]", "{}", "null", "7", '"e"', '{"epoch": "e"}', '{"after": 7}', '{"epoch": "e", "after": null}'),
    *('{"epoch": "e", "after": -1}', '{"epoch": "e", "after": 9007199254740992}', '{"epoch": "e", "after": 1e999}'),
    *('{"epoch": "e", "after": true}', '{"epoch": "e", "after": "7"}', '{"epoch": 7, "after": 7}', 50_000 * "["),
]


async def away(url: str, token: str, file: Path) -> None:
    """It asks for its mailbox, and goes."""
    async with Client(url, "bob", token=token, mailbox=File(file)):
        pass


async def fetch(url: str, token: str, file: Path, number: int, events: list[Event]) -> list[object]:
    """So many messages, each handled."""
    heard: list[object] = []
    async with Client(url, "bob", token=token, mailbox=File(file), on_event=events.append) as bob:
        while len(heard) < number:
            heard.append((await asyncio.wait_for(anext(bob), DEADLINE_S)).message)
        await bob.confirm()
    return heard


async def send(url: str, token: str, *messages: object) -> list[bool]:
    async with Client(url, "alice", token=token, mailbox=Memory()) as alice:
        return [(await alice.send("bob", message)).stored for message in messages]


@pytest.mark.slow
def test_a_phone_that_was_off_gets_all_of_it_once_in_order_through_restarts(tmp_path: Path) -> None:
    kept, file, events = Kept(tmp_path), tmp_path / "position.json", list[Event]()
    bob, alice = kept.token("bob"), kept.token("alice")
    with kept.running() as shell:
        asyncio.run(away(shell.url, bob, file))
        assert asyncio.run(send(shell.url, alice, *range(150))) == [True] * 150
    with kept.running() as shell:
        assert asyncio.run(send(shell.url, alice, *range(150, 160))) == [True] * 10
        assert asyncio.run(fetch(shell.url, bob, file, 120, events)) == list(range(120))
    with kept.running() as shell:
        assert asyncio.run(fetch(shell.url, bob, file, 40, events)) == list(range(120, 160))
    assert {event.kind for event in events} <= {"connected", "disconnected"}


def test_a_receipt_that_comes_on_the_old_connection_is_waited_for_no_more() -> None:
    async def move() -> None:
        async with Server().running() as server:
            client = Client(server.url, "alice", mailbox=Memory(), second=SECOND)
            entering = asyncio.ensure_future(client.__aenter__())
            old = await server.accept()
            await old.greet(mailbox=FOUND)
            await entering
            sending = asyncio.ensure_future(client.send("bob", "order", ack="delivered"))
            frame = await old.frame()
            old.read(goes_on=False)
            await old.say("goaway", reconnect_in_ms=0, deadline_ms=60_000)
            new = await server.accept()
            await new.take_in(await new.hello(), mailbox=FOUND)
            assert await new.frame() == frame
            await new.say("ok", id=frame["id"], online=1, receipts=1, stored=True)
            sent = await sending
            await old.say("delivered", id=frame["id"], recipient_uuid="bob", offset=8)
            assert await sent.outcome() == "delivered"
            assert client._receipts == {}
            old.read(goes_on=True)
            await client.close()

    asyncio.run(asyncio.wait_for(move(), DEADLINE_S))


def test_a_mailbox_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="give `uuid` as well"):
        Client("ws://127.0.0.1:1/", mailbox=Memory())


def test_a_position_in_a_file_is_whole_or_the_one_before(tmp_path: Path) -> None:
    file = File(tmp_path / "position.json")
    assert file.load() is None
    file.save(Position("e", 7))
    assert File(tmp_path / "position.json").load() == Position("e", 7)
    (tmp_path / "position.json").write_text('{"epoch": "e", "af')
    assert file.load() is None


@pytest.mark.parametrize("text", NO_POSITIONS)
def test_a_file_that_holds_something_else_is_no_position(tmp_path: Path, text: str) -> None:
    (tmp_path / "position.json").write_text(text)
    assert File(tmp_path / "position.json").load() is None
