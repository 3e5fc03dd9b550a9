"""Another worker: to the hub the owner of what its clients own, and who hears what becomes of their messages."""

from collections.abc import Callable, Sequence, Set
from typing import Protocol

import msgspec

import service.core.bus_records as records
from service.core import drops
from service.core.addresses import Address
from service.core.arriving import Arriving
from service.core.bus_records import Record
from service.core.frames import Delivered, Lost
from service.core.hub import Named, Origin, Proof, Receipt, TellReach, TooManyUnconfirmedError
from service.core.message import Message
from service.core.moves import Workers

# What may wait for another worker, in bytes. One that is stuck for a second is sent no more than that; messages beyond
# it are dropped, counted, and reported to senders that want to know.
MAX_QUEUED_BYTES = 16 * 1024 * 1024
# After so many more receipts, and as many again as there were, it is looked who still waits for one.
MANY_RECEIPTS = 1000


class Wire(Protocol):
    """The way to another worker."""

    queued: int
    """Bytes that wait to be sent."""

    def send(self, record: bytes) -> None:
        """Send a record after all others; never waits."""


class Receipts(msgspec.Struct):
    """Who wants to hear about a message that went to another worker, and of whom it still has to.

    `outstanding` has each recipient under the address that it was sent to; a member of a group, under its temporary
    one, and by which name others know it. Those that `passed` were with another worker when the message came, which has
    yet to say of whom it expects to hear, or has said it.
    """

    receipt: Receipt
    outstanding: dict[Address, Address]
    is_decided: bool = True
    """Whether the worker is known to have the recipient."""
    early: tuple[type[Delivered | Lost], Address] | None = None
    """What came of it, said by another worker that the recipient has moved to, before it is decided."""
    passed: dict[Address, "Peer | None"] = {}
    is_expected: bool = True
    """Of a message to a group: whether the worker has said of whom it expects to hear."""


class Peer:
    """Another worker, and to the hub the owner of all that its clients own.

    `owned` is since when, by the clock of the bus; `groups` has the names of their members. `own_number` is what the
    other one knows us by. One of another `host` has the number `local_number` there.
    """

    def __init__(
        self,
        bus: Workers,
        number: str,
        wire: Wire,
        own_number: str,
        host: str | None = None,
        local_number: str | None = None,
    ) -> None:
        self.number = number
        self.own_number = own_number
        self.host = host
        self.local_number = local_number or number
        self.is_near = host is None
        """Whether it is one of this host."""
        self.is_gone = False
        self.wire = wire
        self.owned: dict[Address, float] = {}
        self.groups: dict[str, dict[Address, Address]] = {}
        self.client_addresses: dict[Address, str | None] = {}
        self.receipts: dict[int, Receipts] = {}
        self._were = 0
        """How many receipts there were when it was looked last who still waits for one."""
        self.has_told = False
        """Whether all is known that its clients have."""
        self.last = records.Counted(records.UNASKED, b"")
        """How it was when it said so last."""
        self.heard_at = 0.0
        """When that was, from the epoch."""
        self.asked_at: float | None = None
        """Since when it owes an answer to how it is, by the clock of the center."""
        self._bus = bus

    @property
    def name(self) -> Address:
        return Address(f"worker {self.number}")

    def tell(self, record: Record) -> None:
        """Send what must arrive."""
        self.wire.send(records.encode(record))

    def say(self, record: Record) -> bool:
        """Send a message; when too much waits already it is dropped, and the result is False."""
        if self.is_gone or self.wire.queued > MAX_QUEUED_BYTES:
            self._bus.hub.tally.dropped[self._bus.nobody if self.is_gone else drops.BUS_FULL] += 1
            return False
        self.wire.send(records.encode(record))
        return True

    @property
    def is_full(self) -> bool:
        """Whether messages for this worker are dropped."""
        return self.is_gone or self.wire.queued > MAX_QUEUED_BYTES

    # As the owner of an address

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        self.say(records.Text(text, sender.name, 0, recipient))

    def deliver(self, message: Message) -> None:
        waiting = self.receipts.get(message.key or 0)
        self.say(said(message, receipt=None if waiting is None else waiting.receipt))

    def deliver_to_member(self, message: Message, temporary: Address, receipt: Receipt | None = None) -> None:
        if receipt is not None:
            self._bus.hand_over_to_member(self, message, temporary, receipt)
            return
        record = said(message)
        record.recipient = temporary
        self.say(record)

    def hand_over(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        self._bus.hand_over((self,), message, receipt, then)

    def reach(self, group: str | None) -> int:
        if self.is_full:
            return 0
        return 1 if group is None else len(self.groups.get(group, ()))

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        if self.is_gone:
            return 0
        if self.is_full:
            raise TooManyUnconfirmedError
        outstanding = dict(self.groups.get(str(message.group), {}))
        if outstanding:
            self.receipts[key] = Receipts(receipt, outstanding, is_expected=False)
        return len(outstanding)

    def settle(
        self, key: int, recipient: Address, outcome: type[Delivered | Lost], name: Address | None = None
    ) -> bool:
        """Tell the sender what became of its message, if it waits for that; `name` is the recipient's by now."""
        waiting = self.receipts.get(key)
        if waiting is None or recipient not in waiting.outstanding:
            return False
        if not waiting.is_decided:
            waiting.early = outcome, name or waiting.outstanding[recipient]
            return False
        known = waiting.outstanding.pop(recipient)
        if not waiting.outstanding:
            del self.receipts[key]
        waiting.receipt.sender.tell_outcome(outcome(id=waiting.receipt.id, recipient_uuid=name or known))
        return True

    def forget_unwanted_receipts(self) -> None:
        """Forget those of senders that have gone: the other worker tells nobody what becomes of their messages. To look
        at all takes long, so it is done when there are many more than before.
        """
        if len(self.receipts) > 2 * self._were + MANY_RECEIPTS:
            owner_of = self._bus.hub.owner_of
            senders = {key: waiting.receipt.sender.temporary for key, waiting in self.receipts.items()}
            for key in [key for key, sender in senders.items() if sender is not None and owner_of(sender) is None]:
                del self.receipts[key]
            self._were = len(self.receipts)

    def settle_others(self, key: int, expected: Sequence[Address]) -> None:
        """Members that left the group before the message came will never confirm it."""
        waiting = self.receipts.get(key)
        if waiting is not None:
            waiting.is_expected = True
        for recipient in waiting.outstanding.keys() - {*expected, *waiting.passed} if waiting else ():
            self.settle(key, recipient, Lost)
        for peer in () if self.is_near else self._bus.workers_of(self.host):
            for recipient, before in peer.receipts[key].passed.copy().items() if key in peer.receipts else ():
                if before is self and recipient not in expected:
                    peer.settle(key, recipient, Lost)

    def forget_receipts(self, recipients: Set[Address]) -> list[tuple[int, Receipt, Address, Address]]:
        """It does not tell any more what becomes of messages to these clients: another worker has them, and says it to
        their senders.

        Returns: their keys, the receipts, and the recipients, as whom they were sent to and as others know them.
        """
        forgotten = []
        for key, waiting in tuple(self.receipts.items()):
            found = waiting.outstanding.keys() & recipients if waiting.is_decided else set()
            forgotten += [(key, waiting.receipt, each, waiting.outstanding.pop(each)) for each in found]
            if not waiting.outstanding:
                del self.receipts[key]
        return forgotten

    def pass_receipts(self, recipients: Set[Address], to: "Peer") -> list[Origin]:
        """What becomes of messages to these clients will be told by another worker, which has them.

        Returns: which, by key and recipient.
        """
        passed = []
        for key, waiting in tuple(self.receipts.items()):
            for recipient in waiting.outstanding.keys() & recipients if waiting.is_decided else ():
                before = waiting.passed.pop(recipient, self)
                to.hold(key, waiting.receipt, recipient, waiting.outstanding.pop(recipient), before)
                passed.append((key, recipient))
            if not waiting.outstanding:
                del self.receipts[key]
        return passed

    def hold(self, key: int, receipt: Receipt, recipient: Address, name: Address, before: "Peer | None" = None) -> None:
        """This worker will tell what becomes of a message to this recipient, which was with another one `before`."""
        waiting = self.receipts.setdefault(key, Receipts(receipt, {}))
        waiting.outstanding[recipient] = name
        waiting.passed[recipient] = before

    def when_here(self, act: Callable[[], None]) -> bool:
        return False

    def probe(self, address: Address, proof: Proof, answered: Callable[[bool], None]) -> None:
        if self.is_gone:
            answered(False)  # and the client that asks waits until it is forgotten
            return
        number = self._bus.next_number()
        self._bus.claims[number] = (self, answered)
        self.tell(records.Claim(number, address, proof))


class SenderElsewhere:
    """The sender of a message that came from another worker: the outcome is reported there.

    `recipient` is as whom the message was to reach whoever this is about.
    """

    def __init__(self, bus: Workers, peer: Peer, said: records.Said, recipient: Address) -> None:
        self._bus = bus
        self._name = said.sender
        self.temporary = said.temporary
        self._peer = peer
        self._key = said.key
        self._recipient = recipient
        self.origin = said.origin if peer.is_near else (said.key, recipient)

    @property
    def name(self) -> Address:
        return self._name

    def tell_outcome(self, outcome: Delivered | Lost) -> None:
        owner = self._peer if self.temporary is None else self._bus.hub.owner_of(self.temporary)
        if isinstance(owner, Arriving):
            owner.when_here(lambda: self.tell_outcome(outcome))  # it may stay where it is
        elif owner is self._peer or (owner is None and self.origin is not None and not self._peer.is_gone):
            delivered = isinstance(outcome, Delivered)
            temporary = self.temporary if self.origin else None
            self._peer.tell(records.Outcome(self._key, self._recipient, outcome.recipient_uuid, delivered, temporary))
        # It is served by another worker by now, or has gone.
        elif self.temporary is not None and self.origin is not None:
            self._bus.tell_origin(self.temporary, self.origin, outcome)
        elif self.temporary is not None:
            self._bus.center.mail.tell_outcome(self.temporary, outcome)


def said(message: Message, number: int = 0, seeks: bool = False, receipt: Receipt | None = None) -> records.Said:
    """The record of a message."""
    record = records.Said(
        bytes(message.body), message.sender, message.recipient, message.group, message.key or 0, number, seeks
    )
    if receipt is not None:
        sender = receipt.sender
        record.temporary, record.id, record.origin = sender.temporary, receipt.id, sender.origin
    return record
