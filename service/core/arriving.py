"""Stands for a client that another worker is about to hand over: it has the client's addresses and is in its groups."""

from collections.abc import Callable, Set

from service.core import drops
from service.core.addresses import Address
from service.core.bus_records import Moving
from service.core.hub import Named, Owner, Proof, Reach, Receipt, TellReach
from service.core.message import Message
from service.core.tally import Tally


class Arriving:
    """Keeps what is for the client, and says it to whoever has it in the end: us, the other worker, or nobody."""

    is_here = True
    """Whether other workers may take the client for one of ours."""

    def __init__(self, moving: Moving) -> None:
        self.moving = moving
        self.without: list[tuple[Set[Address], str]] = []
        """Recipients that have ended, or were lost, since it stopped: their addresses, each with the `teller` of a
        `service.core.bus_records.Moves`.
        """
        self._acts: list[Callable[[Owner], None]] = []
        self._receipts: dict[int, Receipt] = {}
        """For messages to a group that are about to be delivered, by key."""

    @property
    def name(self) -> Address:
        return self.moving.name

    @property
    def temporary(self) -> Address:
        """Its first address."""
        return self.moving.temporary

    def yield_to(self, owner: Owner) -> None:
        """That is who has it."""
        acts, self._acts = self._acts, []
        for act in acts:
            act(owner)

    # As the owner of an address

    def when_here(self, act: Callable[[], None]) -> bool:
        self._acts.append(lambda _: act())
        return True

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        self._acts.append(lambda owner: owner.forward(text, sender, recipient))

    def deliver(self, message: Message) -> None:
        if message.group is None:
            self._acts.append(lambda owner: owner.deliver(message))
        else:
            self.deliver_to_member(message, self.temporary, self._receipts.pop(message.key or 0, None))

    def deliver_to_member(self, message: Message, temporary: Address, receipt: Receipt | None = None) -> None:
        self._acts.append(lambda owner: owner.deliver_to_member(message, temporary, receipt))

    def hand_over(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        self._acts.append(lambda owner: owner.hand_over(message, receipt, then))

    def reach(self, group: str | None) -> int:
        return 1

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        self._receipts[key] = receipt
        return 1

    def probe(self, address: Address, proof: Proof, answered: Callable[[bool], None]) -> None:
        self._acts.append(lambda owner: owner.probe(address, proof, answered))


class Nobody:
    """Stands for a client that was lost on the way."""

    def __init__(self, tally: Tally, name: Address) -> None:
        self.name = name
        self._tally = tally

    def when_here(self, act: Callable[[], None]) -> bool:
        return False

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        self._tally.dropped[drops.GONE] += 1

    def deliver_to_member(self, message: Message, temporary: Address, receipt: Receipt | None = None) -> None:
        self.deliver(message)
        if receipt is not None:
            receipt.lose(self.name)

    def deliver(self, message: Message) -> None:
        self._tally.dropped[drops.GONE] += 1

    def hand_over(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        then(Reach(lost=1))

    def reach(self, group: str | None) -> int:
        return 0

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        return 0

    def probe(self, address: Address, proof: Proof, answered: Callable[[bool], None]) -> None:
        answered(False)
