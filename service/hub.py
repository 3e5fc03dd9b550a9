"""Who is connected, under which addresses, and where a message goes. Pure: no clock, no loop, no socket."""

from dataclasses import dataclass
from itertools import count
from typing import NewType

Address = NewType("Address", str)
"""The UUID under which a client is known; the protocol takes any text that is not too long."""

ConnectionId = NewType("ConnectionId", int)
"""One connection of this process; a number is never used again."""

# A client is known under its own UUID and perhaps a few more. Without a bound, one connection could claim addresses
# until the memory is full.
MAX_REGISTRATIONS = 8


class TooManyRegistrationsError(Exception):
    """A connection wants more than `MAX_REGISTRATIONS` addresses."""


@dataclass
class Tally:
    """What became of the messages so far."""

    routed: int = 0
    unroutable: int = 0
    plain: int = 0


class Hub:
    """The two maps: from an address to the connection that owns it, and from a connection to what it claimed."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._owners: dict[Address, ConnectionId] = {}
        self._claims: dict[ConnectionId, list[Address]] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._claims)

    def connect(self, temporary: Address) -> ConnectionId:
        """A new connection, which is reached under its temporary address as long as it is open."""
        connection = ConnectionId(next(self._numbers))
        self._owners[temporary] = connection
        self._claims[connection] = [temporary]
        return connection

    def register(self, connection: ConnectionId, address: Address) -> None:
        """Let `connection` be reached under `address` as well.

        The last one to register owns the address: a client that lost its network comes back under its UUID while
        the service still holds the old connection. Who may take an address from whom is decided here and nowhere else.

        Raises:
            TooManyRegistrationsError: nothing has changed.
        """
        claims = self._claims[connection]
        if address not in claims:
            if len(claims) > MAX_REGISTRATIONS:
                raise TooManyRegistrationsError
            claims.append(address)
        self._owners[address] = connection

    def route(self, address: Address) -> ConnectionId | None:
        """The connection that a message to `address` goes to, if there is one."""
        owner = self._owners.get(address)
        if owner is None:
            self.tally.unroutable += 1
        else:
            self.tally.routed += 1
        return owner

    def disconnect(self, connection: ConnectionId) -> None:
        """Forget a connection and the addresses it still owns."""
        for address in self._claims.pop(connection):
            # It may have a newer owner, who outlives this connection and must stay reachable.
            if self._owners.get(address) == connection:
                del self._owners[address]
