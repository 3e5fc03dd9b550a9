"""Messages kept for those who are not there: what a store of them does. `service.mailbox` has those stores.

An address has a box once its owner has asked for one, with a token that proves the address. What is sent to it is
stored before the sender hears `ok`, and is deleted only when the owner has acknowledged it, or when it is older than
`mailbox.ttl`, which the owner is told. Every item has an offset: it grows, is never given twice, and only means
something together with the epoch of the store.
"""

from collections.abc import Callable, Collection
from enum import Enum
from typing import NamedTuple, Protocol

from service.core.addresses import Address
from service.core.frames import Id

# What may wait in a store until it can be kept; a sender hears 118 beyond that.
MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
# How often a store removes what is too old.
SWEEP_PERIOD_S = 1.0


class Kind(int, Enum):
    """What the body of an item is."""

    JSON = 0
    """The message of nc.v1, or of somebody over HTTP."""
    TEXT = 1
    """A whole message of v0, to the letter."""
    RECEIPT = 2
    """What became of a message that the owner of the box had sent: a `ReceiptBody` as JSON; its sender is whoever the
    message was for.
    """


class ReturnTo(NamedTuple):
    """Who wants a receipt, and under which id: the address of a box, or the temporary address of a connection."""

    address: Address
    id: Id
    has_box: bool


class Letter(NamedTuple):
    """A message that is to be kept. What has the `dedup` of an earlier one of its sender is that one, sent again."""

    box: Address
    sender: Address
    kind: Kind
    body: bytes
    return_to: ReturnTo | None = None
    dedup: str | None = None


class Kept(Enum):
    """What has become of a letter."""

    STORED = 1
    FULL = 2
    NO_BOX = 3
    """Its owner has been away for longer than `mailbox.ttl`, or never was there."""
    FAILED = 4
    """It could not be written."""
    UNSURE = 5
    """It was written or not: nobody has confirmed that it is safe."""
    AGAIN = 6
    """It was stored before, with the same `dedup`. A receipt goes to whoever wanted it then."""
    AWAITED = 7
    """The same, and this one is whoever wanted it then, under the same id: it comes to its mailbox."""

    @property
    def is_stored(self) -> bool:
        """Whether it is in the box, or was."""
        return self in (Kept.STORED, Kept.AGAIN, Kept.AWAITED)


class Position(NamedTuple):
    """Up to where the owner has everything, as it says."""

    epoch: str
    after: int


class Opened(NamedTuple):
    """A box, as its owner finds it. Everything above `after` follows, and it is all there was if `is_whole`.

    `reader` is the number of this reader: what an earlier one acknowledges from now on is ignored. `lost_to` is up to
    where something may be missing.
    """

    epoch: str
    reader: int
    after: int
    last: int
    is_whole: bool
    lost_to: int


class Item(NamedTuple):
    """What is in a box."""

    offset: int
    kind: Kind
    sender: Address
    body: bytes


class Page(NamedTuple):
    """Some of what is in a box, whether there is more behind it, and up to where something may be missing."""

    items: list[Item]
    has_more: bool
    lost_to: int


class Settled(NamedTuple):
    """What became of a message, for the connection that wants to know."""

    temporary: Address
    id: Id
    recipient: Address
    is_delivered: bool


class Store(Protocol):
    """Where messages are kept. No call waits; each answer comes in a later turn of the loop.

    An answer of None means that the store could not be read or written; the log says why.
    """

    @property
    def latest(self) -> int:
        """No offset that was given so far is greater, and every later one is."""

    @property
    def holds(self) -> tuple[int, int]:
        """How many messages are kept, and how many bytes, as far as this worker knows: as of a second ago."""

    @property
    def is_up(self) -> bool:
        """Whether it can be asked now; one that is up again calls `Mail.look_again`."""

    @property
    def is_busy(self) -> bool:
        """Whether something that it was told to do is not done yet, or what came of it not told."""

    @property
    def is_failing(self) -> bool:
        """Whether nothing could be stored when it was last tried, and the log says why."""

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        """Store a message. Letters are stored in the order in which they come."""

    def open(self, box: Address, position: Position | None, then: Callable[[Opened | None], None]) -> None:
        """Open a box for its owner, who is here; make it if there is none. A position acknowledges what is before it.

        Without a position it is opened at what was acknowledged last.
        """

    def read(self, box: Address, after: int, most: int, size: int, then: Callable[[Page | None], None]) -> None:
        """The next items after an offset: at most so many, and at least one but no more than so many bytes."""

    def acknowledge(self, box: Address, reader: int, offset: int) -> None:
        """Delete all up to an offset, and tell the senders who want to know."""

    def list_boxes(self, then: Callable[[Collection[Address] | None], None]) -> None:
        """The addresses that have a box, whichever worker has opened it."""

    def touch(self, box: Address) -> None:
        """The owner of a box is still here."""
