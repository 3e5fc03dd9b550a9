"""Shares the event loop of one worker among its clients.

A client may do a small share of work at once, whatever others do. More than that, and work that is expensive by itself,
is bounded in each turn of the loop for all clients together. A client that finds nothing left waits, and those that
wait do a share each in turn: so nobody who asks for little waits for those who ask for much, and the loop never stands
still.
Pure: `soon` calls a function in the next turn of the loop.
"""

from collections import deque
from collections.abc import Callable

# All in messages to one recipient each.
# What a client may do before it is looked whether it is the turn of others: little, as all clients may do it at once.
SHARE = 16
# A message that costs more than this is expensive.
CHEAP = 32
# What may be done in one turn beside that, a few milliseconds.
PER_TURN = 1024
# What waiting and expensive work may cost together in one turn, a millisecond or two; one message may go beyond it.
OF_THOSE_THAT_WAIT = 256

# How long a client is to wait whose share is used up: as long as it takes until it is its turn.
NEXT_TURN = 1e-9
# The same, for what is too expensive for this turn: it has not been done, and is to be tried again.
LATER = -1.0


class NotNowError(Exception):
    """The work is too expensive for this turn, and nothing of it has been done."""


class Turns:
    """Who may do expensive work now, and who waits for its turn.

    Who waits is called by flows, one after another: what belongs to one client address is one flow, however many
    connections it has.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._left = PER_TURN
        self._left_of_waiting = OF_THOSE_THAT_WAIT
        self._is_due = False
        self._is_under_way = False
        self._waiting: dict[object, deque[Callable[[], None]]] = {}

    def may_go_on(self) -> bool:
        """Whether a client may do another share at once; else it is to wait for its turn."""
        if self._left <= 0 or (self._waiting and self._is_under_way):
            return False
        self._left -= SHARE
        self._plan()
        return True

    def begin(self, cost: int) -> None:
        """Let work begin that costs as much as so many messages.

        Raises:
            NotNowError: wait for your turn, and try again.
        """
        if cost > CHEAP:
            # What has waited longer goes first.
            if self._left_of_waiting <= 0 or (self._waiting and not self._is_under_way):
                raise NotNowError
            self._left_of_waiting -= cost
            self._plan()

    def charge(self, cost: int) -> None:
        """Count what is done in this turn already, or will be at its end."""
        self._left_of_waiting -= cost

    def wait(self, flow: object, go_on: Callable[[], None]) -> None:
        """Call `go_on` when it is its turn: to begin something expensive, or to do another share."""
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
