"""Workers wait for each other at a point, and none waits for one that has ended."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.process.notify import Notifier
from service.workers import meeting
from service.workers.meeting import LIFELINE_VARIABLE, Meeting, all_are_at, is_orphan
from tests.service.service_manager import managing
from tests.service.transports import in_a_loop


class Waiting:
    """A worker at a point, as the process that watches it knows it."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()
        os.set_blocking(self.ours, False)

    @property
    def goes_on(self) -> bool:
        try:
            return os.read(self.ours, 1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def waiting() -> Iterator[list[Waiting]]:
    workers = [Waiting() for _ in range(4)]
    yield workers
    for worker in workers:
        os.close(worker.ours)


def test_all_go_on_when_the_last_one_has_come(waiting: list[Waiting]) -> None:
    there = Meeting()
    for number, worker in enumerate(waiting):
        assert not any(each.goes_on for each in waiting)
        there.come(number, "frozen", worker.theirs)
        there.let_go(4)
    assert all(each.goes_on for each in waiting)


def test_one_that_ends_is_not_waited_for_and_other_points_are_others(waiting: list[Waiting]) -> None:
    there = Meeting()
    for number, point in enumerate(["start", "taken", "taken", "taken"]):
        there.come(number, point, waiting[number].theirs)
    there.let_go(4)
    assert not any(each.goes_on for each in waiting)
    there.leave(0)
    there.let_go(3)
    assert all(each.goes_on for each in waiting)


def test_one_that_comes_again_waits_again(waiting: list[Waiting]) -> None:
    there = Meeting()
    for worker in waiting[:2]:
        there.come(7, "start", worker.theirs)
        there.let_go(2)
    assert [each.goes_on for each in waiting[:2]] == [True, False]
    there.close()
    assert waiting[1].goes_on
    for worker in waiting[2:]:
        os.close(worker.theirs)


@in_a_loop
async def test_a_worker_that_is_alone_waits_for_nobody() -> None:
    assert not await all_are_at("start", Notifier({}), {})


@in_a_loop
async def test_nobody_is_waited_for_for_ever() -> None:
    there = {LIFELINE_VARIABLE: "3"}
    assert not await all_are_at("start", Notifier({"NOTIFY_SOCKET": "/nowhere"}), there)


def test_a_worker_that_is_stuck_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PATIENCE_S", 0.05)
    with managing(tmp_path / "notify") as manager:
        manager.answers = False
        assert not asyncio.run(all_are_at("start", Notifier({"NOTIFY_SOCKET": manager.path}), {LIFELINE_VARIABLE: "3"}))


@in_a_loop
async def test_workers_that_have_all_come_go_on(tmp_path: Path) -> None:
    with managing(tmp_path / "notify") as manager:
        assert await all_are_at("start", Notifier({"NOTIFY_SOCKET": manager.path}), {LIFELINE_VARIABLE: "3"})


def test_a_worker_sees_that_the_process_is_gone_that_watches_it() -> None:
    lifeline, life = os.pipe()
    assert not is_orphan({LIFELINE_VARIABLE: str(lifeline)})
    os.close(life)
    assert is_orphan({LIFELINE_VARIABLE: str(lifeline)})
    assert not is_orphan({})
    os.close(lifeline)
