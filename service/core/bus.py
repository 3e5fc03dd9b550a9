"""All workers as one notification center: each knows which addresses and groups the others have.

Every worker tells all others which addresses its clients get, and sends a message straight to the worker that has the
recipient. A message for an address that nobody is known to have goes to all of them once: its owner may have come a
moment ago. An address that two workers have given away at the same moment stays with the earlier client.

Workers of other hosts are peers as well. What all of them are to know goes to them once, by `Far`.

Pure: a `Wire` carries the records; `service.workers.mesh` has those of one host, `service.engine` those between hosts.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import count
from typing import Any, Protocol, TypeGuard

import msgspec

import service.core.bus_records as records
from service.core import drops
from service.core.addresses import Address
from service.core.arriving import Arriving
from service.core.awaited import Awaited, Open, Unsettled
from service.core.bus_records import Record
from service.core.center import Center
from service.core.envelope import open_envelope
from service.core.frames import Delivered, Lost
from service.core.hub import (
    Member,
    Named,
    OpenReceipt,
    Origin,
    Owner,
    Reach,
    Receipt,
    ReceiptTaker,
    TellReach,
    TooManyUnconfirmedError,
)
from service.core.mailbox import Kept, Kind, Letter, Settled
from service.core.message import Message
from service.core.moves import Moves
from service.core.odd_json import OddError
from service.core.peer import Peer, Receipts, SenderElsewhere, Wire, said
from service.core.restarts import Away, Restarts
from service.core.standing import Abroad, Elsewhere, Standing, together
from service.core.turns import SHARE, NotNowError

# Messages of other workers that may wait here for their turn; more are dropped, counted, and reported in the same way.
MAX_LATE = 10_000
# So much of what became of messages between hosts is told to a worker of another host that is met.
MAX_UNTOLD = 1000
# So much of what a worker has is told, or forgotten, in one go: a millisecond or two.
PORTION = 256
# How long another worker has to say how it is. One that has not is stuck: it is not waited for again until it answers.
PATIENCE_S = 0.5


class Far(Protocol):
    """The way to all workers of other hosts at once."""

    @property
    def is_cut_off(self) -> bool:
        """Whether there may be clients on other hosts that cannot be reached now."""

    @property
    def knows_moves(self) -> bool:
        """Whether all of them are of a release that knows `service.core.bus_records.Moves`."""

    @property
    def know_restarts(self) -> Collection[str]:
        """The workers of a release that knows `service.core.bus_records.Restarts`, by their numbers."""

    @property
    def patience_s(self) -> float:
        """After how much silence each of them has gone."""

    def standing(self) -> Abroad:
        """How we stand with them."""

    @property
    def elsewhere(self) -> Sequence[Elsewhere]:
        """The hosts."""

    def announce(self, record: bytes) -> None:
        """Tell what our clients have; never waits."""

    def keep_order(self) -> None:
        """What is announced from now on must not overtake what was sent to one of them before."""

    def seek(self, record: bytes) -> bool:
        """Send a message whose recipient nobody is known to have; False: too many have been sent already."""

    def gone(self, number: str) -> None:
        """A worker of this host has died, and cannot say so itself."""


class _Question(msgspec.Struct):
    """A message on its way to some workers: those that have yet to answer. `key` is 0 when nobody wants a receipt."""

    asked: set[Peer]
    key: int
    then: TellReach
    reach: Reach = Reach()


def _open_receipt(worker: str, message: Open) -> OpenReceipt:
    return OpenReceipt(worker, 0, message.id, {message.recipient: message.recipient}, is_near=True)


def _is_of_one_client(address: Address, before: Peer, after: Peer) -> bool:
    """Whether a client has moved from worker to worker of another host, and the link that says so had ended.

    On our own host nothing is lost, and two clients may get an address at one moment.
    """
    is_one_host = not after.is_near and before.host == after.host
    return is_one_host and before.owned.get(address) == after.owned[address]


def _is_late(peer: Peer, now: float) -> bool:
    return peer.asked_at is not None and now - peer.asked_at >= PATIENCE_S


class PeerBus:
    """This worker's side of the bus to its peers. `number` is its own among the workers of the host.

    Of an address that two have, the earlier one keeps it. The clock that tells is the host's monotonic one, and with an
    engine, where hosts must agree, the wall clock.
    """

    def __init__(self, center: Center, number: str) -> None:
        self.center = center
        self.hub = center.hub
        self.number = number
        self.clock = center.clock if center.settings.engine.url is None else center.now
        self.far: Far | None = None
        self.peers: dict[str, Peer] = {}
        self.claims: dict[int, tuple[Peer, Callable[[bool], None]]] = {}
        self._since: dict[Address, float] = {}
        self._questions: dict[int, _Question] = {}
        self._asked: dict[int, tuple[Peer, Callable[[str, bytes], None]]] = {}
        self._numbers = count(1)
        self._late: dict[tuple[Peer, Address], deque[records.Said]] = {}
        """By sender: a message to a large group, and what is behind it."""
        self._late_in_all = 0
        self._news = b""
        self._awaited = Awaited()
        self._receipts_here: dict[Address, list[Open]] = {}
        """What clients that are leaving have sent to others that stay."""
        self._receipts_there: dict[ReceiptTaker, list[tuple[Peer, int]]] = {}
        """What clients that are leaving are yet to be told by other workers, by the key there."""
        self._is_ending = False
        self._untold: deque[Record] = deque(maxlen=MAX_UNTOLD)
        """What became of messages of clients of other hosts that were not known then."""
        self._unsettled = Unsettled(MAX_UNTOLD)
        """The same, of clients of this host."""
        self.moves = Moves(self)
        self.restarts = Restarts(self)
        self._acts: dict[type[Record], Callable[[Peer, Any], None]] = {
            records.Came: self._came,
            records.Owns: self._owned,
            records.Frees: self._freed,
            records.Joined: self._joined,
            records.Left: self._left,
            records.Text: self._text,
            records.Said: self._said_in_turn,
            records.Reached: self._reached,
            records.Outcome: self._outcome,
            records.Expected: self._expected,
            records.Told: self._told,
            records.Claim: self._claimed,
            records.Answer: self._answered,
            records.Ask: self._ask,
            records.Counted: self._counted,
            records.Mail: self._mail,
            records.Settled: self._settled,
            records.Moves: self.moves.heard,
            records.Fenced: self.moves.heard,
            records.Passed: self._passed,
            records.Restarts: self.moves.heard,
        }

    def next_number(self) -> int:
        """A number for what is to be answered."""
        return next(self._numbers)

    # What the hub tells

    def owns(self, address: Address, member: Member, since: float | None = None) -> None:
        since = self._since[address] = self.clock() if since is None else since
        self.moves.introduce(address)
        self.tell_all(self._owning(address, member, since))

    def _owning(self, address: Address, member: Member, since: float) -> Record:
        if address == member.addresses[0]:
            return records.Came(address, member.client_address)
        return records.Owns(address, since)

    def since(self, address: Address) -> float:
        return self._since[address]

    @property
    def connections(self) -> int:
        return sum(len(peer.client_addresses) for peer in self.near())

    @property
    def others(self) -> Collection[str]:
        return [peer.number for peer in self.near()]

    @property
    def abroad(self) -> Abroad | None:
        return self.far.standing() if self.far else None

    @property
    def elsewhere(self) -> Sequence[Elsewhere]:
        return self.far.elsewhere if self.far else ()

    @property
    def known(self) -> Mapping[str, bytes]:
        return {peer.number: peer.last.counts for peer in self.peers.values() if peer.last.counts}

    @property
    def heard_at(self) -> Mapping[str, float]:
        return {peer.number: peer.heard_at for peer in self.peers.values() if peer.last.counts}

    @property
    def is_cut_off(self) -> bool:
        # An address that nobody has may have a mailbox in the engine.
        return self.far is not None and (self.far.is_cut_off or self.center.mail.is_unknown)

    @property
    def nobody(self) -> str:
        """Why a message is dropped for which no recipient is known."""
        return drops.CUT_OFF if self.is_cut_off else drops.NOBODY

    def near(self) -> Sequence[Peer]:
        """The other workers of this host."""
        return [peer for peer in self.peers.values() if peer.is_near]

    def ends(self, member: Member) -> None:
        if member.temporary in self.moves.leaving:
            self.moves.ends(member)
        self._awaited.take_all_of(member.temporary)
        for peer in self.peers.values():
            peer.forget_unwanted_receipts()

    def frees(self, address: Address) -> None:
        del self._since[address]
        self.tell_all(records.Frees(address))

    def heir(self, address: Address) -> Owner | None:
        claims = [(peer.owned[address], peer.number, peer) for peer in self.peers.values() if address in peer.owned]
        return min(claims)[2] if claims else None

    def joined(self, group: str, member: Member) -> None:
        self.tell_all(records.Joined(group, member.addresses[0], member.name))

    def left(self, group: str, member: Member) -> None:
        self.tell_all(records.Left(group, member.addresses[0]))

    def arrived(self, member: Member) -> None:
        self.moves.arrived(member)
        self.center.mail.settle(self._unsettled.take_all_of(member.temporary))
        # What had been told meanwhile has been passed on to it by now.
        self.lose_awaited(lambda message, worker, _: worker is None, member.temporary)

    def forget_since(self, address: Address) -> None:
        """None of our members has an address any more, and another worker says so to all."""
        del self._since[address]

    def workers_of(self, host: str | None) -> Sequence[Peer]:
        """The other workers of a host; None is this one."""
        return [peer for peer in self.peers.values() if peer.host == host]

    def is_behind(self, peer: Peer) -> bool:
        """Whether something that it has said still waits for its turn."""
        return any(sender is peer for sender, _ in self._late)

    def tell_all(self, record: Record) -> None:
        """Tell all others what must arrive."""
        if self.peers or self.far:
            data = records.encode(record)
            for peer in self.peers.values():
                if peer.is_near:
                    peer.wire.send(data)
            if self.far:
                self.far.announce(data)

    # Messages that are to be answered

    def seek(self, text: bytes, sender: Named) -> None:
        def told(reach: Reach) -> None:
            self.hub.tally.routed += reach.online
            if not reach.online:
                self.hub.tally.dropped[self.nobody] += 1

        self._question(
            tuple(self.peers.values()), 0, lambda number: records.Text(text, sender.name, number), told, True
        )

    def seek_to_deliver(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        self.hand_over(tuple(self.peers.values()), message, receipt, then, seeks=True)

    def hand_over(
        self, peers: Sequence[Peer], message: Message, receipt: Receipt | None, then: TellReach, seeks: bool = False
    ) -> None:
        """Hand a message over to some workers, of which one has the recipient."""
        if receipt is not None and message.key is not None and message.recipient is not None:
            for peer in peers:
                peer.receipts[message.key] = Receipts(receipt, {message.recipient: message.recipient}, is_decided=False)
        self._question(peers, message.key or 0, lambda number: said(message, number, seeks, receipt), then, seeks)

    def hand_over_to_member(self, peer: Peer, message: Message, temporary: Address, receipt: Receipt) -> None:
        """Hand a message to a group over to a worker for this member of it alone."""
        name = peer.groups.get(str(message.group), {}).get(temporary, temporary)
        # Its other members, of which this worker may have some, are expected to confirm it under another key.
        key = self.center.next_key()
        peer.receipts[key] = Receipts(receipt, {temporary: name}, is_decided=False)

        def ask(number: int) -> Record:
            record = said(message, number, receipt=receipt)
            record.recipient, record.key = temporary, key
            return record

        def told(reach: Reach) -> None:
            if not reach.receipts:
                receipt.lose(name)

        self._question((peer,), key, ask, told, seeks=False)

    def _question(
        self, peers: Sequence[Peer], key: int, ask: Callable[[int], Record], then: TellReach, seeks: bool
    ) -> None:
        number = self.next_number()
        question = self._questions[number] = _Question(set(peers), key, then)
        record = ask(number)
        for peer in peers:
            if (peer.is_near or not seeks) and not peer.say(record):
                self._reached(peer, records.Reached(number, Reach()))
        far = [peer for peer in peers if seeks and not peer.is_near]
        if far and not (self.far and self.far.seek(records.encode(record))):
            for peer in far:
                self._reached(peer, records.Reached(number, Reach()))
        if not peers:
            self._end(number, question)

    def _reached(self, peer: Peer, record: records.Reached) -> None:
        question = self._questions.get(record.number)
        if question is None or peer not in question.asked:
            return
        question.asked.discard(peer)
        question.reach = question.reach.plus(record.reach)
        if not record.reach.receipts:
            peer.receipts.pop(question.key, None)
        # The first with the recipient is believed: a stuck worker need not say that it does not have it.
        if record.reach.online or not question.asked:
            self._end(record.number, question)
            if record.reach.receipts and question.key in peer.receipts:
                self._decided(peer, question.key)

    def _end(self, number: int, question: _Question) -> None:
        del self._questions[number]
        for peer in question.asked:
            peer.receipts.pop(question.key, None)
        question.then(question.reach)

    def _decided(self, peer: Peer, key: int) -> None:
        """A worker has the recipient of a message, which may have moved on meanwhile."""
        waiting = peer.receipts[key]
        waiting.is_decided = True
        for recipient, name in tuple(waiting.outstanding.items()):
            owner = self.hub.owner_of(recipient)
            if peer.is_near:
                if owner is not peer:
                    del peer.receipts[key]
                    if waiting.early is None:
                        worker = owner if isinstance(owner, Peer) else peer
                        self.await_outcome(key, waiting.receipt, name, worker, peer)
                continue
            if waiting.early is not None:
                peer.settle(key, recipient, *waiting.early)
                continue
            if isinstance(owner, Peer) and owner.host == peer.host:
                if owner is not peer:
                    peer.pass_receipts({recipient}, owner)
            elif not isinstance(owner, Away):
                peer.settle(key, recipient, Lost)

    def tell_origin(self, temporary: Address, origin: Origin, outcome: Delivered | Lost) -> None:
        key, recipient = origin
        record = records.Outcome(key, recipient, outcome.recipient_uuid, isinstance(outcome, Delivered), temporary)
        owner = self.hub.owner_of(temporary)
        if isinstance(owner, Peer):
            owner.tell(record)
            return
        if isinstance(owner, Arriving):
            owner.when_here(lambda: self.tell_origin(temporary, origin, outcome))
            return
        # It may be with one that is yet to be met, or has just met us and has not said yet whom it has.
        self._untold.append(record)
        for peer in self.peers.values():
            if not peer.is_near:
                peer.tell(record)

    # What near workers tell that have the recipient, or where the sender was

    def await_outcome(
        self, key: int, receipt: Receipt, recipient: Address, worker: Peer, before: Peer | None = None
    ) -> None:
        """Another worker of this host has the recipient of a message by now, or is to get it from the one `before`."""
        if (sender := receipt.sender.temporary) is not None and self.hub.is_ours(self.hub.owner_of(sender)):
            self._awaited.add(Open(sender, receipt.id, recipient), worker, key, None if before is worker else before)

    def note_sent(self, worker: Peer, key: int, address: Address, receipt: Receipt, name: Address) -> None:
        """A worker of this host has yet to say whether it expects to hear of a message to a group from this client."""
        if (sender := receipt.sender.temporary) is not None:
            self._awaited.sent_to(worker, key, address, Open(sender, receipt.id, name))

    def move_awaited(
        self, recipients: Set[Address], worker: Peer, is_there: bool = False, sender: Address | None = None
    ) -> None:
        """As `service.core.awaited.Awaited.move`."""
        self._awaited.move(recipients, worker, is_there, sender)

    def look_for_receipts(self, senders: Set[Address] = frozenset()) -> None:
        """Clients are about to leave, in this turn: find what they have yet to be told, in one go for all of them.
        `senders`: these, where others stay to whom they may have sent something.
        """
        self._receipts_here.clear()
        self._receipts_there.clear()
        for peer in self.peers.values():
            for key, waiting in peer.receipts.items():
                self._receipts_there.setdefault(waiting.receipt.sender, []).append((peer, key))
        for member in self.hub.members if senders else ():
            for _, receipt, recipient in member.unconfirmed():
                if (sender := receipt.sender.temporary) is not None and sender in senders:
                    message = Open(sender, receipt.id, recipient)
                    self._receipts_here.setdefault(sender, []).append(message)

    def _is_told_here(self, message: Open) -> bool:
        """Whether the recipient has come to us, who tell it ourselves; whoever had it may have ended since."""
        return self.is_here(self.hub.owner_of(message.recipient))

    def was_told(self, settled: Settled) -> None:
        message = Open(settled.temporary, settled.id, settled.recipient)
        if self._awaited and self._awaited.take(message):
            return
        for question in self._questions.values():
            for peer in question.asked if question.key else ():
                waiting = peer.receipts.get(question.key)
                if waiting is not None and (waiting.receipt.sender.temporary, waiting.receipt.id) == message[:2]:
                    waiting.early = Delivered if settled.is_delivered else Lost, settled.recipient

    def lose_awaited(self, is_meant: Callable[[Open, Any, int], bool], of: Address | None = None) -> None:
        """Nobody will say any more what becomes of these messages, of all senders or of this one."""
        self._settle_awaited(Lost, is_meant, of)

    def _settle_awaited(
        self, outcome: type[Delivered | Lost], is_meant: Callable[[Open, Any, int], bool], of: Address | None = None
    ) -> None:
        for message in self._awaited.take_where(is_meant, of):
            sender = self.hub.owner_of(message.sender)
            if self.hub.is_ours(sender):
                sender.tell_outcome(outcome(id=message.id, recipient_uuid=message.recipient))

    def announce_restart(self, members: Iterable[Member], then: Callable[[], None]) -> None:
        self.restarts.announce(members, then)

    @property
    def followers(self) -> Collection[str]:
        return [peer.number for peer in self.restarts.followers]

    def lose_abroad(self) -> None:
        self._is_ending = True
        for peer in tuple(self.peers.values()):
            if not peer.is_near and peer not in self.restarts.followers:
                self._answer_for(peer)  # else clients that wait for it could not leave
                self._lose_all(peer)
        self.look_for_receipts()

    def _lose_all(self, peer: Peer) -> None:
        for key, waiting in tuple(peer.receipts.items()):
            for recipient in tuple(waiting.outstanding):
                peer.settle(key, recipient, Lost)

    def confirm_restart(self, closed: Iterable[Address]) -> None:
        self.restarts.confirm(closed)

    def take_back(self, is_over: bool) -> None:
        self.restarts.take_back(is_over)

    def does_not_come(self, address: Address) -> None:
        self.tell_all(records.Frees(address))

    def open_receipts(self, sender: ReceiptTaker) -> list[OpenReceipt]:
        receipts: list[OpenReceipt] = []
        for peer, key in self._receipts_there.pop(sender, ()):
            if waiting := peer.receipts.pop(key, None):
                receipts.append(OpenReceipt(peer.number, key, waiting.receipt.id, waiting.outstanding, peer.is_near))
        if (temporary := sender.temporary) is not None:
            awaited = self._awaited.take_all_of(temporary)
            receipts += [_open_receipt(worker.number, message) for message, worker in awaited]
            receipts += [_open_receipt(self.number, message) for message in self._receipts_here.pop(temporary, ())]
        # If all of this host end, the recipients take with them what there is to be told.
        return [each for each in receipts if not (each.is_near and self._is_ending)]

    def hold_receipts(self, sender: ReceiptTaker, receipts: Iterable[OpenReceipt]) -> None:
        for each in receipts:
            for recipient, name in tuple(each.outstanding.items()):
                # It may have moved on as well.
                owner = self.hub.owner_of(recipient)
                if each.is_near:
                    self._hold_near(sender, each, name, owner)
                    del each.outstanding[recipient]
                    continue
                holder = owner if isinstance(owner, Peer) and not owner.is_near else self.peers.get(each.worker)
                if holder is not None:
                    holder.hold(each.key, Receipt(sender, each.id), recipient, name)
                    del each.outstanding[recipient]
            each.lose(sender)

    def _hold_near(self, sender: ReceiptTaker, receipt: OpenReceipt, name: Address, owner: Owner | None) -> None:
        before = self.peers.get(receipt.worker)
        worker: Peer | PeerBus | None = owner if isinstance(owner, Peer) else before
        if worker is None and self.is_here(owner):
            worker = self  # it may be lost, if it is yet to come, or was lost while the sender was on its way
        if sender.temporary is not None:
            self._awaited.add(
                Open(sender.temporary, receipt.id, name), worker, before=None if worker is before else before
            )

    def lose_receipts(self, peer: Peer, sender: Address) -> None:
        """What a client that has come to us is yet to be told by a worker of another host is not told any more."""
        owner = self.hub.owner_of(sender)
        if isinstance(owner, Arriving):
            owner.when_here(lambda: self.lose_receipts(peer, sender))
            return
        for key, waiting in tuple(peer.receipts.items()):
            if waiting.receipt.sender.temporary == sender:
                for recipient in waiting.outstanding.keys() & {*waiting.passed}:
                    peer.settle(key, recipient, Lost)

    # Mailboxes

    def tell_mail(self, boxes: Collection[Address]) -> None:
        self.tell_all(records.Mail(list(boxes)))

    def tell_settled(self, settled: Settled) -> None:
        owner = self.hub.owner_of(settled.temporary)
        if isinstance(owner, Peer):
            owner.tell(records.Settled(*settled))
        elif isinstance(owner, Arriving):
            owner.when_here(lambda: self.center.mail.settle([settled]))
        else:
            self._unsettled.add(settled)

    def _mail(self, peer: Peer, record: records.Mail) -> None:
        self.center.mail.heard(record.boxes)

    def _settled(self, peer: Peer, record: records.Settled) -> None:
        # It may have moved on since the sender heard of it.
        self.center.mail.settle([Settled(record.temporary, record.id, record.recipient, record.is_delivered)])

    # What other workers tell

    def meet(self, number: str, wire: Wire) -> Peer:
        """Another worker of this host is there: tell it all addresses and groups of our clients."""
        peer = self.peers[number] = Peer(self, number, wire, self.number)
        self.moves.met(peer)
        for record in self.all_that_we_have():
            peer.tell(record)
        return peer

    def meet_far(self, number: str, wire: Wire, own_number: str, host: str, local_number: str) -> Peer:
        """A worker of another host is there, which is told in portions what our clients have."""
        peer = self.peers[number] = Peer(self, number, wire, own_number, host, local_number)
        return peer

    def tell_missed(self, peer: Peer) -> None:
        """Tell a worker of another host, the link to which is up now, what it may have missed."""
        for record in self._untold:
            peer.tell(record)
        self.moves.met(peer)

    def all_that_we_have(self) -> Iterator[Record]:
        """What another worker is to know. It may be asked for little by little: what changes meanwhile is told as well,
        and to hear of something twice does no harm.
        """
        if self.restarts.is_taking:
            yield records.Told(is_taking=True)
        for member in tuple(self.hub.members):
            for address in tuple(member.addresses):
                # Whoever has come back under the temporary address of a connection that is just closed owns that.
                is_its_own = self.hub.owner_of(address) is member
                if self._is_staying(member) and is_its_own and address in self._since:
                    yield self._owning(address, member, self._since[address])
        for group, owners in [(group, tuple(owners)) for group, owners in self.hub.groups()]:
            for owner in owners:
                if self._is_staying(owner) and owner in self.hub.members_of(group):
                    yield records.Joined(group, owner.addresses[0], owner.name)
        yield records.Told(self.restarts.is_taking)

    def _is_staying(self, owner: Owner) -> TypeGuard[Member]:
        """Of a client of ours that is about to leave, the others hear by `Moves`."""
        return self.hub.is_ours(owner) and owner.temporary not in self.moves.leaving

    def part(self, peer: Peer) -> None:
        """Another worker has gone, and all its clients with it. Those of a large one are forgotten in portions."""
        del self.peers[peer.number]
        peer.is_gone = True
        if peer.is_near and self.far:
            self.far.gone(peer.number)
        if peer.is_near:
            self._inherit(peer)
        self.moves.parted(peer)
        self.restarts.parted(peer)
        self._answer_for(peer)
        self._lose_all(peer)
        self._awaited.part(peer)
        self.lose_awaited(lambda message, worker, _: worker is peer and not self._is_told_here(message))
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        for _ in range(PORTION):
            if peer.owned:
                # Not the first one: to find it takes the longer the more have gone.
                self._disowned(peer, peer.owned.popitem()[0])
            elif peer.groups:
                self.hub.forget_in_group(peer, peer.groups.popitem()[0])
            elif peer.client_addresses:
                self.center.uncount(peer.client_addresses.popitem()[1])
            else:
                return
        self.center.turns.charge(PORTION)
        self.center.turns.wait(peer, lambda: self._forget(peer))

    def _answer_for(self, peer: Peer) -> None:
        """Give the answers that it cannot give any more."""
        # It may have had the recipient, and the message may have left.
        for number in [number for number, question in self._questions.items() if peer in question.asked]:
            self._reached(peer, records.Reached(number, Reach(lost=1)))
        for number in [number for number, (asked, _) in self.claims.items() if asked is peer]:
            self._answered(peer, records.Answer(number, alive=False))
        for number in [number for number, (asked, _) in self._asked.items() if asked is peer]:
            self._counted(peer, records.Counted(number, b""))

    def receive(self, peer: Peer, batch: bytes) -> None:
        """Act on the records of a batch.

        Raises:
            msgspec.MsgspecError: it is none.
        """
        for record in records.decode_batch(batch):
            self._acts[type(record)](peer, record)

    def act(self, peer: Peer, record: Record) -> None:
        """The same for a record that has been read."""
        self._acts[type(record)](peer, record)

    def _said_in_turn(self, peer: Peer, record: records.Said) -> None:
        if (peer, record.sender) in self._late or not self._pass_on(peer, record):
            self._wait(peer, record)

    def _pass_on(self, peer: Peer, record: records.Said) -> bool:
        """Act on a message, unless it is too expensive for this turn."""
        try:
            self._said(peer, record)
        except NotNowError:
            return False
        return True

    def _wait(self, peer: Peer, record: records.Said) -> None:
        if self._late_in_all >= MAX_LATE:
            self._drop(peer, record)
            return
        self._late_in_all += 1
        late = self._late.setdefault((peer, record.sender), deque())
        late.append(record)
        if len(late) == 1:
            self._wait_for_turn(peer, record.sender)

    def _wait_for_turn(self, peer: Peer, sender: Address) -> None:
        self.center.turns.wait((peer, sender), lambda: self._catch_up(peer, sender))

    def _catch_up(self, peer: Peer, sender: Address) -> None:
        late = self._late[peer, sender]
        for _ in range(min(SHARE, len(late))):
            if not self._pass_on(peer, late[0]):
                break
            late.popleft()
            self._late_in_all -= 1
        if late:
            self._wait_for_turn(peer, sender)
        else:
            del self._late[peer, sender]

    def _drop(self, peer: Peer, record: records.Said) -> None:
        self.hub.tally.dropped[drops.BUS_FULL] += 1
        if record.group is not None and record.key:
            peer.tell(records.Expected(record.key, []))
        elif record.number:
            peer.tell(records.Reached(record.number, Reach(lost=1)))

    def _told(self, peer: Peer, record: records.Told) -> None:
        peer.has_told = not record.is_taking
        self.restarts.told(peer, record.is_taking)
        self.center.mail.look_again()

    def _came(self, peer: Peer, record: records.Came) -> None:
        if self.restarts.came(peer, record.temporary):
            return
        before = self.hub.owner_of(record.temporary)
        if isinstance(before, Peer) and before is not peer and before.host == peer.host:
            self._forget_client(before, record.temporary)
        if record.temporary not in peer.client_addresses:
            peer.client_addresses[record.temporary] = record.client_address
            self.center.count(record.client_address)
        self.note(peer, record.temporary, 0.0)
        self.center.mail.settle(self._unsettled.take_all_of(record.temporary))

    def _passed(self, peer: Peer, record: records.Passed) -> None:
        self.moves.passed(peer, record)
        self.restarts.passed(peer, record)

    def note_client(self, peer: Peer, client: records.Moving) -> None:
        """A client of another worker is there, with all that it has."""
        temporary, others = client.temporary, client.addresses[1:]
        self._came(peer, records.Came(temporary, client.client_address))
        for address, since in others:
            self._owned(peer, records.Owns(address, since))
        for group in client.groups:
            self._joined(peer, records.Joined(group, temporary, client.name))

    def _forget_client(self, peer: Peer, temporary: Address) -> None:
        """A worker does not have a client any more: another one of its host says that it has it, and what else it has.
        It was to pass from the one to the other, or had come back, and the link that says so had ended.
        """
        if temporary in peer.client_addresses:
            self.center.uncount(peer.client_addresses.pop(temporary))
        for group in [group for group, members in peer.groups.items() if temporary in members]:
            self.leave_at(peer, group, temporary)

    def _owned(self, peer: Peer, record: records.Owns) -> None:
        if not self.restarts.is_back(peer, self.hub.owner_of(record.address)):
            self.note(peer, record.address, record.since)

    def note(self, peer: Peer, address: Address, since: float) -> None:
        """A client of another worker has an address."""
        peer.owned[address] = since
        owner = self.hub.owner_of(address)
        if owner is None:
            self.hub.note_owner(address, peer)
        elif not self.hub.is_ours(owner):
            if owner is not peer and isinstance(owner, Peer) and _is_of_one_client(address, owner, peer):
                del owner.owned[address]
            heir = self.heir(address)
            assert heir is not None
            self.hub.note_owner(address, heir)
        elif (since, peer.number) < (self._since[address], peer.own_number):
            # Both clients were granted the address at the same moment. The other worker sees it as we do.
            self.hub.displace(address, owner)

    def _freed(self, peer: Peer, record: records.Frees) -> None:
        self.restarts.freed(peer, record.address)
        self.free_at(peer, record.address)

    def free_at(self, peer: Peer, address: Address) -> None:
        """No client of another worker has an address any more."""
        if address in peer.client_addresses:
            self.center.uncount(peer.client_addresses.pop(address))
        self._disowned(peer, address)

    def _disowned(self, peer: Peer, address: Address) -> None:
        peer.owned.pop(address, None)
        if self.hub.owner_of(address) is peer:
            self.hub.forget_owner(address)

    def _joined(self, peer: Peer, record: records.Joined) -> None:
        self.join_at(peer, record.group, record.temporary, record.name)

    def join_at(self, peer: Peer, group: str, temporary: Address, name: Address) -> None:
        """A client of another worker is in a group."""
        if not self.restarts.is_early(peer, group, temporary, name):
            peer.groups.setdefault(group, {})[temporary] = name
            self.hub.note_in_group(peer, group)

    def _left(self, peer: Peer, record: records.Left) -> None:
        self.restarts.left(peer, record)
        self.leave_at(peer, record.group, record.temporary)

    def leave_at(self, peer: Peer, group: str, temporary: Address) -> None:
        """The inverse of `join_at`."""
        members = peer.groups.get(group, {})
        if members.pop(temporary, None) is not None and not members:
            del peer.groups[group]
            self.hub.forget_in_group(peer, group)

    def is_here(self, owner: Owner | None) -> TypeGuard[Member | Arriving]:
        """Whether a client is ours, or about to be."""
        return owner in self.hub.members or (isinstance(owner, Arriving) and owner.is_here)

    def _text(self, peer: Peer, record: records.Text) -> None:
        is_here = False
        try:
            recipient = record.recipient or open_envelope(record.text).recipient_uuid
            owner = self.hub.owner_of(recipient)
            if self.is_here(owner) and not (record.number and owner.temporary in self.moves.elsewhere(peer)):
                owner.forward(record.text, record, recipient)
                is_here = True
            elif not record.number:
                # It has moved since the sender heard of it.
                self.seek(record.text, record)
        except OddError:
            self.hub.tally.dropped[drops.UNREADABLE] += 1
        if record.number:
            peer.tell(records.Reached(record.number, Reach(online=int(is_here))))

    def _said(self, peer: Peer, record: records.Said) -> None:
        message = Message(
            msgspec.Raw(record.body),
            record.sender,
            recipient=None if record.group else record.recipient,
            group=record.group,
            key=self.center.next_key() if record.key else None,
        )
        if record.recipient is not None:
            self._said_to_one(peer, record, message, record.recipient)
        else:
            self._said_to_group(peer, record, message)

    def _said_to_one(self, peer: Peer, record: records.Said, message: Message, recipient: Address) -> None:
        def told(reach: Reach) -> None:
            if record.number:
                peer.tell(records.Reached(record.number, reach))
            elif not reach.online:
                self.hub.tally.dropped[self.nobody] += 1

        receipt = Receipt(SenderElsewhere(self, peer, record, recipient), record.id) if record.key else None
        owner = self.hub.owner_of(recipient)
        if not self.is_here(owner):
            if record.seeks or record.group is not None:
                told(Reach())  # to look for a member of a group would be to send it to all of them
            else:
                # It has moved since the sender heard of it.
                self.seek_to_deliver(message, receipt, told)
        elif record.seeks and owner.temporary in self.moves.elsewhere(peer):
            # The worker that it moves from, or to, has heard of the message as well, and takes it, or nobody does.
            told(Reach(lost=1))
        elif recipient in self.center.mail.boxes and receipt is None:
            self._keep(message, recipient, told)
        elif record.number:
            owner.hand_over(message, receipt, told)
        else:
            owner.deliver(message)

    def _keep(self, message: Message, box: Address, then: TellReach) -> None:
        """Store what a worker has handed over that does not know yet that its recipient has a mailbox."""

        def kept(outcome: Kept) -> None:
            then(Reach(online=1) if outcome.is_stored else Reach(lost=1))

        self.center.mail.keep(Letter(box, message.sender, Kind.JSON, bytes(message.body)), kept)

    def _said_to_group(self, peer: Peer, record: records.Said, message: Message) -> None:
        expected: list[Address] = []
        members = [member for member in self.hub.members_of(str(message.group)) if self.is_here(member)]
        if elsewhere := self.moves.elsewhere(peer):
            members = [member for member in members if member.temporary not in elsewhere]
        self.center.turns.begin(len(members))
        for member in members:
            if message.key is not None:
                temporary = member.temporary
                receipt = Receipt(SenderElsewhere(self, peer, record, temporary), record.id)
                try:
                    expected += [temporary] * member.expect(message.key, receipt, message)
                except TooManyUnconfirmedError:
                    self.hub.tally.dropped[drops.UNCONFIRMED] += 1
                    receipt.lose(member.name)
                    continue
            member.deliver(message)
        if record.key:
            peer.tell(records.Expected(record.key, expected))

    def _claimed(self, peer: Peer, record: records.Claim) -> None:
        owner = self.hub.owner_of(record.address)

        def decided(alive: bool) -> None:
            peer.tell(records.Answer(record.number, alive))

        if isinstance(owner, Arriving):
            owner.when_here(lambda: self._claimed(peer, record))
        elif not self.hub.is_ours(owner):
            decided(False)
        elif owner.accepts(record.proof):
            self.hub.take_away(record.address, owner)
            self.hub.refuse_claimants(record.address)
            decided(False)
        else:

            def probed(alive: bool) -> None:
                if not alive and self.hub.owner_of(record.address) is owner:
                    owner.abandon()
                decided(alive and self.hub.owner_of(record.address) is owner)

            owner.probe(record.address, record.proof, probed)

    def _answered(self, peer: Peer, record: records.Answer) -> None:
        waiting = self.claims.pop(record.number, None)
        if waiting is not None:
            waiting[1](record.alive)

    def _outcome(self, peer: Peer, record: records.Outcome) -> None:
        sender = None if record.temporary is None else self.hub.owner_of(record.temporary)
        if isinstance(sender, Arriving):
            sender.when_here(lambda: self._outcome(peer, record))
        elif isinstance(sender, Peer):
            if sender.is_near and peer is not sender:
                sender.tell(record)  # it has moved on
        elif sender is not None or record.temporary is None:
            outcome = Delivered if record.delivered else Lost
            is_told = peer.settle(record.key, record.recipient, outcome, record.name)
            if not is_told and not self.settle(record.key, record.recipient, outcome, record.name):
                # The recipient was about to move, and has stayed after all.
                of = record.key, record.name
                self._settle_awaited(outcome, lambda message, _, key: (key, message.recipient) == of)

    def settle(
        self, key: int, recipient: Address, outcome: type[Delivered | Lost], name: Address | None = None
    ) -> bool:
        """Tell one of our clients what became of its message, whichever worker has the recipient, or is about to."""
        is_told = any(peer.settle(key, recipient, outcome, name) for peer in self.peers.values())
        return is_told or self.restarts.settle(key, recipient, outcome, name)

    def _expected(self, peer: Peer, record: records.Expected) -> None:
        peer.settle_others(record.key, record.recipients)
        if unexpected := self._awaited.unexpected(peer, record.key, record.recipients):
            self.lose_awaited(lambda message, *_: message in unexpected)

    # Figures

    def ask_all(self, answer: Callable[[str, bytes], None], *, abroad: bool = False) -> int:
        now = self.center.clock()
        asked = [peer for peer in (self.peers.values() if abroad else self.near()) if not _is_late(peer, now)]
        for peer in asked:
            number = self.next_number()
            self._asked[number] = (peer, answer)
            peer.asked_at = now if peer.asked_at is None else peer.asked_at
            peer.tell(records.Ask(number))
        return len(asked)

    def tell_what_is_new(self) -> None:
        """Let the others of this host know how we are, if we have counted anything since they were told so last.

        If we are killed, one of them goes on with it. CPU time, which passes while nothing happens, is no news; who the
        others are is, for they are told which of them it is.
        """
        counted = (len(self.hub.members), self.center.counted(), self.hub.inherited, self.others)
        if (news := msgspec.msgpack.encode(counted)) != self._news:
            self._news = news
            self.tell_standing(self.center.standing())

    def tell_standing(self, ours: Standing, asker: Peer | None = None, number: int = records.UNASKED) -> None:
        near = self.near()
        # The one that has come last will stay longest.
        heir = near[-1].number if near else ""
        counts = msgspec.msgpack.encode(ours)
        for peer in near if asker is None or asker.is_near else [asker]:
            peer.tell(records.Counted(number if peer is asker else records.UNASKED, counts, heir))

    def _ask(self, peer: Peer, record: records.Ask) -> None:
        self.tell_standing(self.center.standing(), peer, record.number)

    def _counted(self, peer: Peer, record: records.Counted) -> None:
        if record.counts:
            peer.last, peer.heard_at = record, self.center.now()
        waiting = self._asked.pop(record.number, None)
        if waiting is not None:
            peer.asked_at = None
            waiting[1](peer.number, record.counts)

    def _inherit(self, peer: Peer) -> None:
        """Go on with what a worker that has gone had counted, if that is for us to do."""
        counts, heir, others = peer.last.counts, peer.last.heir, self.others
        if heir != self.number and heir not in others:  # it has gone before
            heir = min([self.number, *others])
        if counts and heir == self.number:
            left = msgspec.msgpack.decode(counts, type=Standing)
            self.hub.inherited.add(together([left]).tally)
