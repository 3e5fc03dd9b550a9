"""One timer for everything that must be done within the same time, instead of one for each."""

import asyncio
from typing import Protocol

# How often at most it is looked who is late.
_LOOK_S = 0.05


class Late(Protocol):
    """What has a deadline."""

    def too_late(self) -> None:
        """The time is over."""


class Deadlines:
    """Calls `too_late` of whatever has not ended `seconds` after it began, or a moment later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._due: dict[Late, float] = {}
        """Those that have not ended, and until when they may; in that order."""
        self._is_waiting = False

    def begin(self, who: Late) -> None:
        """From now on the time counts."""
        self._due[who] = self._loop.time() + self._seconds
        if not self._is_waiting:
            self._wait(self._seconds)

    def end(self, who: Late) -> None:
        """It is done; once is enough, twice does no harm."""
        self._due.pop(who, None)

    def _wait(self, seconds: float) -> None:
        self._is_waiting = True
        self._loop.call_later(max(seconds, _LOOK_S), self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._is_waiting = False
        for who, at in list(self._due.items()):
            if at > now:
                self._wait(at - now)
                return
            if self._due.pop(who, None) is not None:  # one of those before may have ended it
                who.too_late()
