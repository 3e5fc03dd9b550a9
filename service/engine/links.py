"""The rules of the links to all workers of other hosts. Pure: the engine is what `publish` leads to.

A link is up when each side knows the other's nonce; what the other one says to all counts when it is up there as well.
It ends when the other one says `Bye` or begins anew, when a number is missing, when a beat tells of a batch that has
not come, or after a silence. Then everything that was on its way counts as lost, and the two meet anew. So no message
is ever taken for delivered that an engine has dropped, whatever it says itself.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import service.core.bus_records as records
from service.core.bus import PORTION, PeerBus
from service.core.standing import Abroad, Elsewhere
from service.core.tally import count_up
from service.core.turns import SHARE
from service.engine.envelope import (
    MAX_BYTES,
    MOVES,
    RESTARTS,
    UNREADABLE,
    VERSIONS,
    Batch,
    Beat,
    Bye,
    Envelope,
    Greeting,
    Shared,
    Taken,
    decode,
    encode,
)
from service.engine.link import Link

# For how long a worker that has gone without a word may still have clients somewhere.
MISSED_S = 600.0
# A worker that says so often that it is of this host, and that the mesh does not know, is of another machine.
STRANGE_BEATS = 40
# Messages to addresses that nobody is known to have: each goes to every worker of every host.
SEEKS_PER_SECOND = 100
# To more than so many at once, all that we have is told on `all`.
FEW = 2
# For how long one is waited for that was alive when the process before this one ended.
EXPECTED_S = 2.0


class Identity(NamedTuple):
    """A worker among those of all hosts. `name` is never used twice; `boot` tells apart two machines of one `host`."""

    name: str
    host: str
    boot: str
    hostname: str


class Missed(NamedTuple):
    """A worker that has gone without a word: when, by the clock of the bus, and from which host."""

    at: float
    host: str
    hostname: str


class Teller(Protocol):
    """The log."""

    def error(self, text: str, /, *details: object) -> None: ...

    def warning(self, text: str, /, *details: object) -> None: ...


class Links:
    """All links of this worker, and to the bus the way to all of them: a `service.core.bus.Far`.

    `publish` publishes on the inbox of a worker, or on `all` for None, and drops what it cannot; `soon` calls a
    function at the end of this turn of the loop.
    """

    def __init__(
        self,
        bus: PeerBus,
        me: Identity,
        silence: float,
        *,
        publish: Callable[[str | None, bytes], None],
        soon: Callable[[Callable[[], None]], object],
        teller: Teller,
    ) -> None:
        self.bus = bus
        self.me = me
        self.silence = silence
        self.state = "never"
        """As in `service.core.standing.Abroad`, like those that follow."""
        self.since = bus.center.now()
        self.beat_s = 0.0
        self.is_heard = False
        """Whether the connections of now have brought back what we say."""
        self.conflict = ""
        """Another machine that says it is this host."""
        self._machines: set[str] = set()
        """The starts of such machines that the log has."""
        self._links: dict[str, Link] = {}
        self._missed: dict[str, Missed] = {}
        self._siblings: dict[str, str] = {}
        """The names of the workers of this host, by their number there."""
        self._publish = publish
        self._soon = soon
        self._teller = teller
        self._unknown: Counter[str] = Counter()
        self._is_new = True
        self._nonce = 0
        self._said = 0
        self._own_quiet_s = 0.0
        self._ticked_at = bus.center.clock()
        self._news: list[bytes] = []
        self._due: dict[Link, None] = {}
        self._is_due = False
        self._keeps_order = False
        self._seeks_left = float(SEEKS_PER_SECOND)
        self._sought_at = self._ticked_at
        self._untold: deque[Link] = deque()
        self._telling: tuple[list[Link], Iterator[records.Record]] | None = None
        self._strangers: set[str] = set()
        self._silences: dict[str, float] = {}
        """The silence of each host that has another one than we."""
        self._acts: dict[type[Envelope], Callable[..., None]] = {
            Beat: self._hear_beat,
            Greeting: self._hear_greeting,
            Batch: self._hear_batch,
            Taken: self._hear_taken,
            Shared: self._hear_shared,
            Bye: self._hear_bye,
        }

    @property
    def up(self) -> Sequence[Link]:
        """The links that are up."""
        return [link for link in self._links.values() if link.peer is not None]

    @property
    def hosts(self) -> set[str]:
        """The other hosts that can be reached."""
        return {link.host for link in self.up}

    @property
    def unacknowledged(self) -> int:
        """Bytes that others have not taken yet, as far as they have said."""
        return sum(link.queued for link in self.up)

    @property
    def is_complete(self) -> bool:
        """Whether all is known that those who have been heard of have."""
        return self.state == "up" and all(link.peer and link.peer.has_told for link in self._links.values())

    @property
    def is_cut_off(self) -> bool:
        # Before another one has told whom it has, that is asked of it, but not for as many as are sent then.
        return not self.is_complete or bool(self._missed)

    @property
    def knows_moves(self) -> bool:
        return all(link.version >= MOVES for link in self.up)

    @property
    def know_restarts(self) -> Collection[str]:
        return [link.other for link in self.up if link.version >= RESTARTS]

    @property
    def patience_s(self) -> float:
        return max([self.silence, *(link.silence for link in self.up)])

    @property
    def is_deaf(self) -> bool:
        """Whether our own beats do not come back: the connections are to be made anew."""
        return self._own_quiet_s > self.silence

    def standing(self) -> Abroad:
        return Abroad(
            state=self.state,
            since=self.since,
            hosts=len(self.hosts),
            links=len(self.up),
            beat_s=self.beat_s,
            unacknowledged=self.unacknowledged,
        )

    @property
    def elsewhere(self) -> Sequence[Elsewhere]:
        """As the bus tells it."""
        center = self.bus.center
        hosts: dict[str, Elsewhere] = {}
        for link in self.up:
            assert link.peer is not None
            before = hosts.get(link.host, Elsewhere(link.host, link.hostname or link.host, link.since, (), 0))
            hosts[link.host] = before._replace(
                since=min(before.since, link.since),
                workers=(*before.workers, link.other),
                connections=before.connections + len(link.peer.client_addresses),
            )
        for missed in self._missed.values():
            since = center.now() - (center.clock() - missed.at)
            hosts.setdefault(missed.host, Elsewhere(missed.host, missed.hostname or missed.host, since, (), 0))
        return sorted(hosts.values(), key=lambda host: (host.name, host.id))

    # Towards the others

    def announce(self, record: bytes) -> None:
        if self._keeps_order:
            self.flush()
        self._news.append(record)
        self._plan()

    def keep_order(self) -> None:
        self._keeps_order = True

    def seek(self, record: bytes) -> bool:
        now = self.bus.center.clock()
        self._seeks_left = min(SEEKS_PER_SECOND, self._seeks_left + (now - self._sought_at) * SEEKS_PER_SECOND)
        self._sought_at = now
        if self._seeks_left < 1:
            return False
        self._seeks_left -= 1
        self.flush()  # the order of one sender's messages is kept
        # One that we have given up, and that does not know it yet, would deliver what we take for undeliverable.
        self._share([record], [link.other for link in self.up])
        return True

    def gone(self, number: str) -> None:
        if name := self._siblings.pop(number, None):
            self._publish(None, encode(Bye(name)))
        else:  # we have not heard of it there yet
            self._is_new = True
            self.beat()

    def leave(self) -> None:
        """Say that we go."""
        self.flush()
        self._publish(None, encode(Bye(self.me.name)))

    def flush(self) -> None:
        """Publish what waits: first what is new, then what is for single workers."""
        self._is_due = self._keeps_order = False
        news, self._news = self._news, []
        for part in _parts(news):
            self._share(part)
        due, self._due = self._due, {}
        for link in due:
            link.flush()

    def _plan(self, link: Link | None = None) -> None:
        if link is not None:
            self._due[link] = None
        if not self._is_due:
            self._is_due = True
            self._soon(self.flush)

    def _share(self, part: list[bytes], to: list[str] | None = None) -> None:
        if self._links:
            self._said += 1
            self._publish(None, encode(Shared(self.me.name, self._said, part, to)))

    def _publish_to(self, other: str, envelope: Envelope) -> None:
        self.bus.hub.tally.batches += isinstance(envelope, Batch)
        self._publish(other, encode(envelope))

    def beat(self) -> None:
        """Say that we are alive."""
        self.flush()
        links = {link.other: (link.mine, link.yours, link.sent, link.taken) for link in self.up}
        pids = [self.bus.number, *self.bus.others] if self._is_new else None
        clock = self.bus.center.clock()
        beat = Beat(self.me.name, self.me.host, self.me.boot, VERSIONS, self.silence, self._said, clock, links, pids)
        self._publish(None, encode(beat))

    def tick(self) -> None:
        """See who is silent, and say that we are alive; to be called a few times within the silence."""
        clock = self.bus.center.clock()
        # Our own loop may have stood still, and what the others have said meanwhile waits to be heard.
        passed, self._ticked_at = min(clock - self._ticked_at, self.silence / 4), clock
        self._own_quiet_s += passed
        if self.is_deaf and self.state == "up":
            self._be("alone")
        for link in tuple(self._links.values()):
            link.quiet_s += passed
            if link.quiet_s > max(self.silence, link.silence):
                self._end(link, "silence")
                del self._links[link.other]
        for name in [name for name, missed in self._missed.items() if missed.at + MISSED_S < clock]:
            del self._missed[name]
        self.beat()

    def expect(self, names: Iterable[str]) -> None:
        """These workers of other hosts were alive a moment ago: `is_complete` waits for them as well, for a while."""
        for name in names:
            link = self._open(name, _host(name))
            link.quiet_s = max(0.0, self.silence - EXPECTED_S)

    def begin(self) -> None:
        """The connections have been made anew."""
        self.is_heard = False
        self._own_quiet_s = 0.0
        self.beat()

    def _be(self, state: str) -> None:
        self.state, self.since = state, self.bus.center.now()

    # What is heard

    def hear(self, data: bytes) -> None:
        """Act on what was published."""
        try:
            envelope = decode(data)
        except UNREADABLE:
            return  # of a later release; who has sent it does without it
        self._acts[type(envelope)](envelope)

    def _link(self, envelope: Beat | Greeting) -> Link | None:
        """The link to a sender, which is heard of; None when there can be none."""
        if envelope.host == self.me.host:
            return None
        name = envelope.sender
        if envelope.versions[0] > VERSIONS[1] or envelope.versions[1] < VERSIONS[0]:
            if name not in self._strangers:
                self._strangers.add(name)
                self._teller.error(
                    "host %s speaks the versions %d to %d of the wire between hosts, and this one %d to %d; install "
                    "the same release on both",
                    *(envelope.host, *envelope.versions, *VERSIONS),
                )
            return None
        link = self._links.get(name) or self._open(name, envelope.host)
        link.quiet_s = 0.0
        link.silence = envelope.silence
        link.version = min(envelope.versions[1], VERSIONS[1])
        self._compare_silence(envelope)
        return link

    def _open(self, name: str, host: str) -> Link:
        link = Link(self.me.name, name, host, lambda said: self._publish_to(name, said), self._plan)
        self._links[name] = link
        link.mine = self._next_nonce()
        return link

    def _compare_silence(self, envelope: Beat | Greeting) -> None:
        """Each difference is logged once, while it lasts."""
        host, theirs = envelope.host, envelope.silence
        if theirs == self.silence:
            self._silences.pop(host, None)
        elif self._silences.get(host) != theirs:
            self._silences[host] = theirs
            self._teller.warning(
                "host %s has engine.silence %g, and this one %g; until they are the same on all hosts, the longer one "
                "counts between these two",
                *(host, theirs, self.silence),
            )

    def _next_nonce(self) -> int:
        self._nonce = max(self._nonce + 1, round(self.bus.center.now() * 1000))
        return self._nonce

    def _hear_beat(self, beat: Beat) -> None:
        if beat.sender == self.me.name:
            self._hear_ourselves(beat)
            return
        if beat.host == self.me.host:
            self._hear_sibling(beat)
            return
        if beat.pids is not None:
            self._forget_predecessors(beat)
        link = self._link(beat)
        if link is None:
            return
        link.boot, link.beat_at = beat.boot, beat.at
        if link.peer is None:
            self._greet(link)
            return
        theirs = beat.links.get(self.me.name)
        if beat.said != link.heard:
            self._end(link, "gap")
        elif theirs is None:
            self._greet(link)  # it has not met us: what we have said to it may have been lost
        elif theirs[:2] == (link.yours, link.mine):
            if theirs[2] == link.taken:
                link.acknowledged(theirs[3])
            else:
                self._end(link, "gap")

    def _hear_ourselves(self, beat: Beat) -> None:
        self._own_quiet_s = 0.0
        self._is_new = False
        self.is_heard = True
        self.beat_s = self.bus.center.clock() - beat.at
        if self.state != "up":
            self._be("up")

    def _hear_sibling(self, beat: Beat) -> None:
        number = _number(beat.sender)
        # One of a release before does not know which start of its host it is.
        is_of_this_boot = beat.boot in ("", self.me.boot)
        if is_of_this_boot and number in self.bus.others:
            self._siblings[number] = beat.sender
            return
        # One that is just starting, or stopping, is not known for a moment.
        self._unknown[beat.sender] += 1
        is_another = not is_of_this_boot or self._unknown[beat.sender] > STRANGE_BEATS
        if is_another and beat.boot not in self._machines:
            self._machines.add(beat.boot)
            self.conflict = beat.sender
            self._teller.error(
                "another machine says that it is host %s, and neither hears the other's clients; give each an "
                "engine.host of its own",
                self.me.host,
            )

    def _forget_predecessors(self, beat: Beat) -> None:
        """A worker that has just started knows all that live on its host; what died without a word is not missed. What
        has come since is not among them, if the beat is late.
        """
        alive = {*(beat.pids or ())} - {_number(beat.sender)}
        later = {link.other for link in self._links.values() if link.boot == beat.boot and link.beat_at > beat.at}
        for name in {*self._links, *self._missed} - {beat.sender} - later:
            if _host(name) == beat.host and _number(name) not in alive:
                self._hear_bye(Bye(name))

    def _greet(self, link: Link) -> None:
        self.flush()
        mine, said = link.mine, self._said
        me = self.me
        greeting = Greeting(me.name, me.host, VERSIONS, self.silence, mine, link.yours, said, me.hostname)
        self._publish_to(link.other, greeting)

    def _hear_greeting(self, greeting: Greeting) -> None:
        link = self._link(greeting)
        if link is None or greeting.mine < link.yours:
            return
        link.hostname = greeting.hostname
        if greeting.mine > link.yours:
            if link.peer is not None:
                self._end(link, "anew", greets=False)
            link.yours = greeting.mine
        if link.peer is not None:
            return
        self._greet(link)
        if greeting.yours == link.mine:
            link.heard = greeting.said
            self._meet(link)

    def _meet(self, link: Link) -> None:
        link.peer = self.bus.meet_far(link.other, link, self.me.name, link.host, _number(link.other))
        self._publish_to(link.other, Taken(self.me.name, link.mine, link.yours, link.taken))
        self.bus.tell_missed(link.peer)
        link.since = self.bus.center.now()
        self._missed.pop(link.other, None)
        self._untold.append(link)
        if self._telling is None:
            self._wait_to_tell()

    def _end(self, link: Link, why: str, greets: bool = True) -> None:
        """Let a link end, and with it all that is on its way."""
        peer = link.peer
        link.begin_anew(self._next_nonce())
        if peer is not None:
            count_up(self.bus.hub.tally.link_ends, why)
            if why != "bye":
                self._missed[link.other] = Missed(self.bus.center.clock(), link.host, link.hostname)
            self.bus.part(peer)
            if greets:
                self._greet(link)

    def _hear_bye(self, bye: Bye) -> None:
        self._missed.pop(bye.sender, None)
        link = self._links.pop(bye.sender, None)
        if link is not None:
            self._end(link, "bye", greets=False)

    def _hear_batch(self, batch: Batch) -> None:
        link = self._at(batch)
        if link is None:
            return
        if link.take(batch):
            self._act(link, batch.records)
        else:
            self._end(link, "gap")

    def _hear_taken(self, taken: Taken) -> None:
        if link := self._at(taken):
            link.has_met = True
            link.acknowledged(taken.ack)

    def _at(self, envelope: Batch | Taken) -> Link | None:
        """The link that something belongs to; None when it belongs to an earlier one."""
        link = self._links.get(envelope.sender)
        if link is None or link.peer is None or (envelope.mine, envelope.yours) != (link.yours, link.mine):
            return None
        return link

    def _hear_shared(self, shared: Shared) -> None:
        link = self._links.get(shared.sender)
        if link is None or link.peer is None:
            return
        if shared.number != link.heard + 1:
            self._end(link, "gap")
            return
        link.heard = shared.number
        is_for_us = shared.to is not None and self.me.name in shared.to
        link.has_met |= is_for_us
        # Before it has met us, it would not tell us of what follows, such as that a client moves; then it tells us all.
        if is_for_us or (shared.to is None and link.has_met):
            self._act(link, shared.records)

    def _act(self, link: Link, batch: Sequence[bytes]) -> None:
        try:
            for data in batch:
                record = records.read(data)
                if link.peer is None:
                    return
                if record is not None:
                    self.bus.act(link.peer, record)
        except UNREADABLE as error:
            self._teller.error("the bus does not understand worker %s of host %s: %s", link.other, link.host, error)
            self._end(link, "garbage")

    # All that we have

    def _wait_to_tell(self) -> None:
        self.bus.center.turns.wait(self, self._tell)

    def _tell(self) -> None:
        """Tell the next portion to those that have just met us; nothing that changes comes between."""
        if self._telling is None:
            self._telling = list(self._untold), self.bus.all_that_we_have()
            self._untold.clear()
        links, rest = self._telling
        links = [link for link in links if link.peer is not None]
        self.flush()
        portion = [records.encode(record) for record in islice(rest, PORTION)] if links else []
        if len(links) > FEW:
            for part in _parts(portion):
                self._share(part, [link.other for link in links])
        else:
            for link in links:
                for record in portion:
                    link.send(record)
            self.flush()
        self._telling = (links, rest) if len(portion) == PORTION else None
        if self._telling or self._untold:
            self.bus.center.turns.charge(len(portion) - SHARE)
            self._wait_to_tell()


def _parts(batch: list[bytes]) -> Iterator[list[bytes]]:
    """Records in parts that are small enough for the engine; a longer record is one by itself."""
    part: list[bytes] = []
    size = 0
    for record in batch:
        if part and size + len(record) > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += len(record)
    if part:
        yield part


def _number(name: str) -> str:
    """Of a worker on its host: a name is HOST.PID.RANDOM."""
    return name.split(".")[-2]


def _host(name: str) -> str:
    return name.rsplit(".", 2)[0]
