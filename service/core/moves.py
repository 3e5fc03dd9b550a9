"""Lets clients pass from one worker to another of the same host, for everybody else in one act.

The worker that has them has stopped to read what they send. It tells the other one, then all the rest, on all hosts:
from then on, what is for these clients goes to the other worker, which keeps it, and each answers behind all that it
had sent before. When all have answered, nothing is on its way any more, in either direction, and the clients leave: of
what two clients send to each other nothing is overtaken, lost or told twice, and at no moment has an address no owner
or two. Until the rest are told, clients can stay after all; from then on, they can only leave, or end.

A link to a worker of another host may end meanwhile. What was on its way is lost then, so nobody waits for it; but it
has to hear of the clients from the worker that gets them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import msgspec
from msgspec import structs

import service.core.bus_records as records
from service.core.addresses import Address
from service.core.arriving import Arriving, Nobody
from service.core.awaited import Open
from service.core.center import Center
from service.core.frames import Delivered, Lost
from service.core.hub import Hub, Member, Origin, Owner, Receipt, TellReach
from service.core.message import Message
from service.core.session import Session

# What has left a worker that has died is here by then: we read it from that worker's connection as soon as we can.
COMES_S = 60.0
# So many announcements of other hosts are remembered in the place of which another one has come.
MAX_REPLACED = 1000
# Of so many workers that have died in the middle of a move it is remembered who was to come from them.
MAX_LEFT_OVER = 16


class Worker(Owner, Protocol):
    """Another worker: see `service.core.peer.Peer`."""

    number: str
    host: str | None
    local_number: str
    is_near: bool
    is_gone: bool
    has_told: bool
    receipts: dict[int, Any]
    owned: dict[Address, float]
    client_addresses: dict[Address, str | None]

    def tell(self, record: records.Record) -> None: ...

    def forget_receipts(self, recipients: Set[Address]) -> list[tuple[int, Receipt, Address, Address]]: ...

    def hold(self, key: int, receipt: Receipt, recipient: Address, name: Address) -> None: ...

    def pass_receipts(self, recipients: Set[Address], to: Any) -> list[Origin]: ...


class Workers(Protocol):
    """All of them: see `service.core.bus.PeerBus`."""

    center: Center
    hub: Hub
    number: str

    @property
    def far(self) -> Any: ...

    @property
    def moves(self) -> Any: ...

    @property
    def restarts(self) -> Any: ...

    @property
    def peers(self) -> Mapping[str, Any]: ...

    @property
    def claims(self) -> dict[int, tuple[Any, Callable[[bool], None]]]: ...

    @property
    def nobody(self) -> str: ...

    def hand_over(self, peers: Sequence[Any], message: Message, receipt: Receipt | None, then: TellReach) -> None: ...

    def hand_over_to_member(self, peer: Any, message: Message, temporary: Address, receipt: Receipt) -> None: ...

    def tell_origin(self, temporary: Address, origin: Origin, outcome: Delivered | Lost) -> None: ...

    def workers_of(self, host: str | None) -> Sequence[Any]: ...

    def next_number(self) -> int: ...

    def is_here(self, owner: Owner | None) -> bool: ...

    def since(self, address: Address) -> float: ...

    def forget_since(self, address: Address) -> None: ...

    def is_behind(self, peer: Any) -> bool: ...

    def tell_all(self, record: records.Record) -> None: ...

    def settle(self, key: int, recipient: Address, outcome: type[Lost]) -> bool: ...

    def await_outcome(
        self, key: int, receipt: Receipt, recipient: Address, worker: Any, before: Any = None
    ) -> None: ...

    def lose_awaited(self, is_meant: Callable[[Open, Any, int], bool], of: Address | None = None) -> None: ...

    def note_sent(self, worker: Any, key: int, address: Address, receipt: Receipt, name: Address) -> None: ...

    def move_awaited(
        self, recipients: Set[Address], worker: Any, is_there: bool = False, sender: Address | None = None
    ) -> None: ...

    def look_for_receipts(self, senders: Set[Address]) -> None: ...

    def lose_receipts(self, peer: Any, sender: Address) -> None: ...

    def join_at(self, peer: Any, group: str, temporary: Address, name: Address) -> None: ...

    def note(self, peer: Any, address: Address, since: float) -> None: ...

    def note_client(self, peer: Any, client: records.Moving) -> None: ...

    def leave_at(self, peer: Any, group: str, temporary: Address) -> None: ...

    def free_at(self, peer: Any, address: Address) -> None: ...


class _Fence(msgspec.Struct):
    """Workers that have yet to answer, and those that have. First the one that gets the clients is asked."""

    record: records.Moves
    to: Any
    asked: set[Any]
    then: Callable[[bool], None]
    are_others_asked: bool = False
    answered: set[Any] = set()
    is_told: bool = False
    unsure: set[str] = set()
    """The numbers of those that may have heard of it: the link to them has ended before they had answered."""
    withdrawal: int = 0
    """The number of the `Moves` that takes it back, to which those that are `asked` are yet to answer."""

    def tell(self, may_leave: bool) -> None:
        """Say it once."""
        if not self.is_told:
            self.is_told = True
            self.then(may_leave)

    @property
    def is_over(self) -> bool:
        """Whether the clients stay, or are about to."""
        return self.withdrawal > 0 or self.to.is_gone

    def ask_no_more(self, peer: Any) -> None:
        """It has gone, or the link to it has ended."""
        if peer in self.asked and (self.are_others_asked or not self.withdrawal):
            self.unsure.add(peer.number)
        self.asked.discard(peer)

    def may_have_heard(self, number: str) -> bool:
        """Whether the worker with this number has answered, or may know of it all the same, over whatever link."""
        return number in self.unsure or any(worker.number == number for worker in self.answered)

    def has_heard_of_withdrawal(self, peer: Any) -> None:
        """It has answered to that."""
        self.asked.discard(peer)
        self.answered = {worker for worker in self.answered if worker.number != peer.number}
        self.unsure.discard(peer.number)

    @property
    def clients(self) -> Set[Address]:
        """Whom it is about, by their first addresses."""
        return _temporaries(self.record.clients)


class _Behind(msgspec.Struct):
    """Clients whom a worker that has yet to say `Fenced` believes elsewhere, but for those of whom it has `heard`."""

    clients: Mapping[Address, records.Moving]
    heard: set[Address] = set()


def _temporaries(clients: Iterable[records.Moving]) -> Set[Address]:
    return {client.temporary for client in clients}


def stand_in(bus: Workers, arriving: Arriving, holder: Worker) -> None:
    """Put it in the place of the client that another worker has."""
    bus.center.uncount(holder.client_addresses.pop(arriving.temporary))
    for address, _ in arriving.moving.addresses:
        holder.owned.pop(address, None)
        bus.hub.pass_on(address, holder, arriving)
    for group in arriving.moving.groups:
        bus.leave_at(holder, group, arriving.temporary)
        bus.hub.note_in_group(arriving, group)


def give_back(bus: Workers, arriving: Arriving, target: Worker) -> None:
    """Another worker has the client."""
    client = arriving.moving
    target.client_addresses[arriving.temporary] = client.client_address
    bus.center.count(client.client_address)
    for address, since in client.addresses:
        target.owned[address] = since
        bus.hub.pass_on(address, arriving, target)
    for group in client.groups:
        bus.hub.forget_in_group(arriving, group)
        bus.join_at(target, group, arriving.temporary, client.name)
    arriving.yield_to(target)


def give_up(bus: Workers, arriving: Arriving) -> None:
    """Nobody has the client."""
    for group in arriving.moving.groups:
        bus.hub.forget_in_group(arriving, group)
    for address, _ in arriving.moving.addresses:
        if bus.hub.owner_of(address) is arriving:
            bus.hub.forget_owner(address)
    arriving.yield_to(Nobody(bus.hub.tally, arriving.name))


class Moves:
    """This worker's part in it, whichever that is."""

    def __init__(self, bus: Workers) -> None:
        self._bus = bus
        self._hub = bus.hub
        self.leaving: set[Address] = set()
        """Clients of ours that are about to leave."""
        self._fences: dict[int, _Fence] = {}
        self._arriving: dict[Address, tuple[Worker, Arriving]] = {}
        self._lost: dict[Address, tuple[Worker, Arriving]] = {}
        """Clients of whom all have been told that they do not come, for their worker has died."""
        self._left_to: set[Worker] = set()
        """Workers to which clients of ours have passed."""
        self._behind: dict[Worker, dict[tuple[str, int], _Behind]] = {}
        """Of workers that have yet to say `Fenced`: the clients that they believe elsewhere."""
        self._claims: dict[tuple[Worker, int], tuple[str, int]] = {}
        """What those have been told by us who had yet to say `Fenced` to others."""
        self._introduced: dict[tuple[Worker, int], tuple[Address, list[_Behind]]] = {}
        """Whom of those that they may believe elsewhere others have been told by us to be here."""
        self._ahead: list[tuple[Worker, int, Worker]] = []
        """Workers that hear again when another one is not behind any more, each with the number of its `Moves`."""
        self._left_over: dict[tuple[str, int], Mapping[Address, records.Moving]] = {}
        """Who was to come from workers that have died: others may hear of that late."""
        self._waiting: dict[Worker, deque[records.Moves | records.Fenced | records.Restarts]] = {}
        """What has been heard and is to be acted on in order."""
        self._aside: dict[Worker, list[records.Moves]] = {}
        """What can only be acted on when another worker of that host is met."""
        self._replaced: deque[tuple[str, int]] = deque(maxlen=MAX_REPLACED)
        """Which `Moves` of which workers of other hosts are not to be acted on any more."""
        self._unsure: dict[tuple[Worker, str, int], tuple[Worker, list[Origin]]] = {}
        """Messages to clients that move on another host, and where to: by the worker that had them, and the `Moves`.

        It may have let the link to us end without that we know it yet, and then they were lost on the way.
        """

    # The worker that has the clients

    def announce(self, sessions: Iterable[Session], to: Worker, then: Callable[[bool], None]) -> int:
        """Tell all others that these clients are about to be served by another worker.

        `then` hears once whether nothing is on its way any more, so that the clients may leave: False if the other
        worker has died. That all have left, stay or have ended is to be said with the number that is returned.
        """
        clients = [self.moving(session) for session in sessions]
        record = records.Moves(self._bus.next_number(), to.number, clients)
        fence = self._fences[record.number] = _Fence(record, to, {to}, then)
        self.leaving |= fence.clients
        to.tell(record)
        return record.number

    def prepare(self, number: int) -> None:
        """All that can leave do so in this turn of the loop."""
        fence = self._fences.get(number)
        self._bus.look_for_receipts(fence.clients if fence else frozenset())

    def finish(self, number: int, to: Worker) -> None:
        """All of these clients have left, stay, or have ended."""
        fence = self._fences.get(number)
        if fence is not None and not fence.withdrawal:
            self._close(number)
        answered = [peer.number for peer in fence.answered if not peer.is_near] if fence else []
        to.tell(records.Fenced(number, self._bus.number, answered))

    def _close(self, number: int) -> None:
        self.leaving -= self._fences.pop(number).clients

    def may_withdraw(self, number: int) -> bool:
        """Whether the clients can stay: only the worker that was to get them knows of it, or that one has died.

        Others would send what is for them here, there and here again, and it would come twice, late or never.
        """
        fence = self._fences.get(number)
        return fence is None or not fence.are_others_asked or fence.to.is_gone

    def withdraw(self, number: int, sessions: Sequence[Session]) -> None:
        """All of these clients stay, which they may, but for those that have ended."""
        fence = self._fences[number]
        clients = [self.moving(session) for session in sessions]
        record = records.Moves(self._bus.next_number(), self._bus.number, clients)
        if not fence.to.is_gone:
            record.instead = self._bus.number, number
        fence.withdrawal, fence.is_told = record.number, True
        self.leaving -= fence.clients
        fence.asked = {*self._bus.peers.values()}
        for peer in tuple(self._bus.peers.values()):
            self._tell(peer, record)
        self._forget_withdrawn()

    def _tell_of_withdrawal(self, peer: Worker, fence: _Fence) -> None:
        """Of those that are still here, a worker that is met anew may have heard over a link that has ended."""
        owners = [self._hub.owner_of(temporary) for temporary in fence.clients - self.leaving]
        clients = [self.moving(owner) for owner in owners if self._hub.is_ours(owner)]
        fence.asked.add(peer)
        self._tell(peer, records.Moves(fence.withdrawal, self._bus.number, clients))

    def _forget_withdrawn(self) -> None:
        self._fences = {number: fence for number, fence in self._fences.items() if fence.asked or not fence.withdrawal}

    def ends(self, member: Member) -> None:
        """A client goes that was about to leave. Others may believe it here, or already with whom it was to pass to."""
        for fence in self._fences.values():
            if member.temporary in fence.clients:
                clients = [each for each in fence.record.clients if each.temporary != member.temporary]
                fence.record.clients = clients
                self.leaving.discard(member.temporary)
                number, us = self._bus.next_number(), self._bus.number
                gone = records.Moves(number, us, [], gone=[self.moving(member)], teller=us)
                for peer in tuple(self._bus.peers.values()):
                    self._tell(peer, gone)

    def left(self, session: Session, to: Worker) -> None:
        """A client has left: the other worker has what it had."""
        moving = self.moving(session)
        self._left_to.add(to)
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
        for key, receipt, recipient in session.unconfirmed():
            self._bus.await_outcome(key, receipt, recipient, to)

    def moving(self, session: Member) -> records.Moving:
        """What others are to know of a client that is about to be served by another worker."""
        addresses = [(address, self._bus.since(address)) for address in session.addresses]
        return records.Moving(session.client_address, session.name, addresses, list(session.groups))

    def _fenced(self, peer: Worker, record: records.Fenced) -> None:
        """A worker has nothing more on its way to these clients."""
        if self._bus.restarts.fenced(peer, record):
            return
        fence = self._fences.get(record.number) if record.of == self._bus.number else None
        if fence is not None:
            self._note_answer(peer, record, fence)
            return
        if record.of == self._bus.number:
            self._answered(peer, record.number)
            return
        which = record.of, record.number
        self._tell_who_has_gone(peer, self._behind_in(peer, which))
        self._caught_up(peer, which)
        if which in self._left_over and not peer.is_near:
            self._claim(peer, which, self._left_over[which])
        if peer.is_near and record.of == peer.number:
            for other in self._bus.peers.values():
                if other.number in record.answered:
                    other.tell(records.Passed(record.number, record.of))
                if not other.is_near and (coming := self._behind_in(other, which)):
                    self._claim(other, which, coming)

    def _note_answer(self, peer: Worker, record: records.Fenced, fence: _Fence) -> None:
        """A worker has acted on a `Moves` of ours. If that was withdrawn, it is yet to say so of that, or has."""
        if not fence.withdrawal or peer in fence.asked:
            fence.answered.add(peer)
        if not fence.withdrawal and not record.again:
            fence.asked.discard(peer)
        self._go_on(record.number, fence)

    def _answered(self, peer: Worker, number: int) -> None:
        """A worker has acted on a `Moves` of ours for which no client waits."""
        if (introduced := self._introduced.pop((peer, number), None)) is not None:
            temporary, behind = introduced
            for each in behind:
                each.heard.add(temporary)
        if (which := self._claims.pop((peer, number), None)) is not None:
            for temporary in self._behind_in(peer, which):
                self._bus.lose_receipts(peer, temporary)  # it may have told us before the link to it was up
            self._caught_up(peer, which)
        for fence in self._fences.values():
            if fence.withdrawal == number:
                fence.has_heard_of_withdrawal(peer)
        self._forget_withdrawn()

    def _behind_in(self, peer: Worker, which: tuple[str, int]) -> Mapping[Address, records.Moving]:
        behind = self._behind.get(peer, {}).get(which)
        return {} if behind is None else behind.clients

    def _caught_up(self, peer: Worker, which: tuple[str, int]) -> None:
        behind = self._behind.get(peer, {})
        behind.pop(which, None)
        if peer in self._behind and not behind:
            del self._behind[peer]
            self._tell_again(peer)
            for number, fence in tuple(self._fences.items()):
                if fence.to is peer:
                    self._go_on(number, fence)

    def _tell_again(self, target: Worker) -> None:
        """A worker is not behind any more, or has gone: as far as it goes for us, clients may leave for it."""
        for ahead in [ahead for ahead in self._ahead if ahead[2] is target]:
            self._ahead.remove(ahead)
            peer, number, _ = ahead
            peer.tell(records.Fenced(number, peer.local_number))

    def _claim(self, peer: Worker, which: tuple[str, int], coming: Mapping[Address, records.Moving]) -> None:
        """Have a worker say that it sends to us what is for clients that have come: it may not have heard of them."""
        clients, gone = [], []
        for temporary, moving in coming.items():
            owner = self._hub.owner_of(temporary)
            if isinstance(owner, Arriving):
                clients.append(owner.moving)
            elif self._hub.is_ours(owner) and isinstance(owner, Session):
                if temporary not in self.leaving:  # else it is told of the next move
                    clients.append(self.moving(owner))
            else:
                gone.append(self._what_has_gone(moving))
        record = records.Moves(self._bus.next_number(), self._bus.number, clients, which, gone)
        self._claims[peer, record.number] = which
        self._tell(peer, record)

    def _what_has_gone(self, client: records.Moving) -> records.Moving:
        """All of it, but for an address that another client of ours has by now."""
        free = [each for each in client.addresses if not self._bus.is_here(self._hub.owner_of(each[0]))]
        return structs.replace(client, addresses=free)

    def _tell_who_has_gone(self, peer: Worker, coming: Mapping[Address, records.Moving]) -> None:
        """A worker of another host believes with us whom we have given up already: it may have heard of the move after
        that, and of what follows nothing, since the link to where they were had ended.
        """
        clients = [self._what_has_gone(each) for each in coming.values() if self._hub.owner_of(each.temporary) is None]
        if clients and not peer.is_near:
            self._tell(peer, records.Moves(self._bus.next_number(), self._bus.number, [], gone=clients))

    def introduce(self, temporary: Address) -> None:
        """All are about to hear that we have this client. One that has met us since we heard of the move may hear of it
        in no other way, and is not behind any more when it has answered.
        """
        if temporary in self._arriving:
            holder, arriving = self._arriving[temporary]
            for peer in self._behind:
                if peer is not holder:
                    self._introduce(peer, arriving.moving)

    def _introduce(self, peer: Worker, client: records.Moving) -> None:
        temporary = client.temporary
        if behind := [each for each in self._behind[peer].values() if temporary in each.clients]:
            record = records.Moves(self._bus.next_number(), self._bus.number, [client])
            self._introduced[peer, record.number] = temporary, behind
            self._tell(peer, record)

    def _tell(self, peer: Worker, record: records.Moves) -> None:
        peer.tell(record)
        if not peer.is_near and self._bus.far is not None:
            self._bus.far.keep_order()  # what these clients may have from now on is told to all hosts at once

    def met(self, peer: Worker) -> None:
        """Another worker is there."""
        for fence in self._fences.values():
            if fence.withdrawal and fence.may_have_heard(peer.number):
                self._tell_of_withdrawal(peer, fence)
            elif fence.are_others_asked and not fence.is_over:
                self._tell(peer, fence.record)
        behind = {
            which: _Behind(each.clients)
            for other, behind in self._behind.items()
            for which, each in behind.items()
            if which[0] == other.number
        }
        if behind:
            self._behind[peer] = behind
        for temporary in dict.fromkeys(temporary for each in behind.values() for temporary in each.clients):
            owner = self._hub.owner_of(temporary)
            if self._hub.is_ours(owner) and temporary not in self.leaving:
                self._introduce(peer, self.moving(owner))
        for temporary in () if peer.is_near else self._arriving:
            self._bus.lose_receipts(peer, temporary)  # it may have told us over a link that has ended
        for teller in [teller for teller in self._aside if teller.host == peer.host]:
            for record in self._aside.pop(teller):
                self.heard(teller, record)

    def elsewhere(self, peer: Worker) -> Set[Address]:
        """Our clients to whose groups another worker sends where they were, or will be, and not here."""
        # By its number: over a link that has ended since, it may have sent something to where they will be.
        ahead = (fence.clients for fence in self._fences.values() if fence.may_have_heard(peer.number))
        behind = (each.clients.keys() - each.heard for each in self._behind.get(peer, {}).values())
        return set().union(*ahead, *behind)

    def _go_on(self, number: int, fence: _Fence) -> None:
        if fence.is_over:
            return
        if not fence.asked and not fence.are_others_asked:
            fence.are_others_asked = True
            others = [peer for peer in self._bus.peers.values() if peer is not fence.to]
            fence.asked.update(others)
            for peer in others:
                self._tell(peer, fence.record)
        if not fence.asked and fence.to not in self._behind:
            fence.tell(True)

    # All others, and among them the one that gets the clients

    def heard(self, peer: Worker, record: records.Moves | records.Fenced | records.Restarts) -> None:
        """Act on it as soon as all is done that the worker had asked for before."""
        waiting = self._waiting.setdefault(peer, deque())
        waiting.append(record)
        if len(waiting) == 1:
            self._act(peer)

    def _act(self, peer: Worker) -> None:
        waiting = self._waiting.get(peer)
        while waiting:
            if self._bus.is_behind(peer):
                self._bus.center.turns.wait(self, lambda: self._act(peer))
                return
            record = waiting[0]
            if isinstance(record, records.Fenced):
                self._fenced(peer, record)
            elif isinstance(record, records.Restarts):
                self._bus.restarts.heard(peer, record)
            elif not self._moved(peer, record):
                self._aside.setdefault(peer, []).append(record)
            waiting.popleft()
        self._waiting.pop(peer, None)

    def _moved(self, peer: Worker, record: records.Moves) -> bool:
        """Clients of a worker are about to be served by another one, which may be us, or by itself after all.

        Returns: whether it could be acted on; else a worker of another host is yet to be met.
        """
        clients = _temporaries(record.clients)
        aside = [each for each in self._aside.pop(peer, ()) if clients.isdisjoint(_temporaries(each.clients))]
        if aside:
            self._aside[peer] = aside
        siblings = self._bus.workers_of(peer.host)
        target = next((each for each in siblings if each.local_number == record.to), None)
        if target is None and not peer.is_near:
            return False
        if (peer.number, record.number) in self._replaced:
            self._drop(peer, record.clients)
        else:
            self._change(peer, record, target, siblings)
        number, again = peer.local_number, False
        if target is not None and target is not peer:
            target.tell(records.Fenced(record.number, number))
            # What these clients have sent to others may wait here. From there, what follows would overtake it.
            if again := target in self._behind:
                self._ahead.append((peer, record.number, target))
        peer.tell(records.Fenced(record.number, number, again=again))
        return True

    def _change(self, peer: Worker, record: records.Moves, target: Worker | None, siblings: Sequence[Worker]) -> None:
        is_ours = peer.is_near and record.to == self._bus.number
        addresses = {address for client in record.clients for address, _ in client.addresses}
        for holder in siblings:
            if peer.is_near:
                unsure = {key for key, waiting in holder.receipts.items() if not waiting.is_expected}
                for key, receipt, address, name in holder.forget_receipts(addresses):
                    self._bus.await_outcome(key, receipt, name, target or holder, holder)
                    if key in unsure:
                        self._bus.note_sent(holder, key, address, receipt, name)
            elif target not in (None, holder) and (passed := holder.pass_receipts(addresses, target)):
                self._unsure[holder, peer.local_number, record.number] = (target, passed)
        if peer.is_near and target is not None:
            self._bus.move_awaited(addresses, target)
        if is_ours:
            coming = {client.temporary: client for client in record.clients}
            for other in self._bus.peers.values():
                self._behind.setdefault(other, {})[peer.number, record.number] = _Behind(coming)
        for client in record.clients if is_ours or target is not None else ():
            self._move(client, target, siblings)
        self._replace(peer, record, siblings)

    def _replace(self, peer: Worker, record: records.Moves, siblings: Sequence[Worker]) -> None:
        """What another worker has said of these clients, or has yet to say, is out of date: some may have gone."""
        if record.instead is not None:
            of, number = record.instead
            self._replaced += [(each.number, number) for each in siblings if each.local_number == of]
            for other in tuple(self._behind) if peer.is_near else ():
                self._caught_up(other, record.instead)  # it was withdrawn, and they never hear of it
        else:
            for client in record.gone:
                self._forget(client, siblings, record.teller)
                if peer.is_near:
                    self._lose_awaited(client, record.teller)
            gone = _temporaries(record.gone)
            for each in self._aside.get(peer, ()):
                each.clients = [client for client in each.clients if client.temporary not in gone]
        self._drop(peer, record.gone)

    def _forget(self, client: records.Moving, siblings: Sequence[Worker], teller: str) -> None:
        """No worker of a host has this client."""
        temporary = client.temporary
        if temporary in self._arriving and self._arriving[temporary][0] in siblings:
            self.lost(temporary, teller)
        for holder in siblings:
            if temporary in holder.client_addresses:
                self._drop(holder, [client])

    def _drop(self, peer: Worker, clients: Iterable[records.Moving]) -> None:
        """A worker has these clients no more, if we believe that it has."""
        for client in clients:
            for group in client.groups:
                self._bus.leave_at(peer, group, client.temporary)
            for address, _ in client.addresses:
                self._bus.free_at(peer, address)

    def _lose_awaited(self, client: records.Moving, teller: str) -> None:
        """A client has ended, was lost on its way from worker to worker, or counts as lost, with what it would have
        confirmed. What it had yet to confirm, the worker with the number `teller` says, if that lives.
        """
        addresses = {address for address, _ in client.addresses}
        self._lose_awaited_of(addresses, teller)
        # A sender that is on its way to us brings along what it is yet to be told.
        for _, arriving in (*self._arriving.values(), *self._lost.values()):
            arriving.without.append((addresses, teller))

    def _lose_awaited_of(self, recipients: Set[Address], teller: str, sender: Address | None = None) -> None:
        if teller in self._bus.peers:
            self._bus.move_awaited(recipients, self._bus.peers[teller], True, sender)
            return
        self._bus.lose_awaited(lambda each, *_: each.recipient in recipients, sender)

    def passed(self, peer: Worker, record: records.Passed) -> None:
        """A worker has these clients, and had all."""
        for which in [which for which in self._unsure if which[1:] == (record.of, record.number)]:
            if which[0].host == peer.host:
                del self._unsure[which]

    def _move(self, client: records.Moving, target: Worker | None, siblings: Sequence[Worker]) -> None:
        temporary = client.temporary
        if temporary in self._arriving:
            if target is not None:
                self._give_back(temporary, target)
            return
        # More than one, if this host has not heard of a move that was withdrawn, but of the client anew.
        holders = [peer for peer in siblings if temporary in peer.client_addresses]
        if target is None:
            if holders:
                self._expect(client, holders[0])
        elif not holders:
            self._bus.note_client(target, client)  # we have not been told of it, or who was to serve it has gone
        for holder in holders:
            if target not in (None, holder):
                self._pass(client, holder, target)

    def _expect(self, client: records.Moving, holder: Worker) -> None:
        """We are to serve it."""
        arriving = Arriving(client)
        self._arriving[arriving.temporary] = (holder, arriving)
        stand_in(self._bus, arriving, holder)

    def _pass(self, client: records.Moving, holder: Worker, target: Worker) -> None:
        """A third worker is to serve it."""
        temporary = client.temporary
        client_address = holder.client_addresses.pop(temporary)
        if temporary in target.client_addresses:
            self._bus.center.uncount(client_address)
        target.client_addresses[temporary] = client_address
        for address, since in client.addresses:
            if holder.owned.pop(address, None) is None:
                self._bus.note(target, address, since)  # we were just being told all that the other worker has
            else:
                target.owned[address] = since
                self._hub.pass_on(address, holder, target)
        for group in client.groups:
            self._bus.leave_at(holder, group, temporary)
            self._bus.join_at(target, group, temporary, client.name)

    def _give_back(self, temporary: Address, target: Worker) -> None:
        """It stays with the worker that had it."""
        _, arriving = self._arriving.pop(temporary)
        give_back(self._bus, arriving, target)

    def arrived(self, session: Member) -> None:
        """A client is served by us now."""
        if session.temporary in self._arriving:
            _, arriving = self._arriving.pop(session.temporary)
            for group in arriving.moving.groups:
                self._hub.forget_in_group(arriving, group)
            arriving.yield_to(session)
        elif session.temporary in self._lost:
            # Its worker had died, but it had just left.
            _, arriving = self._lost.pop(session.temporary)
            session.forget_unconfirmed()
        else:
            return
        for recipients, teller in arriving.without:
            self._lose_awaited_of(recipients, teller, session.temporary)

    def lost(self, temporary: Address, teller: str = "") -> None:
        """A client cannot be served by us, or does not come any more. `teller` is as in `records.Moves`."""
        if temporary not in self._arriving:
            return
        _, arriving = self._arriving.pop(temporary)
        for group in arriving.moving.groups:
            self._bus.tell_all(records.Left(group, temporary))
        for address, _ in arriving.moving.addresses:
            if self._hub.owner_of(address) is arriving:
                self._bus.tell_all(records.Frees(address))
        give_up(self._bus, arriving)
        gone = records.Moves(self._bus.next_number(), self._bus.number, [], gone=[arriving.moving], teller=teller)
        for peer in self._bus.workers_of(None):
            peer.tell(gone)
        self._lose_awaited(arriving.moving, teller)

    def lost_of(self, number: str, teller: str = "") -> None:
        """None of those that are still to come from this worker comes any more."""
        for temporary in self._coming_from(number):
            self.lost(temporary, teller)

    def nobody_comes(self, number: str) -> None:
        """What this worker has handed over has been taken, as far as that can be, whether it lives or not."""
        self._lost = {temporary: each for temporary, each in self._lost.items() if each[0].number != number}

    def _forget_lost(self) -> None:
        """Those that have not come by now never left: their worker had died before."""
        self._lost.clear()

    def _coming_from(self, number: str) -> list[Address]:
        return [temporary for temporary, (holder, _) in self._arriving.items() if holder.number == number]

    def _ask_instead_of(self, peer: Worker) -> None:
        """A worker has gone that others have yet to hear of clients from; if some have come, those of the host have."""
        for other, behind in tuple(self._behind.items()):
            for which, each in tuple(behind.items()):
                if which[0] != peer.number:
                    continue
                if not other.is_near:
                    self._claim(other, which, each.clients)
                elif not any(self._hub.is_ours(self._hub.owner_of(of)) for of in each.clients.keys() - each.heard):
                    self._caught_up(other, which)

    def _leave_over(self, peer: Worker) -> None:
        for which, behind in self._behind.pop(peer, {}).items():
            if which[0] == peer.number:
                self._left_over[which] = behind.clients
        while len(self._left_over) > MAX_LEFT_OVER:
            del self._left_over[next(iter(self._left_over))]

    def _tell_who_has_left(self, peer: Worker) -> None:
        """A worker has gone, and clients that had passed to it from us: others do not know which have stayed."""
        owned = [each for each in peer.owned.items() if self._hub.owner_of(each[0]) is peer]
        if peer in self._left_to and owned:
            gone = records.Moving(None, peer.name, owned, [])
            record = records.Moves(self._bus.next_number(), self._bus.number, [], gone=[gone], teller=peer.number)
            for other in self._bus.workers_of(None):
                other.tell(record)
        self._left_to.discard(peer)

    def parted(self, peer: Worker) -> None:
        """A worker has gone."""
        self._ahead = [ahead for ahead in self._ahead if ahead[0] is not peer]
        self._leave_over(peer)
        self._tell_again(peer)
        self._waiting.pop(peer, None)
        self._aside.pop(peer, None)
        for claim in [claim for claim in self._claims if claim[0] is peer]:
            del self._claims[claim]
        for introduced in [introduced for introduced in self._introduced if introduced[0] is peer]:
            del self._introduced[introduced]
        for unsure, (target, messages) in tuple(self._unsure.items()):
            if peer in (unsure[0], target):
                del self._unsure[unsure]
                for key, recipient in messages:
                    self._bus.settle(key, recipient, Lost)
        if peer.is_near:
            self._tell_who_has_left(peer)
            if coming := self._coming_from(peer.number):
                self._lost |= {temporary: self._arriving[temporary] for temporary in coming}
                self._bus.center.deadlines[self._forget_lost] = self._bus.center.clock() + COMES_S
            self.lost_of(peer.number, peer.number)
            self._ask_instead_of(peer)
        for number, fence in tuple(self._fences.items()):
            fence.ask_no_more(peer)
            if fence.to is peer:
                fence.tell(False)
            else:
                self._go_on(number, fence)
        self._forget_withdrawn()
