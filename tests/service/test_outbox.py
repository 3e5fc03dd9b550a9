"""What waits for one client is bounded, and nobody else waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from links import FakeLink, turns

from service import outbox
from service.close_codes import RESTART, SLOW_CONSUMER
from service.outbox import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES, Outbox

KILOBYTE = "x" * 1024


def run(scenario: Callable[[FakeLink, Outbox], Awaitable[None]], longest_message: int = 65_536) -> None:
    """Play a scenario with a client and its outbox."""

    async def play() -> None:
        link = FakeLink()
        box = Outbox(link, longest_message)
        await scenario(link, box)
        box.writer.cancel()

    asyncio.run(play())


def test_texts_are_sent_in_their_order() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for text in ("a", "b", "c"):
            box.put(text)
        await turns()
        assert link.sent == ["a", "b", "c"]

    run(scenario)


def test_what_comes_while_the_client_does_not_read_is_sent_when_it_does() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.reads.clear()
        box.put("a")
        await turns()
        box.put("b")
        await turns()
        assert link.sent == []
        link.reads.set()
        await turns()
        assert link.sent == ["a", "b"]

    run(scenario)


def test_a_client_for_whom_too_many_bytes_wait_is_closed_as_a_slow_consumer() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(MAX_QUEUED_BYTES // len(KILOBYTE)):
            box.put(KILOBYTE)
        await turns()
        assert link.closed == [SLOW_CONSUMER]
        assert link.sent == []  # what waited was dropped

    run(scenario)


def test_a_client_for_whom_too_many_messages_wait_is_closed_as_a_slow_consumer() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(MAX_QUEUED_MESSAGES + 1):
            box.put("x")
        await turns()
        assert link.closed == [SLOW_CONSUMER]

    run(scenario)


def test_bytes_that_were_sent_make_room_for_others() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(3 * MAX_QUEUED_BYTES // len(KILOBYTE)):
            box.put(KILOBYTE)
            await turns(3)
        assert link.closed == []
        assert len(link.sent) == 3 * MAX_QUEUED_BYTES // len(KILOBYTE)

    run(scenario)


def test_a_few_messages_of_the_greatest_length_always_fit() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(8):
            box.put("x" * MAX_QUEUED_BYTES)
        await turns()
        assert len(link.sent) == 8

    run(scenario, longest_message=MAX_QUEUED_BYTES)


def test_after_the_close_frame_nothing_is_sent_and_the_writer_ends() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        await turns()
        box.close(RESTART)
        box.put("late")
        await turns()
        assert (link.sent, link.closed) == ([], [RESTART])
        assert box.writer.done()

    run(scenario)


def test_the_first_reason_to_close_is_the_one_that_is_told() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        box.close(SLOW_CONSUMER)
        box.close(RESTART)
        await turns()
        assert link.closed == [SLOW_CONSUMER]

    run(scenario)


def test_a_client_that_does_not_take_its_close_frame_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CLOSE_GRACE_S", 0.01)

    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.reads.clear()
        box.put("a")
        await turns()
        box.close(RESTART)
        await asyncio.wait([box.writer], timeout=5)
        assert box.writer.cancelled()
        assert link.closed == []

    run(scenario)


def test_the_writer_ends_when_the_client_is_gone() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.gone = True
        box.put("a")
        await turns()
        assert box.writer.done()
        assert box.writer.exception() is None

    run(scenario)
