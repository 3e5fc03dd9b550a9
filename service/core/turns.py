"""Shares the event loop of one worker among its clients.

A client may do a small share of work at once, whatever the others do. Beyond that, and for work that is expensive by
itself, there is a budget in each turn of the loop for all clients together. When it is used up, clients wait, and do a
share each in turn: a client that asks for little never waits for those that ask for much, and the loop never blocks.
Pure: `soon` calls a function in the next turn of the loop.
"""

from collections import deque
from collections.abc import Callable

# All in messages to one recipient each.
# What a client may do before anyone checks whose turn it is: little, because all clients may do it at once.
SHARE = 16
# A message that costs more than this is expensive.
CHEAP = 32
# What may be done in one turn beyond that: a few milliseconds.
PER_TURN = 1024
# What waiting and expensive work may cost together in one turn: a millisecond or two. One message may exceed it.
OF_THOSE_THAT_WAIT = 256

# The pause of a client that has used up its share: until it is its turn.
NEXT_TURN = 1e-9
# The same, when a message is too expensive for this turn: nothing of it was done, and it must be tried again.
LATER = -1.0


class NotNowError(Exception):
    """The work is too expensive for this turn, and nothing of it has been done."""


class Turns:
    """Decides which clients may do expensive work now, and which wait for their turn.

    Those that wait are called by flow, one flow after another: all connections of one client address are one flow.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._left = PER_TURN
        self._left_of_waiting = OF_THOSE_THAT_WAIT
        self._is_due = False
        self._is_under_way = False
        self._waiting: dict[object, deque[Callable[[], None]]] = {}

    def may_go_on(self) -> bool:
        """Whether a client may do another share at once; otherwise it must wait for its turn."""
        if self._left <= 0 or (self._waiting and self._is_under_way):
            return False
        self._left -= SHARE
        self._plan()
        return True

    def begin(self, cost: int) -> None:
        """Start work that costs as much as this many messages.

        Raises:
            NotNowError: wait for your turn, and try again.
        """
        if cost > CHEAP:
            # Work that has waited longer goes first.
            if self._left_of_waiting <= 0 or (self._waiting and not self._is_under_way):
                raise NotNowError
            self._left_of_waiting -= cost
            self._plan()

    def charge(self, cost: int) -> None:
        """Count work that was done in this turn, or will be done at its end."""
        self._left_of_waiting -= cost

    def wait(self, flow: object, go_on: Callable[[], None]) -> None:
        """Call `go_on` when it is the caller's turn: to start something expensive, or to do another share."""
        self._waiting.setdefault(flow, deque()).append(go_on)
        self._plan()

    def _plan(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._soon(self._next)

    def _next(self) -> None:
        self._left, self._left_of_waiting = PER_TURN, OF_THOSE_THAT_WAIT
        self._is_due, self._is_under_way = False, True
        try:
            while self._waiting and self._left_of_waiting > 0:
                flow = next(iter(self._waiting))
                waiting = self._waiting.pop(flow)
                go_on = waiting.popleft()
                if waiting:
                    self._waiting[flow] = waiting  # behind all other flows
                go_on()
                self._left_of_waiting -= SHARE
        finally:
            self._is_under_way = False
            if self._waiting:
                self._plan()
