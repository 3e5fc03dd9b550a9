"""One timer for many deadlines."""

from collections.abc import Callable
from typing import Any, cast

from service.fast.deadlines import Deadlines


class Loop:
    """A loop whose time the test tells; it has one timer at most."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, act: Callable[[], None]) -> None:
        assert not self.timers
        self.timers.append((self.now + seconds, act))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now, act = self.timers.pop()
            act()
        self.now = until


class Guest:
    """Somebody who has a deadline."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.is_late = False
        self.then = then

    def too_late(self) -> None:
        assert not self.is_late
        self.is_late = True
        self.then()


def deadlines(seconds: float) -> tuple[Loop, Deadlines]:
    loop = Loop()
    return loop, Deadlines(cast(Any, loop), seconds)


def test_who_does_not_end_in_time_hears_of_it_once() -> None:
    loop, due = deadlines(10)
    guest = Guest()
    due.begin(guest)
    loop.pass_time(9.9)
    assert not guest.is_late
    loop.pass_time(0.2)
    assert guest.is_late
    loop.pass_time(100)


def test_who_has_ended_hears_nothing() -> None:
    loop, due = deadlines(10)
    guest = Guest()
    due.begin(guest)
    due.end(guest)
    due.end(guest)
    loop.pass_time(20)
    assert not guest.is_late


def test_each_has_its_whole_time_and_one_timer_serves_all() -> None:
    loop, due = deadlines(10)
    guests = [Guest() for _ in range(5)]
    for guest in guests:
        due.begin(guest)
        loop.pass_time(2)
    for late in range(5):  # the first began ten seconds ago, the others two seconds apart
        loop.pass_time(0.1)
        assert [guest.is_late for guest in guests] == [True] * (late + 1) + [False] * (4 - late)
        loop.pass_time(1.9)


def test_nobody_is_looked_for_when_all_have_ended() -> None:
    loop, due = deadlines(10)
    guest = Guest()
    due.begin(guest)
    due.end(guest)
    loop.pass_time(20)
    assert not loop.timers
    due.begin(guest)
    loop.pass_time(10)
    assert guest.is_late


def test_one_who_is_late_may_end_another_one_who_is() -> None:
    loop, due = deadlines(10)
    second = Guest()
    due.begin(Guest(lambda: due.end(second)))
    due.begin(second)
    loop.pass_time(10)
    assert not second.is_late
