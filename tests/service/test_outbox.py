"""What waits for one client is bounded, and nobody else waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.core.close_codes import RESTART, SLOW_CONSUMER
from service.core.pace import Stopwatch
from service.core.tally import Tally
from service.links import outbox
from service.links.outbox import MAX_QUEUED_MESSAGES, Outbox
from tests.service.links import FakeLink, turns
from tests.service.transports import until

KILOBYTE = b"x" * 1024
MAX_QUEUED_BYTES = 256 * 1024


def run(scenario: Callable[[FakeLink, Outbox], Awaitable[None]], tally: Tally | None = None) -> None:
    """Play a scenario with a client and its outbox."""

    async def play() -> None:
        link = FakeLink()
        counts, loop = tally or Tally(), asyncio.get_running_loop()
        box = Outbox(link, MAX_QUEUED_BYTES, counts, Stopwatch(counts, loop.time, loop.call_soon))
        await scenario(link, box)
        box.writer.cancel()

    asyncio.run(play())


def test_texts_are_sent_in_their_order() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for text in (b"a", b"b", b"c"):
            box.send(text)
        await turns()
        assert link.sent == ["a", "b", "c"]

    run(scenario)


def test_what_comes_while_the_client_does_not_read_is_sent_when_it_does() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.reads.clear()
        box.send(b"a")
        await turns()
        box.send(b"b")
        await turns()
        assert link.sent == []
        link.reads.set()
        await turns()
        assert link.sent == ["a", "b"]

    run(scenario)


def test_a_client_for_whom_too_many_bytes_wait_is_closed_as_a_slow_consumer() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(MAX_QUEUED_BYTES // len(KILOBYTE)):
            box.send(KILOBYTE)
        await turns()
        assert link.closed == [SLOW_CONSUMER]
        assert link.sent == []  # what waited was dropped

    run(scenario)


def test_a_client_for_whom_too_many_messages_wait_is_closed_as_a_slow_consumer() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(MAX_QUEUED_MESSAGES + 1):
            box.send(b"")
        await turns()
        assert link.closed == [SLOW_CONSUMER]

    run(scenario)


def test_bytes_that_were_sent_make_room_for_others() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(3 * MAX_QUEUED_BYTES // len(KILOBYTE)):
            box.send(KILOBYTE)
            await turns(3)
        assert link.closed == []
        assert len(link.sent) == 3 * MAX_QUEUED_BYTES // len(KILOBYTE)

    run(scenario)


def test_what_a_slow_client_loses_is_counted() -> None:
    tally = Tally()

    async def scenario(link: FakeLink, box: Outbox) -> None:
        for _ in range(300):
            box.send(KILOBYTE)

    run(scenario, tally)
    assert tally.dropped["slow_consumer"] == MAX_QUEUED_BYTES // (len(KILOBYTE) + 64) + 1
    assert tally.closed == {SLOW_CONSUMER.code: 1}


def test_what_the_client_has_taken_has_left() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        verdicts: list[bool] = []
        box.when_left(verdicts.append)
        assert verdicts == []
        await turns()
        assert verdicts == [True]
        link.reads.clear()
        for text in (b"a", b"b"):
            box.send(text)
            box.when_left(verdicts.append)
        await turns()
        assert verdicts == [True]
        link.reads.set()
        await turns()
        assert verdicts == [True, True, True]

    run(scenario)


@pytest.mark.parametrize("end", [Outbox.abort, lambda box: box.close(SLOW_CONSUMER), lambda box: None])
def test_what_a_lost_client_has_not_taken_has_not_left(end: Callable[[Outbox], None]) -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        verdicts: list[bool] = []
        link.gone = True
        box.send(b"a")
        box.when_left(verdicts.append)
        end(box)
        await turns()
        assert verdicts == [False]
        box.send(b"b")
        box.when_left(verdicts.append)
        await turns()
        assert verdicts == [False, False]

    run(scenario)


def test_what_waits_is_sent_before_the_close_frame() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        verdicts: list[bool] = []
        box.send(b"a")
        box.when_left(verdicts.append)
        box.close(RESTART)
        box.send(b"too late")
        refused: list[bool] = []
        box.when_left(refused.append)
        assert refused == []
        await turns()
        assert (link.sent, verdicts, refused, link.closed) == (["a"], [True], [False], [RESTART])

    run(scenario)


@pytest.mark.parametrize(("alive", "timeout"), [(True, 60.0), (False, 0.05)])
def test_a_probe_tells_whether_the_client_answers_a_ping_in_time(
    monkeypatch: pytest.MonkeyPatch, alive: bool, timeout: float
) -> None:
    monkeypatch.setattr(outbox, "PROBE_TIMEOUT_S", timeout)
    outcomes: list[bool] = []

    async def scenario(link: FakeLink, box: Outbox) -> None:
        box.probe(outcomes.append)
        await turns()
        assert outcomes == []
        if alive:
            link.answers.set()
        await until(lambda: outcomes)

    run(scenario)
    assert outcomes == [alive]


def test_a_client_that_is_gone_is_not_alive() -> None:
    outcomes: list[bool] = []

    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.gone = True
        link.answers.set()
        box.probe(outcomes.append)
        await turns()

    run(scenario)
    assert outcomes == [False]


def test_a_client_is_dropped_when_it_must_be() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        await turns()
        box.abort()
        await turns()
        assert box.writer.cancelled()
        assert link.closed == []

    run(scenario)


def test_after_the_close_frame_nothing_is_sent_and_the_writer_ends() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        await turns()
        box.close(RESTART)
        box.send(b"late")
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
        box.send(b"a")
        await turns()
        box.close(RESTART)
        await asyncio.wait([box.writer], timeout=60)
        assert box.writer.cancelled()
        assert link.closed == []

    run(scenario)


def test_the_writer_ends_when_the_client_is_gone() -> None:
    async def scenario(link: FakeLink, box: Outbox) -> None:
        link.gone = True
        box.send(b"a")
        await turns()
        assert box.writer.done()
        assert box.writer.exception() is None

    run(scenario)
