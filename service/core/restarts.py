"""Lets the service of one host restart, with its clients connected, and nobody on another host notice.

The worker that ends has stopped to read what its clients send. It tells other hosts which clients these are: from then
on, each worker there keeps what is for them, and answers behind all that it had sent before. When all have answered,
nothing is on its way any more, in either direction: the clients leave, and the worker says so and ends. Each new worker
tells which clients it has, as it always does, and when it has all, it gets what was kept for them: all at once, or a
message to a group would come to those twice who come behind others. Meanwhile their addresses have an owner, and what
becomes of a message is not known yet.

If a worker ends without having said that its clients have left, they are gone, and so they are if no worker of their
host tells of them in time.
"""

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import service.core.bus_records as records
from service.core import drops
from service.core.addresses import Address
from service.core.arriving import Arriving, Nobody
from service.core.frames import Delivered, Lost
from service.core.hub import Member, Named, Owner, Reach, Receipt, TellReach, TooManyUnconfirmedError
from service.core.message import Message
from service.core.moves import Worker, Workers, give_back, give_up, stand_in
from service.core.tally import Tally

# How long clients are waited for when they have left: as long as a worker may take to begin to serve. Senders get no
# answer meanwhile.
AWAY_S = 30.0
# What is kept for the clients of one worker, in bytes: as much as may wait for a worker that is stuck.
MAX_KEPT_BYTES = 16 * 1024 * 1024
# What a message takes beside its text.
_OVERHEAD_BYTES = 200
# So many clients are told of in one record, so that few are longer than what the engine gets in one message.
_TOGETHER = 50
# So many are given up in one go: a millisecond or two.
_PORTION = 256


class _Held(NamedTuple):
    """A message that a client has yet to confirm: key, receipt, to whom it was sent, and as whom others know it."""

    key: int
    receipt: Receipt
    recipient: Address
    name: Address


class Away(Arriving):
    """Stands for a client whose host restarts. That may take long, so what is kept is bounded."""

    is_here = False

    def __init__(self, moving: records.Moving, restart: "_Restart", tally: Tally) -> None:
        super().__init__(moving)
        self.restart = restart
        self.held: list[_Held] = []
        self.back: Worker | None = None
        """Which worker has it by now."""
        self._tally = tally

    def _takes(self, length: int) -> bool:
        if self.restart.is_full:
            self._tally.dropped[drops.BUS_FULL] += 1
            return False
        self.restart.kept += length + _OVERHEAD_BYTES
        return True

    def lose_held(self) -> None:
        """Nobody will say any more what becomes of what the client has."""
        held, self.held = self.held, []
        for each in held:
            each.receipt.lose(each.name)

    # As the owner of an address

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        if self._takes(len(text)):
            super().forward(text, sender, recipient)

    def deliver(self, message: Message) -> None:
        if self._takes(len(message.body)):
            super().deliver(message)

    def hand_over(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        if self._takes(len(message.body)):
            super().hand_over(message, receipt, then)
        else:
            then(Reach(full=1))

    def reach(self, group: str | None) -> int:
        return 0 if self.restart.is_full else 1

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        if self.restart.is_full:
            raise TooManyUnconfirmedError
        return super().expect(key, receipt, message)


class _Restart:
    """Of one worker of another host: its clients that are not back yet, and until when they are waited for."""

    def __init__(self, host: str | None) -> None:
        self.host = host
        self.away: dict[Address, Away] = {}
        self.told = 0
        """How many it has told of."""
        self.kept = 0
        self.has_left = False
        self.until = math.inf

    @property
    def is_full(self) -> bool:
        return self.kept > MAX_KEPT_BYTES


class Restarts:
    """This worker's part in it: in a restart of its own host, and in those of others."""

    def __init__(self, bus: Workers) -> None:
        self._bus = bus
        self._hub = bus.hub
        self._leaving: list[Member] = []
        self._number = 0
        self._then: Callable[[], None] | None = None
        self._asked: set[Worker] = set()
        """Workers of other hosts that have yet to answer."""
        self.followers: set[Worker] = set()
        """Those that have, and keep what is for our clients."""
        self.is_taking = False
        self._restarts: dict[Worker, _Restart] = {}
        self._away: dict[Address, Away] = {}
        self._joined: dict[Worker, dict[tuple[str, Address], Address]] = {}
        """Of workers that are taking clients back, or may have: who is in which group, and its name."""

    @property
    def are_under_way(self) -> bool:
        """Whether clients of other hosts are away."""
        return bool(self._away)

    # Of our own host

    def announce(self, members: Iterable[Member], then: Callable[[], None]) -> None:
        """As `service.core.hub.Bus.announce_restart`."""
        for away in self._away.values():  # of a host that restarts as well: what is kept for it ends with us
            away.lose_held()
            away.yield_to(Nobody(self._hub.tally, away.name))
        far, moves = self._bus.far, self._bus.moves
        known = set() if far is None else set(far.know_restarts)
        self._asked = {peer for peer in self._bus.peers.values() if peer.number in known}
        if not self._asked:
            then()
            return
        self._then, self._number = then, self._bus.next_number()
        self._leaving = [member for member in members if member in self._hub.members]
        moves.leaving |= {member.temporary for member in self._leaving}
        clients = [moves.moving(member) for member in self._leaving]
        far.keep_order()
        for begin in range(0, len(clients), _TOGETHER):
            far.announce(records.encode(records.Restarts(clients[begin : begin + _TOGETHER])))
        # Each alone: whoever answers has had all that was for all, and all that was for it. An engine may lose either.
        for peer in self._bus.peers.values():
            if peer in self._asked:
                peer.tell(records.Restarts([], self._number, len(clients)))

    def fenced(self, peer: Worker, record: records.Fenced) -> bool:
        """Whether it is an answer to us."""
        is_ours = record.of == self._bus.number and record.number == self._number and self._number > 0
        if is_ours and peer in self._asked:
            self.followers.add(peer)
            self._answered(peer)
        return is_ours

    def _answered(self, peer: Worker) -> None:
        self._asked.discard(peer)
        if not self._asked and self._then is not None:
            self._then()
            self._then = None

    def confirm(self, closed: Iterable[Address]) -> None:
        """As `service.core.hub.Bus.confirm_restart`."""
        for member in self._leaving:
            if member in self._hub.members:
                self._bus.tell_all(records.Came(member.temporary, member.client_address))
        self._bus.tell_all(records.Told())
        for temporary in closed:
            self._bus.tell_all(records.Frees(temporary))
        for peer in self.followers:
            peer.tell(records.Passed(self._number, self._bus.number))

    def take_back(self, is_over: bool) -> None:
        """As `service.core.hub.Bus.take_back`."""
        self.is_taking = not is_over
        self._bus.tell_all(records.Told(self.is_taking))

    # Of another host

    def heard(self, peer: Worker, record: records.Restarts) -> None:
        """Clients of another host are about to leave."""
        restart = self._restarts.setdefault(peer, _Restart(peer.host))
        for client in record.clients:
            temporary = client.temporary
            if temporary in self._away:  # it came back under another name of its host, and leaves once more
                self._lose(self._away[temporary])
            if temporary not in peer.client_addresses:
                self._bus.note_client(peer, client)  # we were just being told all that the other worker has
            away = self._away[temporary] = restart.away[temporary] = Away(client, restart, self._hub.tally)
            stand_in(self._bus, away, peer)
        restart.told += len(record.clients)
        if record.number and restart.told == record.in_all:
            peer.tell(records.Fenced(record.number, peer.local_number))

    def passed(self, peer: Worker, record: records.Passed) -> None:
        """They have left, and have had all that was on its way to them."""
        restart = self._restarts.get(peer)
        if restart is not None and record.of == peer.local_number:
            restart.has_left = True
            restart.until = self._bus.center.clock() + AWAY_S
            self._bus.center.deadlines[self._give_up] = min(each.until for each in self._restarts.values())
            owners = {address: away for away in restart.away.values() for address, _ in away.moving.addresses}
            for key, receipt, recipient, name in peer.forget_receipts(owners.keys()):
                owners[recipient].held.append(_Held(key, receipt, recipient, name))

    def came(self, peer: Worker, temporary: Address) -> bool:
        """A worker has this client. Returns: whether it was away."""
        away = self._away.get(temporary)
        if away is None or away.restart.host != peer.host:
            return False
        away.back = peer
        if peer.has_told:  # it has moved there since
            self._give_back(away, peer)
        return True

    def is_back(self, peer: Worker, owner: Owner | None) -> bool:
        """Whether this is a client of which a worker tells what is known from the one before."""
        return isinstance(owner, Away) and owner.back is peer

    def is_early(self, peer: Worker, group: str, temporary: Address, name: Address) -> bool:
        """Whether a client is in a group only when all are there: to others that are away yet, a message to the group
        would come twice.
        """
        # That it takes clients back, it may have said over a link that has ended.
        if not peer.has_told and any(away.restart.host == peer.host for away in self._away.values()):
            self._joined.setdefault(peer, {})
        joined = self._joined.get(peer)
        if joined is not None:
            joined[group, temporary] = name
        return joined is not None

    def left(self, peer: Worker, record: records.Left) -> None:
        """The inverse."""
        self._joined.get(peer, {}).pop((record.group, record.temporary), None)

    def told(self, peer: Worker, is_taking: bool) -> None:
        """A worker has all of those that come back to it, or is about to have."""
        if is_taking:
            if not peer.is_near:
                self._joined.setdefault(peer, {})
            return
        for away in [away for away in self._away.values() if away.back is peer]:
            self._give_back(away, peer)
        for (group, temporary), name in self._joined.pop(peer, {}).items():
            if temporary in peer.client_addresses:  # it may have moved on
                self._bus.join_at(peer, group, temporary, name)

    def _give_back(self, away: Away, peer: Worker) -> None:
        self._forget(away)
        for held in away.held:
            peer.hold(*held)
        give_back(self._bus, away, peer)

    def freed(self, peer: Worker, temporary: Address) -> None:
        """A worker does not have this client any more, or does not get it."""
        away = self._away.get(temporary)
        if away is not None and away.restart.host == peer.host:
            self._lose(away)

    def settle(self, key: int, recipient: Address, outcome: type[Delivered | Lost], name: Address | None) -> bool:
        """As `service.core.bus.PeerBus.settle`, of a client that is away yet."""
        away = self._hub.owner_of(recipient)
        held = away.held if isinstance(away, Away) else []
        for each in [each for each in held if (each.key, each.recipient) == (key, recipient)]:
            held.remove(each)
            each.receipt.sender.tell_outcome(outcome(id=each.receipt.id, recipient_uuid=name or each.name))
            return True
        return False

    def _forget(self, away: Away) -> None:
        del self._away[away.temporary], away.restart.away[away.temporary]

    def _lose(self, away: Away) -> None:
        self._forget(away)
        away.lose_held()
        give_up(self._bus, away)

    def parted(self, peer: Worker) -> None:
        """A worker has gone."""
        self.followers.discard(peer)
        self._answered(peer)
        self._joined.pop(peer, None)
        restart = self._restarts.get(peer)
        if restart is None:
            for away in [away for away in self._away.values() if away.restart.host == peer.host]:
                away.back = None if away.back is peer else away.back
                away.lose_held()  # it may have been said over this link
        elif not restart.has_left:
            restart.until = self._bus.center.clock()
            self._give_up()

    def _give_up(self) -> None:
        """Nobody has told of those whose time is over. Many are given up in portions."""
        center = self._bus.center
        now = center.clock()
        for worker, restart in tuple(self._restarts.items()):
            if restart.until > now:
                continue
            for away in tuple(islice(restart.away.values(), _PORTION)):
                self._lose(away)
            if restart.away:
                center.turns.wait(self, self._give_up)
            else:
                del self._restarts[worker]
        center.deadlines.pop(self._give_up, None)
        if later := [restart.until for restart in self._restarts.values() if now < restart.until < math.inf]:
            center.deadlines[self._give_up] = min(later)
