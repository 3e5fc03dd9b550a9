"""The state that all connections of one process share. Pure: the clocks and everything random are passed in.

Every shell makes one `Center`, asks `service.core.admission` about each handshake, and calls `tick` once a second.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from service import __version__
from service.core.addresses import Address
from service.core.close_codes import CloseReason
from service.core.events import Events, Tell, tell_nobody
from service.core.hub import Hub
from service.core.identity import Verify
from service.core.mail import Mail
from service.core.pace import Lag, Stopwatch
from service.core.standing import Footprint, Standing
from service.core.status import status_line
from service.core.tally import Tally, count_up
from service.core.turns import Turns
from service.settings import Settings


class Client(Protocol):
    """One WebSocket, as a session sees it; every shell has its own. No call ever waits."""

    @property
    def written(self) -> int:
        """How many bytes were handed to the system for the client, or are about to be."""

    @property
    def queued(self) -> int:
        """How many of them, and of those still to come, wait because the client has not taken them."""

    def send(self, text: bytes) -> None:
        """Send a text message, in UTF-8, after all that waits already.

        A client that has let more than `limits.queue` pile up is closed instead.
        """

    def when_left(self, then: Callable[[bool], None]) -> None:
        """Report later, once, whether everything that was sent so far has left.

        True: the system has it, and sends it even if this process is killed; only the connection can still lose it. It
        does when the client is just sending: the kernel resets a TCP connection of which not all was read, and drops
        what waits in it. That the peer's kernel has acknowledged all would promise no more: a client whose own write
        fails drops what it has not read. False: the connection was lost before; some of it may have left.

        Source: RFC 2525, section 2.17.
        """

    def close(self, reason: CloseReason) -> None:
        """Send what waits and a close frame, and end the connection when it is answered, or soon."""

    def abort(self) -> None:
        """End the connection at once."""

    def probe(self, answered: Callable[[bool], None]) -> None:
        """Ping the client, and report whether it has answered within `PROBE_TIMEOUT_S`."""


# Long enough for a telephone that has to wake up its radio, short enough for a client that waits for its address.
PROBE_TIMEOUT_S = 3.0


# Of a key: the messages that one process can have confirmed before it uses the keys of the next one.
KEY_BITS = 30


class Center:
    """The notification center of one process.

    `clock` is monotonic, `now` counts from the epoch, both in seconds; `now` is only for the ends of tokens and to be
    shown, for it may be set while we run. `soon` calls a function in the next turn of the event loop. `verify` tells
    whose token it is, `tell` writes the log, if `is_heard` says that it is written, `measure` says where the process
    is, and what it takes there. `number` is that of the process.
    """

    def __init__(
        self,
        settings: Settings,
        verify: Verify,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        draw_address: Callable[[], str],
        draw_secret: Callable[[], str],
        tell: Tell = tell_nobody,
        is_heard: Callable[[], bool] = lambda: True,
        measure: Callable[[], Footprint] = lambda: Footprint("", 0, 0, 0.0),
        number: int = 0,
    ) -> None:
        self.settings = settings
        self.hub = Hub()
        self.mail = Mail(self.hub, soon)
        self.events = Events(tell, is_heard)
        self.turns = Turns(soon)
        self.lag = Lag(clock)
        self.stopwatch = Stopwatch(self.hub.tally, clock, soon)
        self.server = "uvicorn"
        """How the process was started: a value of the setting `server`."""
        self.verify = verify
        self.clock = clock
        self.now = now
        self.draw_secret = draw_secret
        self.draining = False
        self.deadlines: dict[Callable[[], None], float] = {}
        """The functions to call, and when, by `clock`."""
        self.expiries: dict[Callable[[], None], float] = {}
        """The same for the ends of tokens, by `now`."""
        self.connections_of: dict[str, int] = {}
        """Open connections by client address."""
        self._draw_address = draw_address
        self._measure = measure
        self._started = now()
        self._keys = number << KEY_BITS

    @property
    def connections(self) -> int:
        """How many are open, with those of the other workers."""
        return len(self.hub.members) + self.hub.bus.connections

    def count(self, client_address: str | None) -> None:
        """One more connection of a client address is open, here or in another worker."""
        if client_address is not None:
            count_up(self.connections_of, client_address)

    def uncount(self, client_address: str | None) -> None:
        """The inverse of `count`."""
        if client_address is not None:
            self.connections_of[client_address] -= 1
            if not self.connections_of[client_address]:
                del self.connections_of[client_address]

    def status(self) -> str:
        """One line for the service manager, of this worker alone."""
        mine, left = self.hub.tally, self.hub.inherited
        dropped = sum(mine.dropped.values()) + sum(left.dropped.values())
        return status_line(len(self.hub.members), mine.routed + left.routed, dropped, self.mail.is_failing)

    def counted(self) -> Tally:
        """What this worker has counted so far, but for CPU time. It looks at each client: 1 or 2 ms for 10,000."""
        written = 0
        for member in self.hub.members:
            member.settle()
            written += member.client.written
        return dataclasses.replace(self.hub.tally, bytes_out=self.hub.tally.bytes_out + written)

    def standing(self) -> Standing:
        """How this worker is. It looks at each client as well."""
        tally = self.counted()
        host, pid, memory_bytes, tally.cpu_s = self._measure()
        return Standing(
            host=host,
            pid=pid,
            version=__version__,
            server=self.server,
            since=self._started,
            connections=len(self.hub.members),
            is_mailbox_failing=self.mail.is_failing,
            queue_bytes=sum(member.client.queued for member in self.hub.members),
            loop_lag_s=self.lag.longest_s,
            memory_bytes=memory_bytes,
            tally=tally,
            inherited=self.hub.inherited,
            abroad=self.hub.bus.abroad,
        )

    def draw_address(self) -> Address:
        """A temporary address, which nobody guesses."""
        return Address(self._draw_address())

    def next_key(self) -> int:
        """A number by which a recipient confirms a message; each is used once, also by a process that serves it later.

        JavaScript reads it: it is less than 2**53, for no process has a number of more than 22 bits (proc(5), pid_max).
        """
        self._keys += 1
        return self._keys

    def tick(self) -> None:
        """Call the functions whose time has come."""
        for times, now in ((self.deadlines, self.clock()), (self.expiries, self.now())):
            for call in [each for each, at in times.items() if at <= now]:
                if times.pop(call, None) is not None:  # one of those before may have ended it
                    call()
