"""The clients that are connected, their addresses and groups, and where a message goes.

Pure: no clock, no loop, no socket.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeGuard

import msgspec

from service.core import drops
from service.core.addresses import Address, CheckedAddress
from service.core.frames import Delivered, Id, Lost
from service.core.mailbox import Settled
from service.core.message import Message
from service.core.standing import Abroad, Elsewhere, Standing
from service.core.tally import Tally

Proof = bool | str
"""The proof that an address belongs to its claimant: True for a token, or the secret of its last connection."""


Origin = tuple[int, Address]
"""How the worker of a sender on another host knows a message that is to be confirmed: its key, and whom it was sent to.
"""


class Reach(NamedTuple):
    """The outcome of a message to an address. Nobody has the address when all are 0."""

    online: int = 0
    """It has left for so many recipients, or they will confirm it."""
    receipts: int = 0
    """So many of them will."""
    lost: int = 0
    """So many were lost before it had left: it may have arrived, or not."""
    full: int = 0
    """So many have too much to confirm already: it was not sent to them."""

    def plus(self, other: "Reach") -> "Reach":
        """Both together."""
        return Reach(*map(sum, zip(self, other, strict=True)))


TellReach = Callable[[Reach], None]


class Named(Protocol):
    """The sender of a message."""

    @property
    def name(self) -> Address:
        """Under which address others know the client."""


class Owner(Named, Protocol):
    """Who has an address or is in a group, as the hub needs it: a client of this worker, or another worker."""

    def when_here(self, act: Callable[[], None]) -> bool:
        """Whether it is just being handed over by another worker; then `act` is called when that is over."""

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        """Pass a message of v0 on to the client, which came as `text` and is known to be sound."""

    def deliver(self, message: Message) -> None:
        """Pass a message on to the client."""

    def deliver_to_member(self, message: Message, temporary: Address, receipt: "Receipt | None" = None) -> None:
        """Pass a message to a group on to one member of it alone, which has this first address. With a `receipt`, the
        sender is told later what becomes of it.
        """

    def hand_over(self, message: Message, receipt: "Receipt | None", then: TellReach) -> None:
        """Pass on a message to one address, and report the outcome once.

        Not before it has left the service, unless the recipient will confirm it: what was told to be on its way is sent
        even if the worker is killed.
        """

    def reach(self, group: str | None) -> int:
        """How many clients a message to this group, or to one address, reaches here, as far as is known."""

    def expect(self, key: int, receipt: "Receipt", message: Message) -> int:
        """Remember that a message, which has this key, is to be confirmed; the result is how often it will be.

        Raises:
            TooManyUnconfirmedError: nothing has changed.
        """

    def probe(self, address: Address, proof: Proof, answered: Callable[[bool], None]) -> None:
        """Find out whether the client is alive, and say so once, in a few seconds at most."""


class Taker(Protocol):
    """What is known of a connection: see `service.core.center.Client`."""

    @property
    def written(self) -> int: ...

    @property
    def queued(self) -> int: ...


class Member(Owner, Protocol):
    """A client of this worker, as the hub needs it. `addresses` begins with the temporary one."""

    addresses: list[Address]

    @property
    def temporary(self) -> Address:
        """The first of its addresses."""

    @property
    def client(self) -> Taker:
        """Its connection."""

    @property
    def groups(self) -> Collection[str]:
        """The groups that it is in."""

    def settle(self) -> None:
        """Bring the tally up to date with what the client has sent."""

    def unconfirmed(self) -> "Iterable[tuple[int, Receipt, Address]]":
        """The messages that it has yet to confirm: their keys, who wants to hear of it, and whom they were sent to."""

    def forget_unconfirmed(self) -> None:
        """The senders of this host have been told that these messages were lost."""

    @property
    def client_address(self) -> str | None:
        """Where it comes from; None for a program of this host."""

    def granted(self, address: Address) -> None:
        """A claim has succeeded."""

    def refused(self, address: Address) -> None:
        """A claim has failed: the owner is alive."""

    def replaced(self, address: Address) -> None:
        """A newer connection of the same client has this address now."""

    def displaced(self, address: Address) -> None:
        """A client of another worker was given this address a moment earlier."""

    def changed(self, address: Address, online: bool) -> None:
        """An address that the client watches has got an owner, or lost it."""

    def accepts(self, proof: Proof) -> bool:
        """Whether this proves that the claimant is the same client, on another connection."""

    def abandon(self) -> None:
        """The client is dead: drop the connection."""

    def has_mail(self, box: Address) -> None:
        """There may be something new in the mailbox of this address, which the client has."""

    def lose_mail(self) -> None:
        """The mailbox of the client cannot be read on: let it open it again."""

    def tell_outcome(self, outcome: Delivered | Lost) -> None:
        """What became of a message of the client."""


class ReceiptTaker(Protocol):
    """A sender that may ask for a receipt."""

    @property
    def temporary(self) -> Address | None:
        """The first address of its connection; None of one in an older release, which does not say it."""

    @property
    def origin(self) -> Origin | None:
        """Of one on another host: how it knows the message."""

    def tell_outcome(self, outcome: Delivered | Lost) -> None:
        """The outcome of the message."""


class Receipt(NamedTuple):
    """The sender that wants to hear that a message has arrived, and under which id."""

    sender: ReceiptTaker
    id: Id

    def lose(self, recipient: Address) -> None:
        """The message has not arrived at this recipient, or nobody knows."""
        self.sender.tell_outcome(Lost(id=self.id, recipient_uuid=recipient))


class OpenReceipt(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A message of a client to clients of other workers, which have yet to confirm it: its key, the worker that has it
    by its name, and of each recipient whom it was sent to, and as whom others know it. One that `is_near` is of this
    host.
    """

    worker: str
    key: int
    id: Id
    outstanding: dict[CheckedAddress, CheckedAddress]
    is_near: bool = False

    def lose(self, sender: ReceiptTaker) -> None:
        """Nobody will say any more what becomes of it."""
        for name in self.outstanding.values():
            Receipt(sender, self.id).lose(name)


class TooManyUnconfirmedError(Exception):
    """A client has not confirmed so many messages that it gets no further one that wants a receipt."""


class Bus(Protocol):
    """The hubs of the other workers, as this one knows them."""

    def owns(self, address: Address, member: Member, since: float | None = None) -> None:
        """Tell the others that one of our members has got an address, now or `since` this time."""

    def ends(self, member: Member) -> None:
        """One of our members is about to lose all that it has."""

    def since(self, address: Address) -> float:
        """Since when one of our members has an address."""

    def arrived(self, member: Member) -> None:
        """A client that another process has served so far is a member now."""

    def frees(self, address: Address) -> None:
        """Tell the others that none of our members has it any more."""

    def heir(self, address: Address) -> Owner | None:
        """The owner of an address that none of our members has."""

    def joined(self, group: str, member: Member) -> None:
        """Tell the others that one of our members is in a group."""

    def left(self, group: str, member: Member) -> None:
        """The inverse of `joined`."""

    @property
    def connections(self) -> int:
        """How many clients the others of this host have."""

    @property
    def others(self) -> Collection[str]:
        """The numbers of the other workers of this host."""

    @property
    def is_cut_off(self) -> bool:
        """Whether there may be clients on other hosts that cannot be reached now."""

    @property
    def abroad(self) -> Abroad | None:
        """How this worker stands with other hosts; None without an engine."""

    @property
    def nobody(self) -> str:
        """Why a message is dropped for which no recipient is known."""

    @property
    def known(self) -> Mapping[str, bytes]:
        """What each other worker has last said of itself, a `Standing` as MessagePack, by its number."""

    @property
    def heard_at(self) -> Mapping[str, float]:
        """When it has said so, from the epoch."""

    @property
    def elsewhere(self) -> Sequence[Elsewhere]:
        """The other hosts."""

    def ask_all(self, answer: Callable[[str, bytes], None], *, abroad: bool = False) -> int:
        """Ask the others of this host how they are, or of all hosts, and say how many are asked.

        One that still owes the answer to an earlier question is not asked. Each of the rest answers with its number
        and a `Standing` as MessagePack, or nothing when it has gone.
        """

    def tell_standing(self, ours: Standing) -> None:
        """Let the others of this host know how we are: before we go, and whenever that is shown to somebody.

        So whichever of them is asked next knows no less, and if we are killed, one goes on with no less.
        Otherwise the figures of this host would fall, and Prometheus would take that for a start from 0.
        """

    def seek(self, text: bytes, sender: Named) -> None:
        """Pass on a message of v0 to the owner of its address, although none is known."""

    def seek_to_deliver(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        """Hand over a message to the owner of its address, although none is known."""

    def tell_mail(self, boxes: Collection[Address]) -> None:
        """Tell the others that these mailboxes are there, and may have something new."""

    def tell_settled(self, settled: Settled) -> None:
        """Tell a client of another worker what became of its message."""

    def was_told(self, settled: Settled) -> None:
        """One of our members is told this now."""

    def tell_origin(self, temporary: Address, origin: Origin, outcome: Delivered | Lost) -> None:
        """Tell a client of another host what became of its message.

        Its worker takes each outcome once, so it may be told twice. When the link to that worker has ended, it is not
        told: the message was lost then.
        """

    def announce_restart(self, members: "Iterable[Member]", then: Callable[[], None]) -> None:
        """Tell other hosts that these are about to be served by another process of this host, after this one has ended.

        `then` is called when nothing is on its way to them or from them any more, on hosts that keep what is for them.
        """

    @property
    def followers(self) -> Collection[str]:
        """The workers of other hosts that know of it, and keep what is for these clients."""

    def lose_abroad(self) -> None:
        """This process ends: clients of other hosts can say no more what has become of the messages of ours, if their
        workers have not answered to the announcement.
        """

    def confirm_restart(self, closed: Iterable[Address]) -> None:
        """All that were announced have left, or stay members, but for those that had to be `closed`."""

    def take_back(self, is_over: bool) -> None:
        """Clients that a process before this one has left are about to come, or all of them have come."""

    def does_not_come(self, address: Address) -> None:
        """A client that a process before this one has left, and which has this first address, cannot be served."""

    def open_receipts(self, sender: ReceiptTaker) -> "list[OpenReceipt]":
        """Let go of what a client that leaves has yet to be told of messages to clients of other hosts."""

    def hold_receipts(self, sender: ReceiptTaker, receipts: "Iterable[OpenReceipt]") -> None:
        """The inverse of `open_receipts`: it has come to us. What cannot be told any more is lost."""


class Alone:
    """The bus of the only worker: there is nobody else to tell or to ask."""

    is_cut_off = False
    abroad = None
    followers = ()
    elsewhere: Sequence[Elsewhere] = ()
    known: Mapping[str, bytes] = {}
    heard_at: Mapping[str, float] = {}
    nobody = drops.NOBODY

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def owns(self, address: Address, member: Member, since: float | None = None) -> None: ...

    def since(self, address: Address) -> float:
        return 0.0

    def arrived(self, member: Member) -> None: ...

    def ends(self, member: Member) -> None: ...

    def frees(self, address: Address) -> None: ...

    def heir(self, address: Address) -> Owner | None:
        return None

    def joined(self, group: str, member: Member) -> None: ...

    def left(self, group: str, member: Member) -> None: ...

    @property
    def connections(self) -> int:
        return 0

    @property
    def others(self) -> Collection[str]:
        return ()

    def ask_all(self, answer: Callable[[str, bytes], None], *, abroad: bool = False) -> int:
        return 0

    def tell_standing(self, ours: Standing) -> None: ...

    def seek(self, text: bytes, sender: Named) -> None:
        self._tally.dropped[drops.NOBODY] += 1

    def seek_to_deliver(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        then(Reach())

    def tell_mail(self, boxes: Collection[Address]) -> None: ...

    def tell_settled(self, settled: Settled) -> None: ...

    def was_told(self, settled: Settled) -> None: ...

    def tell_origin(self, temporary: Address, origin: Origin, outcome: Delivered | Lost) -> None: ...

    def announce_restart(self, members: "Iterable[Member]", then: Callable[[], None]) -> None:
        then()

    def lose_abroad(self) -> None: ...

    def confirm_restart(self, closed: Iterable[Address]) -> None: ...

    def take_back(self, is_over: bool) -> None: ...

    def does_not_come(self, address: Address) -> None: ...

    def open_receipts(self, sender: ReceiptTaker) -> list[OpenReceipt]:
        return []

    def hold_receipts(self, sender: ReceiptTaker, receipts: Iterable[OpenReceipt]) -> None:
        for receipt in receipts:
            receipt.lose(sender)


class Hub:
    """Three maps: from an address to its owner, from a group to its members, and from an address to who watches it.

    An address belongs to the first client that has it, as long as that client is alive. A second claimant waits until
    the owner has been probed: a client that lost its network gets its address back, and nobody else can take it.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.inherited = Tally()
        """The counts of workers that have gone, taken over by this one."""
        self.bus: Bus = Alone(self.tally)
        self.members: dict[Member, None] = {}
        self._owners: dict[Address, Owner] = {}
        self._claimants: dict[Address, dict[Member, None]] = {}
        self._groups: dict[str, dict[Owner, None]] = {}
        self._watchers: dict[Address, dict[Member, None]] = {}
        self.owner_of: Callable[[Address], Owner | None] = self._owners.get

    def drop_unsent(self, messages: int) -> None:
        """Count what a client had sent beyond its limits before it went or was closed, and what nobody hears."""
        self.tally.dropped[drops.LIMIT] += messages

    def is_ours(self, owner: Owner | None) -> TypeGuard[Member]:
        """Whether it is a client of this worker: not another worker, and not nobody."""
        return owner in self.members

    def connect(self, member: Member) -> None:
        """Let a new member be reached under its temporary address."""
        self.members[member] = None
        self._owners[member.addresses[0]] = member
        self.bus.owns(member.addresses[0], member)

    def pass_on(self, address: Address, owner: Owner, heir: Owner) -> None:
        """Let an address of an owner have another one, which nobody is to notice."""
        if self._owners.get(address) is owner:
            self._owners[address] = heir

    def adopt(self, member: Member, address: Address, since: float) -> None:
        """Let a member have an address that it had in another process."""
        self._owners[address] = member
        member.addresses.append(address)
        self.bus.owns(address, member, since)

    def let_go(self, member: Member) -> None:
        """Another process serves a member. Whoever has its address here finds out what becomes of it there."""
        del self.members[member]

    def disconnect(self, member: Member, groups: Iterable[str] = (), watched: Iterable[Address] = ()) -> None:
        """Forget a member, and everything that was its own. Once is enough, twice does no harm."""
        if member not in self.members:
            return
        self.bus.ends(member)
        del self.members[member]
        for group in groups:
            self.leave(member, group)
        for address in watched:
            self.unwatch(member, address)
        for address in member.addresses:
            # It may have a newer owner, who outlives this connection and must stay reachable.
            if self._owners.get(address) is member:
                self._release(address)

    def claim(self, member: Member, address: Address, proof: Proof = False) -> None:
        """Ask for an address; `granted` or `refused` of the member tells the outcome, now or a few seconds later."""
        owner = self._owners.get(address)
        if owner is None:
            self._give(address, member)
        elif owner is member:
            member.granted(address)
        elif owner.when_here(lambda: self.claim(member, address, proof)):
            pass
        elif self.is_ours(owner) and owner.accepts(proof):
            self.take_away(address, owner)
            self.claim(member, address)
            self._serve_claimants(address)
        elif address in self._claimants and not proof:
            self._claimants[address][member] = None
        else:
            self._claimants.setdefault(address, {})[member] = None
            owner.probe(address, proof, lambda alive: self._probed(address, owner, alive))

    def take_away(self, address: Address, owner: Member) -> None:
        """Let an address be free, because its owner is the client of old that has come back on another connection."""
        _lose(owner, address)
        del self._owners[address]
        self.bus.frees(address)
        owner.replaced(address)

    def _probed(self, address: Address, owner: Owner, alive: bool) -> None:
        if self._owners.get(address) is not owner:
            return  # it has left, and those that waited have been served
        if not alive:
            if self.is_ours(owner):
                owner.abandon()  # which frees the address, and the first claimant gets it
            return
        self.refuse_claimants(address)

    def refuse_claimants(self, address: Address) -> None:
        """Tell the clients that wait for an address that its owner keeps it."""
        for claimant in self._claimants.pop(address, ()):
            if claimant in self.members:
                claimant.refused(address)

    def _release(self, address: Address) -> None:
        del self._owners[address]
        self.bus.frees(address)
        self.freed(address)

    def freed(self, address: Address) -> None:
        """An address has lost its owner, here or in another worker: give it to the next claimant."""
        heir = self.bus.heir(address)
        if heir is not None:
            self._owners[address] = heir
        self._serve_claimants(address)
        if address not in self._owners:
            self._tell_watchers(address, online=False)

    def _serve_claimants(self, address: Address) -> None:
        for claimant in self._claimants.pop(address, ()):
            if claimant in self.members:
                # The first finds it free; those behind it find an owner, which is probed in turn.
                self.claim(claimant, address)

    def _give(self, address: Address, member: Member) -> None:
        self._owners[address] = member
        member.addresses.append(address)
        self.bus.owns(address, member)
        member.granted(address)
        self._tell_watchers(address, online=True)

    # What the bus has heard of other workers

    def note_owner(self, address: Address, owner: Owner) -> None:
        """An address has an owner in another worker."""
        is_new = address not in self._owners
        self._owners[address] = owner
        self._serve_claimants(address)
        if is_new:
            self._tell_watchers(address, online=True)

    def forget_owner(self, address: Address) -> None:
        """An address has lost its owner in another worker."""
        del self._owners[address]
        self.freed(address)

    def displace(self, address: Address, owner: Member) -> None:
        """An address was given to two clients at the same moment, and `owner` of this worker has come second."""
        _lose(owner, address)
        self._release(address)
        owner.displaced(address)

    def note_in_group(self, member: Owner, group: str) -> None:
        """Another worker has members of a group."""
        self._groups.setdefault(group, {})[member] = None

    def forget_in_group(self, member: Owner, group: str) -> None:
        """The inverse of `note_in_group`."""
        members = self._groups[group]
        del members[member]
        if not members:
            del self._groups[group]

    def groups(self) -> Iterable[tuple[str, Iterable[Owner]]]:
        """Every group, with its members."""
        return self._groups.items()

    # Groups and presence

    def join(self, member: Member, group: str) -> None:
        """Make a member one of a group; the first one founds it."""
        self.note_in_group(member, group)
        self.bus.joined(group, member)

    def leave(self, member: Member, group: str) -> None:
        """The inverse of `join`; the last one to leave dissolves the group."""
        self.forget_in_group(member, group)
        self.bus.left(group, member)

    def members_of(self, group: str) -> Sequence[Owner]:
        """The members of a group, in the order of joining."""
        return tuple(self._groups.get(group, ()))

    def watch(self, member: Member, address: Address) -> None:
        """Tell a member from now on when an address gets an owner or loses it."""
        self._watchers.setdefault(address, {})[member] = None

    def unwatch(self, member: Member, address: Address) -> None:
        """The inverse of `watch`."""
        watchers = self._watchers[address]
        del watchers[member]
        if not watchers:
            del self._watchers[address]

    def _tell_watchers(self, address: Address, online: bool) -> None:
        for watcher in tuple(self._watchers.get(address, ())):
            watcher.changed(address, online)


def _lose(owner: Member, address: Address) -> None:
    """A client keeps its temporary address to the end, whoever owns it by then: by that its groups are known."""
    if address != owner.temporary:
        owner.addresses.remove(address)
