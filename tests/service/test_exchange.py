"""Clients of one process, without a network."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from service.core.admission import Admission
from service.core.close_codes import TOO_MANY_ADDRESSES
from service.core.session import Session
from service.links import outbox
from service.links.exchange import Exchange
from service.links.outbox import MAX_QUEUED_MESSAGES
from service.process.entry import center_of
from service.settings import Limits, Settings
from tests.service.links import FakeLink, turns

SETTINGS = Settings(
    welcome="{uuid}", limits=Limits(messages_per_second=1_000_000, bytes_per_second=1024**3, queue=1024 * 1024)
)


class Clients:
    """Comes with an exchange; `join` adds a client to it."""

    def __init__(self, settings: Settings) -> None:
        self.center = center_of(settings)
        self.exchange = Exchange(self.center)
        self.served: list[asyncio.Task[None]] = []

    async def join(self) -> FakeLink:
        link = FakeLink()
        self.served.append(asyncio.create_task(self.exchange.serve(link, Admission(None, None, None))))
        await turns()
        return link


def run(scenario: Callable[[Clients], Awaitable[None]], settings: Settings = SETTINGS) -> None:
    """Play a scenario; whoever is still connected then leaves."""

    async def play() -> None:
        clients = Clients(settings)
        await scenario(clients)
        for task in clients.served:
            task.cancel()
        await asyncio.gather(*clients.served, return_exceptions=True)
        assert clients.center.connections == 0

    asyncio.run(play())


def to(uuid: str, message: object) -> str:
    return json.dumps({"recipient_uuid": uuid, "message": message})


def test_a_client_is_welcomed_with_a_uuid_of_its_own() -> None:
    async def scenario(clients: Clients) -> None:
        first, second = await clients.join(), await clients.join()
        assert UUID(first.sent[0]) != UUID(second.sent[0])

    run(scenario)


def test_a_message_reaches_the_client_that_it_is_for_and_no_other() -> None:
    async def scenario(clients: Clients) -> None:
        alice, bob, carol = await clients.join(), await clients.join(), await clients.join()
        alice.incoming.put_nowait(to("alice", "connected"))
        await turns()
        bob.incoming.put_nowait(to("alice", "hello"))
        await turns()
        assert alice.sent[1:] == [to("alice", "hello")]
        assert bob.sent[1:] == carol.sent[1:] == []

    run(scenario)


def test_a_client_that_does_not_read_makes_no_sender_wait() -> None:
    async def scenario(clients: Clients) -> None:
        stuck, bob, carol = await clients.join(), await clients.join(), await clients.join()
        stuck.reads.clear()
        bob.incoming.put_nowait(to(stuck.sent[0], "hello"))
        bob.incoming.put_nowait(to(carol.sent[0], "hello"))
        await turns()
        assert carol.sent[1:] == [to(carol.sent[0], "hello")]

    run(scenario)


def test_a_client_that_does_not_read_is_dropped_when_too_much_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CLOSE_GRACE_S", 0.01)

    async def scenario(clients: Clients) -> None:
        stuck, bob = await clients.join(), await clients.join()
        stuck.reads.clear()
        for _ in range(2 * SETTINGS.limits.queue // 65_536):
            bob.incoming.put_nowait(to(stuck.sent[0], "x" * 65_000))
        await asyncio.wait(clients.served[:1], timeout=60)
        assert clients.served[0].exception() is None
        assert clients.center.connections == 1

    run(scenario)


def test_a_burst_does_not_overrun_a_client_that_reads() -> None:
    async def scenario(clients: Clients) -> None:
        alice, bob = await clients.join(), await clients.join()
        for number in range(2 * MAX_QUEUED_MESSAGES):
            bob.incoming.put_nowait(to(alice.sent[0], number))
        await turns(2 * MAX_QUEUED_MESSAGES)
        assert len(alice.sent) == 1 + 2 * MAX_QUEUED_MESSAGES
        assert alice.closed == []

    run(scenario)


def test_a_client_that_breaks_a_rule_is_closed() -> None:
    async def scenario(clients: Clients) -> None:
        mallory = await clients.join()
        for number in range(20):
            mallory.incoming.put_nowait(to(str(number), "connected"))
        await turns()
        assert mallory.closed == [TOO_MANY_ADDRESSES]
        assert clients.center.connections == 0

    run(scenario)


def test_a_client_that_is_gone_is_forgotten() -> None:
    async def scenario(clients: Clients) -> None:
        alice = await clients.join()
        alice.incoming.put_nowait(None)
        await turns()
        assert clients.served[0].done()
        assert clients.center.connections == 0

    run(scenario)


def test_a_client_that_is_gone_while_it_is_sent_to_is_forgotten() -> None:
    async def scenario(clients: Clients) -> None:
        alice, bob = await clients.join(), await clients.join()
        alice.gone = True
        bob.incoming.put_nowait(to(alice.sent[0], "hello"))
        await turns()
        assert clients.center.connections == 1

    run(scenario)


def test_a_client_that_sends_too_much_is_read_no_further_until_it_may_send_again() -> None:
    async def scenario(clients: Clients) -> None:
        alice = await clients.join()
        for number in range(40):
            alice.incoming.put_nowait(to(alice.sent[0], number))
        await turns(100)
        assert 1 + 11 <= len(alice.sent) < 1 + 20  # ten in a second, and the one that was too much
        for _ in range(500):
            if len(alice.sent) > 12:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it was not read any further")

    run(scenario, Settings(welcome="{uuid}", limits=Limits(messages_per_second=10)))


def test_a_client_that_owes_and_goes_is_gone_at_once_and_what_it_has_said_goes_out() -> None:
    async def scenario(clients: Clients) -> None:
        alice, bob = await clients.join(), await clients.join()
        for number in range(20):
            bob.incoming.put_nowait(to(alice.sent[0], number))
        bob.incoming.put_nowait(None)
        await turns(100)
        assert clients.served[1].done()
        assert clients.center.connections == 1
        # Ten in a second and the one that was too much; more where the turns took a while, but not the last.
        assert 1 + 11 <= len(alice.sent) < 1 + 20
        for _ in range(500):
            if len(alice.sent) == 1 + 20:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the last messages were lost")

    run(scenario, Settings(welcome="{uuid}", limits=Limits(messages_per_second=10)))


def test_what_a_client_has_said_goes_out_though_it_was_gone_when_it_was_answered() -> None:
    async def scenario(clients: Clients) -> None:
        alice, bob = await clients.join(), await clients.join()
        bob.gone = True
        bob.incoming.put_nowait(to(bob.sent[0], "an answer"))
        for number in range(100):
            bob.incoming.put_nowait(to(alice.sent[0], number))
        bob.incoming.put_nowait(None)
        await turns(1000)
        assert clients.served[1].done()
        assert [json.loads(text)["message"] for text in alice.sent[1:]] == list(range(100))

    run(scenario)


def test_what_a_client_has_said_before_it_went_is_dropped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.links.exchange.LAST_WORDS_S", 0.01)

    async def scenario(clients: Clients) -> None:
        bob = await clients.join()
        for _ in range(20):
            bob.incoming.put_nowait("x")
        bob.incoming.put_nowait(None)
        dropped = clients.center.hub.tally.dropped
        for _ in range(500):
            if dropped["limit"]:
                break
            await asyncio.sleep(0.01)
        assert 10 < dropped["limit"] <= 20 - 2  # one more may be sent for each second that the machine was busy

    run(scenario, Settings(welcome="{uuid}", limits=Limits(messages_per_second=1)))


def test_what_a_client_has_said_before_it_is_closed_is_counted() -> None:
    async def scenario(clients: Clients) -> None:
        await clients.join()
        bob = await clients.join()
        for _ in range(20):
            bob.incoming.put_nowait("x")
        await turns(100)
        (session,) = [each for each in clients.center.hub.members if each.temporary == bob.sent[0]]
        cast(Session, session).expired()
        await asyncio.wait(clients.served[1:], timeout=60)
        dropped = clients.center.hub.tally.dropped
        assert dropped["plain"] + dropped["limit"] == 20

    run(scenario, Settings(welcome="{uuid}", limits=Limits(messages_per_second=1)))


def test_the_end_of_a_client_that_is_read_no_further_is_seen() -> None:
    async def scenario(clients: Clients) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            bob = await clients.join()
            bob.transport = cast(asyncio.BaseTransport, SimpleNamespace(get_extra_info=lambda name: ours))
            for _ in range(200):
                bob.incoming.put_nowait("x" * 1000)
            await turns(100)
            assert bob.incoming.qsize() > 100
            assert clients.center.connections == 1
            theirs.shutdown(socket.SHUT_WR)
            for _ in range(500):
                if not clients.center.connections:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it was not seen")

    run(scenario, Settings(welcome="{uuid}", limits=Limits(messages_per_second=1)))


def test_a_fault_of_the_service_is_not_swallowed() -> None:
    async def scenario(clients: Clients) -> None:
        alice = await clients.join()
        alice.incoming.put_nowait(42)  # type: ignore[arg-type]
        await turns()
        assert isinstance(clients.served[0].exception(), TypeError)

    run(scenario)


def test_its_status_says_what_became_of_the_messages() -> None:
    async def scenario(clients: Clients) -> None:
        alice = await clients.join()
        for frame in (to(alice.sent[0], 1), to(alice.sent[0], 2), to("nobody", 3), "plain", b"\xff", "text"):
            alice.incoming.put_nowait(frame)
        await turns()
        assert clients.center.status() == "1 connections; messages: 2 routed, 4 dropped"

    run(scenario)
