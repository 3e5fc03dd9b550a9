"""How fast this process is: how long deliveries take, and how late the event loop is.

Pure: the clock is passed in. Neither costs a message anything: one delivery in a while is timed, and the loop is looked
at by the clock that ticks anyway.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Protocol

from service.core.tally import Tally, count_up

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, float("inf"))
"""The upper bounds of the histogram, in seconds."""

# As long as Prometheus waits between two looks by default, so that it misses nothing.
LAG_WINDOW_S = 15.0


def bound_of(seconds: float) -> str:
    """Under which of these it is counted."""
    return str(BOUNDS[bisect_left(BOUNDS, seconds)])


class Recipient(Protocol):
    """A client of a shell."""

    def when_left(self, then: Callable[[bool], None]) -> None:
        """See `service.core.center.Client`."""


class Stopwatch:
    """Times a delivery whenever it `is_due`: from when it is sent until the system has it for the client."""

    def __init__(self, tally: Tally, clock: Callable[[], float], soon: Callable[[Callable[[], None]], object]) -> None:
        self.is_due = True
        self._tally = tally
        self._clock = clock
        self._soon = soon

    def time(self, client: Recipient) -> None:
        """Time what is just being sent to a client. The next one is timed when `is_due` was set again."""
        self.is_due = False
        began = self._clock()

        def stop(has_left: bool) -> None:
            if has_left:
                seconds = self._clock() - began
                self._tally.delivery_s += seconds
                count_up(self._tally.delivered, bound_of(seconds))

        self._soon(lambda: client.when_left(stop))


class Lag:
    """How late the event loop was in the last `LAG_WINDOW_S`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._noted: deque[tuple[float, float]] = deque()

    def note(self, seconds: float) -> None:
        """The loop did something so much later than it was asked to."""
        # What is smaller than a later one is never the longest again.
        while self._noted and self._noted[-1][1] <= seconds:
            self._noted.pop()
        self._noted.append((self._clock(), seconds))

    @property
    def longest_s(self) -> float:
        """0 while nobody is connected: then nothing is noted."""
        while self._noted and self._noted[0][0] < self._clock() - LAG_WINDOW_S:
            self._noted.popleft()
        return self._noted[0][1] if self._noted else 0.0
