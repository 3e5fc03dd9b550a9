"""Lets clients pass from one worker to another, for everybody else in one act.

The worker that has them has stopped to read what they send. It tells the other one, then all the rest: from then on,
what is for these clients goes to the other worker, which keeps it, and each answers behind all that it had sent before.
When all have answered, nothing is on its way any more, in either direction, and the clients leave: of what two clients
send to each other nothing is overtaken, lost or told twice, and at no moment has an address no owner or two.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, Protocol

import msgspec

import service.core.bus_records as records
from service.core.addresses import Address
from service.core.arriving import Arriving, Nobody
from service.core.center import Center
from service.core.hub import Hub, Member, Owner
from service.core.session import Session


class Worker(Owner, Protocol):
    """Another worker of this host: see `service.core.bus.Peer`."""

    number: str
    owned: dict[Address, float]
    client_addresses: dict[Address, str | None]

    def tell(self, record: records.Record) -> None: ...

    def forget_receipts(self, recipients: Set[Address]) -> None: ...


class Workers(Protocol):
    """All of them: see `service.core.bus.PeerBus`."""

    center: Center
    hub: Hub
    number: str

    def near(self) -> Sequence[Any]: ...

    def next_number(self) -> int: ...

    def since(self, address: Address) -> float: ...

    def forget_since(self, address: Address) -> None: ...

    def is_behind(self, peer: Any) -> bool: ...

    def tell_near(self, record: records.Record) -> None: ...

    def join_at(self, peer: Any, group: str, temporary: Address, name: Address) -> None: ...

    def note_client(self, peer: Any, client: records.Moving) -> None: ...

    def leave_at(self, peer: Any, group: str, temporary: Address) -> None: ...


class _Fence(msgspec.Struct):
    """Workers that have yet to answer, and those that have. First the one that gets the clients is asked."""

    record: records.Moves
    to: Any
    asked: set[Any]
    then: Callable[[bool], None]
    are_others_asked: bool = False
    answered: set[Any] = set()

    @property
    def clients(self) -> Set[Address]:
        """Whom it is about, by their first addresses."""
        return _temporaries(self.record)


def _temporaries(record: records.Moves) -> Set[Address]:
    return {client.addresses[0][0] for client in record.clients}


class Moves:
    """This worker's part in it, whichever that is."""

    def __init__(self, bus: Workers) -> None:
        self._bus = bus
        self._hub = bus.hub
        self._fences: dict[int, _Fence] = {}
        self._arriving: dict[Address, tuple[Worker, Arriving]] = {}
        self._behind: dict[Worker, dict[tuple[str, int], Set[Address]]] = {}
        """Of workers that have yet to say `Fenced`: the clients that they believe elsewhere."""

    # The worker that has the clients

    def announce(self, sessions: Iterable[Session], to: Worker, then: Callable[[bool], None]) -> int:
        """Tell all others that these clients are about to be served by another worker.

        `then` hears once whether nothing is on its way any more: the clients may leave, or stay after all. That all
        have left or stay is to be said with the number that is returned.
        """
        clients = [self._moving(session) for session in sessions]
        record = records.Moves(self._bus.next_number(), to.number, clients)
        self._fences[record.number] = _Fence(record, to, {to}, then)
        to.tell(record)
        return record.number

    def finish(self, number: int, to: Worker) -> None:
        """All of these clients have left, or stay."""
        self._fences.pop(number, None)
        to.tell(records.Fenced(number, self._bus.number))

    def withdraw(self, sessions: Sequence[Session]) -> None:
        """They stay."""
        if sessions:
            clients = [self._moving(session) for session in sessions]
            record = records.Moves(self._bus.next_number(), self._bus.number, clients)
            for peer in self._bus.near():
                peer.tell(record)

    def left(self, session: Session, to: Worker) -> None:
        """A client has left: the other worker has what it had."""
        moving = self._moving(session)
        to.client_addresses[session.temporary] = moving.client_address
        for address, since in moving.addresses:
            to.owned[address] = since
            self._bus.forget_since(address)
            self._hub.pass_on(address, session, to)
        for group in moving.groups:
            self._hub.forget_in_group(session, group)
            self._bus.join_at(to, group, session.temporary, session.name)
        for address in session.watched:
            self._hub.unwatch(session, address)

    def _moving(self, session: Session) -> records.Moving:
        addresses = [(address, self._bus.since(address)) for address in session.addresses]
        return records.Moving(session.client_address, session.name, addresses, list(session.groups))

    def fenced(self, peer: Worker, record: records.Fenced) -> None:
        """A worker has nothing more on its way to these clients."""
        if record.of != self._bus.number:
            self._caught_up(peer, (record.of, record.number))
        elif (fence := self._fences.get(record.number)) is not None:
            fence.asked.discard(peer)
            fence.answered.add(peer)
            self._go_on(record.number, fence)

    def _caught_up(self, peer: Worker, which: tuple[str, int]) -> None:
        if self._bus.is_behind(peer):
            self._bus.center.turns.wait(self, lambda: self._caught_up(peer, which))
        elif peer in self._behind:
            self._behind[peer].pop(which, None)
            if not self._behind[peer]:
                del self._behind[peer]

    def elsewhere(self, peer: Worker) -> Set[Address]:
        """Our clients to whose groups another worker sends where they were, or will be, and not here."""
        ahead = (fence.clients for fence in self._fences.values() if peer in fence.answered)
        return set().union(*ahead, *self._behind.get(peer, {}).values())

    def _go_on(self, number: int, fence: _Fence) -> None:
        if not fence.asked and not fence.are_others_asked:
            fence.are_others_asked = True
            fence.asked.update(peer for peer in self._bus.near() if peer is not fence.to)
            for peer in fence.asked:
                peer.tell(fence.record)
        if not fence.asked:
            fence.then(True)

    # All others, and among them the one that gets the clients

    def heard(self, peer: Worker, record: records.Moves) -> None:
        """Clients of a worker are about to be served by another one, which may be us, or by itself after all."""
        addresses = {address for client in record.clients for address, _ in client.addresses}
        for holder in self._bus.near():
            holder.forget_receipts(addresses)
        is_ours = record.to == self._bus.number
        target = None if is_ours else self._with(record.to)
        if is_ours:
            clients = _temporaries(record)
            for other in self._bus.near():
                self._behind.setdefault(other, {})[peer.number, record.number] = clients
        for client in record.clients if is_ours or target is not None else ():
            self._move(client, peer, target)
        if target is not None and target is not peer:
            target.tell(records.Fenced(record.number, peer.number))
        self._answer(peer, record.number)

    def _with(self, number: str) -> Worker | None:
        return next((peer for peer in self._bus.near() if peer.number == number), None)

    def _answer(self, peer: Worker, number: int) -> None:
        """Say that all is done that the worker had asked for before."""
        if self._bus.is_behind(peer):
            self._bus.center.turns.wait(self, lambda: self._answer(peer, number))
        else:
            peer.tell(records.Fenced(number, peer.number))

    def _move(self, client: records.Moving, teller: Worker, target: Worker | None) -> None:
        temporary = client.addresses[0][0]
        if temporary in self._arriving:
            if target is not None:
                self._give_back(temporary, target)
            return
        holder = next((peer for peer in self._bus.near() if temporary in peer.client_addresses), None)
        if holder is None:
            if target is not None and target is teller:
                self._bus.note_client(target, client)  # it was to be served by one that is gone
        elif target is None:
            self._expect(client, holder)
        elif target is not holder:
            self._pass(client, holder, target)

    def _expect(self, client: records.Moving, holder: Worker) -> None:
        """We are to serve it."""
        temporary = client.addresses[0][0]
        arriving = Arriving(client)
        self._arriving[temporary] = (holder, arriving)
        self._bus.center.uncount(holder.client_addresses.pop(temporary))
        for address, _ in client.addresses:
            holder.owned.pop(address, None)
            self._hub.pass_on(address, holder, arriving)
        for group in client.groups:
            self._bus.leave_at(holder, group, temporary)
            self._hub.note_in_group(arriving, group)

    def _pass(self, client: records.Moving, holder: Worker, target: Worker) -> None:
        """A third worker is to serve it."""
        temporary = client.addresses[0][0]
        target.client_addresses[temporary] = holder.client_addresses.pop(temporary)
        for address, since in client.addresses:
            if holder.owned.pop(address, None) is not None:
                target.owned[address] = since
                self._hub.pass_on(address, holder, target)
        for group in client.groups:
            self._bus.leave_at(holder, group, temporary)
            self._bus.join_at(target, group, temporary, client.name)

    def _give_back(self, temporary: Address, target: Worker) -> None:
        """It stays with the worker that had it."""
        _, arriving = self._arriving.pop(temporary)
        client = arriving.moving
        target.client_addresses[temporary] = client.client_address
        self._bus.center.count(client.client_address)
        for address, since in client.addresses:
            target.owned[address] = since
            self._hub.pass_on(address, arriving, target)
        for group in client.groups:
            self._hub.forget_in_group(arriving, group)
            self._bus.join_at(target, group, temporary, client.name)
        arriving.yield_to(target)

    def arrived(self, session: Member) -> None:
        """A client is served by us now."""
        if session.temporary in self._arriving:
            _, arriving = self._arriving.pop(session.temporary)
            for group in arriving.moving.groups:
                self._hub.forget_in_group(arriving, group)
            arriving.yield_to(session)

    def lost(self, temporary: Address) -> None:
        """A client cannot be served by us, or does not come any more."""
        if temporary not in self._arriving:
            return
        _, arriving = self._arriving.pop(temporary)
        for group in arriving.moving.groups:
            self._hub.forget_in_group(arriving, group)
            self._bus.tell_near(records.Left(group, temporary))
        for address, _ in arriving.moving.addresses:
            if self._hub.owner_of(address) is arriving:
                self._hub.forget_owner(address)
                self._bus.tell_near(records.Frees(address))
        arriving.yield_to(Nobody(self._hub.tally))

    def lost_of(self, number: str) -> None:
        """None of those that are still to come from this worker comes any more."""
        for temporary in [temporary for temporary, (holder, _) in self._arriving.items() if holder.number == number]:
            self.lost(temporary)

    def parted(self, peer: Worker) -> None:
        """A worker has gone."""
        self._behind.pop(peer, None)
        self.lost_of(peer.number)
        for number, fence in tuple(self._fences.items()):
            if fence.to is peer:
                del self._fences[number]
                fence.then(False)
            else:
                fence.asked.discard(peer)
                self._go_on(number, fence)
