"""Clients pass from worker to worker, while all write to each other: nobody can tell when."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable

import pytest

from service.core.addresses import Address
from service.core.awaited import Unsettled
from service.core.handover import SessionState
from service.core.mailbox import Settled
from service.core.moves import COMES_S
from service.core.session import Session, SessionV0
from service.core.session_v1 import SessionV1
from tests.examples import seeds
from tests.service.centers import Party
from tests.service.workers import Audience, Host, Worker, newer_ones

NAMES = ("ann", "bob", "cem", "dan", "eve")


class Scene(Audience):
    """Three workers, and clients whom chance has write and move; it says as well when what is on its way arrives."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.host = Host(3)
        self.at: dict[str, str] = {}
        self.moving: dict[str, tuple[str, str]] = {}
        self.on_the_way: deque[tuple[str, SessionState, str]] = deque()
        self.said: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.asked: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.said_to_all: dict[str, list[int]] = defaultdict(list)
        self.number = 0
        self.numbers: dict[str, int] = {}
        for position, name in enumerate(NAMES):
            number = str(position % 3)
            self.at[name], self.parties[name] = number, self.host.workers[number].v1(name)
            self.parties[name].say(type="join", id=0, group="all")
        self.host.settle()
        for name, party in self.parties.items():
            others = [other for other in self.parties if other != name]
            party.say(type="presence", id=0, uuids=others, watch=True)
            party.heard()

    def turn(self, *others: Callable[[], None]) -> None:
        """Something happens."""
        acts = [self.write, self.write_to_all, self.arrive, self.move, self.adopt]
        self.chance.choices([*acts, *others], [4, 1, 20, 1, 4, *(1 for _ in others)])[0]()
        for worker in self.host.workers.values():
            worker.turns()

    def write(self) -> None:
        writers = sorted(self.parties.keys() - self.still)
        if writers:
            sender = self.chance.choice(writers)
            recipient = self.chance.choice([name for name in NAMES if name != sender])
            self.number += 1
            self.said[sender, recipient].append(self.number)
            ack = self.chance.choice(["none", "accepted", "delivered"])
            if ack != "none":
                self.asked[sender, recipient].append(self.number)
            self.parties[sender].say(id=self.number, recipient_uuid=recipient, message=self.number, ack=ack)

    def write_to_all(self) -> None:
        writers = sorted(self.parties.keys() - self.still)
        if writers:
            sender = self.chance.choice(writers)
            self.number += 1
            self.said_to_all[sender].append(self.number)
            self.parties[sender].say(id=self.number, group="all", message=self.number, ack="delivered")

    def arrive(self) -> None:
        worker = self.chance.choice(list(self.host.workers.values()))
        if worker.peers:
            worker.arrive(self.chance.choice(sorted(worker.peers)))

    def move(self) -> None:
        name = self.chance.choice(sorted(self.parties))
        source = self.at[name]
        targets = newer_ones(source, sorted(self.host.workers.keys() - {source}), self.moving.values())
        if targets and name not in self.still and self.parties[name].session.may_leave:
            target = self.chance.choice(targets)
            self.still.add(name)
            self.moving[name] = source, target
            bus = self.host.workers[source].bus
            number = bus.moves.announce(
                [self.parties[name].session], bus.peers[target], lambda may: self.leave(name, source, target, may)
            )
            self.numbers[name] = number

    def leave(self, name: str, source: str, target: str, may: bool) -> None:
        if name not in self.parties:
            return  # it was of a worker that is dead
        bus, session = self.host.workers[source].bus, self.parties[name].session
        if may and session.may_leave:
            bus.moves.prepare(self.numbers[name])
            self.on_the_way.append((name, session.leave(), target))
            bus.moves.left(session, bus.peers[target])
        else:
            bus.moves.withdraw(self.numbers[name], [session])
            self.still.discard(name)
            self.moving.pop(name, None)
        number = self.numbers.pop(name)
        if target in bus.peers:
            bus.moves.finish(number, bus.peers[target])

    def lose_patience(self) -> None:
        """A worker does not answer in time, to whom clients were to pass."""
        waiting = [name for name in sorted(self.numbers) if name in self.moving]
        if waiting:
            name = self.chance.choice(waiting)
            source, target = self.moving[name]
            if self.host.workers[source].bus.moves.may_withdraw(self.numbers[name]):
                self.leave(name, source, target, False)

    def adopt(self) -> None:
        if self.on_the_way:
            name, state, target = self.on_the_way.popleft()
            if target not in self.host.workers:
                self.forget(name)
                return
            party = self.parties[name]
            kind: type[Session] = SessionV1 if state.protocol == "nc.v1" else SessionV0
            center = self.host.workers[target].center
            party.session = kind(center, party.client, state.identity, state.client_address, state.addresses[0][0])
            party.session.go_on(state, None)
            party.session.catch_up(state)
            self.at[name] = target
            self.still.discard(name)
            self.moving.pop(name, None)

    def kill(self) -> None:
        """A worker dies, with all clients that it has."""
        number = self.chance.choice(sorted(self.host.workers))
        on_the_way = {name for name, _, _ in self.on_the_way}
        self.host.kill(number)
        for name in [name for name, at in self.at.items() if at == number and name not in on_the_way]:
            self.forget(name)

    def forget(self, name: str) -> None:
        party = self.parties.pop(name)
        self.heard[name] += party.heard()
        self.still.discard(name)
        self.moving.pop(name, None)
        del self.at[name]

    def check(self, name: str) -> None:
        """All that others have sent has come, once and in order, and all that was to be told was told, once."""
        frames = self.heard[name]
        messages = [frame for frame in frames if frame["type"] == "msg"]
        for other in self.parties:
            from_other = [each for each in messages if each["sender_uuid"] == other]
            direct = [each["message"] for each in from_other if "group" not in each]
            assert direct == self.said[other, name], (other, name)
            to_all = [each["message"] for each in from_other if "group" in each]
            assert to_all == (self.said_to_all[other] if other != name else []), (other, name)
        assert [frame for frame in frames if frame["type"] in ("presence", "lost", "error")] == []
        receipts = [(frame["id"], frame["recipient_uuid"]) for frame in frames if frame["type"] == "delivered"]
        assert len(receipts) == len(set(receipts))
        assert len(receipts) == sum(frame.get("receipts", 0) for frame in frames if frame["type"] == "ok")

    def finish(self) -> None:
        """All that is under way comes to its end, and everybody confirms what is to be confirmed."""
        for _ in range(50):
            self.host.settle()
            for worker in self.host.workers.values():
                worker.turns()
            self.adopt()

    def come_to_rest(self) -> None:
        """Nobody writes any more, and all that follows from what was written has followed."""
        for _ in range(2):
            self.finish()
            self.listen(1.0)
        assert not self.still


@pytest.mark.parametrize("seed", seeds(10, 30))
def test_of_what_is_written_meanwhile_nothing_is_lost_or_doubled_or_overtaken(seed: int) -> None:
    scene = Scene(seed)
    for _ in range(400):
        scene.turn()
        scene.listen(0.7)
    scene.come_to_rest()
    for name in scene.parties:
        scene.check(name)
    for worker in scene.host.workers.values():
        assert worker.center.connections == len(scene.parties)
        assert not worker.bus.moves._arriving
        assert not worker.bus.moves._fences
        assert not worker.bus.moves._ahead
        assert not worker.bus.moves._behind
        assert not worker.bus._awaited
        assert not worker.bus._awaited._sent


@pytest.mark.parametrize("seed", seeds(10, 30))
def test_when_clients_stay_after_all_nothing_is_lost_or_doubled_or_overtaken(seed: int) -> None:
    scene = Scene(seed)
    for _ in range(400):
        scene.turn(scene.lose_patience)
        scene.listen(0.7)
    scene.come_to_rest()
    for name in scene.parties:
        scene.check(name)
    for worker in scene.host.workers.values():
        moves = worker.bus.moves
        assert not any((moves._arriving, moves._fences, moves._ahead, moves._behind, moves.leaving))


@pytest.mark.parametrize("seed", seeds(10, 30))
def test_when_a_worker_dies_meanwhile_nothing_is_doubled_or_overtaken_or_remains(seed: int) -> None:
    scene = Scene(seed)
    for number in range(400):
        if number in (150, 280):
            scene.kill()
        if scene.parties:
            scene.turn(scene.lose_patience)
        scene.listen(0.7)
    scene.come_to_rest()
    (worker,) = scene.host.workers.values()
    assert worker.center.connections == len(scene.parties) == len(worker.center.hub.members)
    assert not worker.bus.moves._arriving
    assert not worker.bus.moves._fences
    assert not worker.bus.moves._behind
    assert not worker.bus._awaited
    assert not worker.bus._awaited._sent
    for name in scene.parties:
        messages = [frame for frame in scene.heard[name] if frame["type"] == "msg"]
        for other in NAMES:
            numbers = [each["message"] for each in messages if each["sender_uuid"] == other and "group" not in each]
            assert numbers == sorted(set(numbers)), (other, name)
            to_all = [each["message"] for each in messages if each["sender_uuid"] == other and "group" in each]
            assert to_all == sorted(set(to_all)), (other, name)
        answers = [frame["id"] for frame in scene.heard[name] if frame["type"] in ("ok", "error")]
        assert len(answers) == len(set(answers))
        # Whoever is still there was told what has become of each message, once.
        asked = [number for (sender, _), numbers in scene.asked.items() if sender == name for number in numbers]
        assert set(asked) <= set(answers)
        outcomes = [each for each in scene.heard[name] if each["type"] in ("delivered", "lost")]
        told = Counter((each["id"], each["recipient_uuid"]) for each in outcomes)
        assert set(told.values()) <= {1}, name
        expected = {each["id"]: each["receipts"] for each in scene.heard[name] if each.get("receipts")}
        counted = Counter(number for number, _ in told)
        assert counted == expected, name


def test_the_worker_that_a_sender_has_left_does_not_say_that_its_message_was_lost() -> None:
    host = Host(3)
    source, target, other = host.workers.values()
    sender, recipient = source.v1("ann"), other.v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    (key,) = (frame["key"] for frame in recipient.heard())
    to = source.bus.peers["1"]
    states: list[SessionState] = []

    def leave(_: bool) -> None:
        source.bus.moves.prepare(number)
        states.append(session.leave())
        source.bus.moves.left(session, to)

    session = sender.session
    number = source.bus.moves.announce([session], to, leave)
    host.settle()
    source.bus.moves.finish(number, to)
    sender.session = SessionV1(target.center, sender.client, None, None, session.temporary)
    sender.session.go_on(states[0], None)
    host.settle()
    recipient.say(type="ack", key=key)
    host.settle()
    host.kill("2")
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "delivered"]


@pytest.mark.parametrize("ends", [False, True])
def test_a_message_to_a_group_for_one_who_stays_after_all_comes_once_to_each_member(ends: bool) -> None:
    host = Host(3)
    source, target, other = host.workers.values()
    members = {name: worker.v1(name) for name, worker in (("ann", source), ("bob", source), ("cem", other))}
    for member in members.values():
        member.say(type="join", id=0, group="g")
        member.heard()
    sender, moving = target.v1("sender"), members["ann"].session
    host.settle()
    number = source.bus.moves.announce([moving], source.bus.peers["1"], lambda _: None)
    target.arrive("0")
    sender.say(type="send", id=1, group="g", message=1, ack="delivered")
    host.settle(but=("1", "0"))
    assert source.bus.moves.may_withdraw(number)
    source.bus.moves.withdraw(number, [moving])
    source.bus.moves.finish(number, source.bus.peers["1"])
    if ends:
        moving.end()
    host.settle()
    heard = {name: member.heard() for name, member in members.items()}
    assert {name: [frame["message"] for frame in frames] for name, frames in heard.items()} == {
        "ann": [] if ends else [1],
        "bob": [1],
        "cem": [1],
    }
    for name, frames in heard.items():
        for frame in frames:
            members[name].say(type="ack", key=frame["key"])
    host.settle()
    assert sorted((frame["type"], frame.get("recipient_uuid"), frame.get("receipts")) for frame in sender.heard()) == [
        ("delivered", "ann", None) if not ends else ("delivered", "bob", None),
        ("delivered", "bob", None) if not ends else ("delivered", "cem", None),
        ("delivered", "cem", None) if not ends else ("lost", "ann", None),
        ("ok", None, 3),
    ]


def test_of_one_who_stays_twice_a_sender_hears_what_has_become_of_a_message_that_was_kept_for_it() -> None:
    host = Host(2)
    source, target = host.workers.values()
    ann, sender, to = source.v1("ann"), target.v1("sender"), source.bus.peers["1"]
    ann.say(type="join", id=0, group="g")
    ann.heard()
    host.settle()
    number = source.bus.moves.announce([ann.session], to, lambda _: None)
    target.arrive("0")
    sender.say(type="send", id=1, group="g", message=1, ack="delivered")
    source.bus.moves.withdraw(number, [ann.session])
    source.bus.moves.finish(number, to)
    target.arrive("0")
    number = source.bus.moves.announce([ann.session], to, lambda _: None)
    while not ann.client.sent:
        source.arrive("1")
    while target.arrive("0"):
        pass
    source.bus.moves.withdraw(number, [ann.session])
    source.bus.moves.finish(number, to)
    host.settle()
    (frame,) = ann.heard()
    ann.say(type="ack", key=frame["key"])
    host.settle()
    assert [(frame["type"], frame.get("recipient_uuid")) for frame in sender.heard()] == [
        ("ok", None),
        ("delivered", "ann"),
    ]


def test_clients_may_not_stay_when_others_than_the_next_worker_know_that_they_leave() -> None:
    host = Host(3)
    source, target, _ = host.workers.values()
    ann = source.v1("ann").session
    number = source.bus.moves.announce([ann], source.bus.peers["1"], lambda _: None)
    target.arrive("0")
    assert source.bus.moves.may_withdraw(number)
    host.settle()
    assert not source.bus.moves.may_withdraw(number)
    host.kill("1")
    assert source.bus.moves.may_withdraw(number)


@pytest.mark.parametrize("dies", [False, True])
def test_nothing_remains_of_a_move_that_was_withdrawn_before_the_next_worker_knew(dies: bool) -> None:
    host = Host(3)
    source, target, _ = host.workers.values()
    ann, to = source.v1("ann"), source.bus.peers["1"]
    host.settle()
    number = source.bus.moves.announce([ann.session], to, lambda _: None)
    source.bus.moves.withdraw(number, [ann.session])
    source.bus.moves.finish(number, to)
    assert not source.bus.moves.leaving
    if dies:
        host.kill("1")
    host.settle()
    assert not source.bus.moves._fences
    assert not target.bus.moves._behind or dies


def test_what_counts_as_lost_with_the_next_worker_of_a_client_does_not_come_to_the_client_that_stays() -> None:
    host = Host(3)
    ann, bob, sender = (host.workers[number].v1(name) for number, name in (("0", "ann"), ("0", "bob"), ("1", "sender")))
    for member in (ann, bob):
        member.say(type="join", id=0, group="g")
        member.heard()
    host.settle()
    bus = host.workers["0"].bus
    number = bus.moves.announce([ann.session], bus.peers["2"], lambda _: None)
    host.settle(but=("1", "0"))
    sender.say(type="send", id=1, group="g", message=1, ack="delivered")
    host.kill("2")
    bus.moves.withdraw(number, [ann.session])
    host.settle()
    (frame,) = bob.heard()
    bob.say(type="ack", key=frame["key"])
    sender.say(type="send", id=2, group="g", message=2, ack="none")
    host.settle()
    assert [frame["message"] for frame in (*ann.heard(), *bob.heard())] == [2, 2]
    assert [(frame["type"], frame.get("recipient_uuid")) for frame in sender.heard()] == [
        ("ok", None),
        ("lost", "ann"),
        ("delivered", "bob"),
    ]
    assert not bus.moves._fences


def test_of_one_who_leaves_a_group_and_moves_before_a_message_comes_the_sender_is_told() -> None:
    host = Host(3)
    ann, bob, sender = (host.workers[number].v1(name) for number, name in (("0", "ann"), ("0", "bob"), ("1", "sender")))
    for member in (ann, bob):
        member.say(type="join", id=0, group="g")
        member.heard()
    host.settle()
    sender.say(type="send", id=1, group="g", message=1, ack="delivered")
    ann.say(type="leave", id=1, group="g")
    moving = Move(host, ann, "0", "2")
    host.settle(but=("1", "0"))
    host.settle()
    moving.arrive()
    host.settle()
    assert [(frame["type"], frame.get("recipient_uuid")) for frame in sender.heard()] == [("ok", None), ("lost", "ann")]


def test_a_worker_that_starts_in_the_middle_sends_what_is_for_a_group_to_one_who_has_moved() -> None:
    host = Host(2)
    source, target = host.workers.values()
    ann, to = source.v1("ann"), source.bus.peers["1"]
    ann.say(type="join", id=0, group="g")
    ann.heard()
    host.settle()
    session = ann.session
    number = source.bus.moves.announce([session], to, lambda _: None)
    host.settle()
    state = session.leave()
    source.bus.moves.left(session, to)
    source.bus.moves.finish(number, to)
    new = Worker("2")
    new.meet(target)
    new.meet(source)
    host.workers["2"] = new
    ann.session = SessionV1(target.center, ann.client, None, None, session.temporary)
    ann.session.go_on(state, None)
    while new.arrive("1"):
        pass
    new.v1("dan").say(type="send", id=1, group="g", message=1, ack="delivered")
    host.settle()
    assert [frame["message"] for frame in ann.heard()] == [1]
    host.kill("0")
    assert not target.bus.moves._behind


class Move:
    """A client that passes to another worker, as soon as it may."""

    def __init__(self, host: Host, party: Party, source: str, target: str) -> None:
        self.host, self.party, self.source, self.target = host, party, source, target
        self.states: list[SessionState] = []
        self.moves, self.to = host.workers[source].bus.moves, host.workers[source].bus.peers[target]
        self.number = self.moves.announce([party.session], self.to, self.leave)

    def leave(self, may: bool) -> None:
        assert may
        self.states.append(self.party.session.leave())
        self.moves.left(self.party.session, self.to)

    def arrive(self) -> None:
        self.moves.finish(self.number, self.to)
        (state,) = self.states
        center = self.host.workers[self.target].center
        self.party.session = SessionV1(center, self.party.client, None, None, state.addresses[0][0])
        self.party.session.go_on(state, None)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("before", ["1", "2"])
def test_what_a_client_has_sent_to_one_that_moves_is_not_overtaken_when_it_moves_as_well(
    before: str, ends: bool
) -> None:
    host = Host(4)
    recipient, sender = host.workers["0"].v1("ann"), host.workers[before].v1("bob")
    recipient.say(type="join", id=0, group="g")
    recipient.heard()
    host.settle()
    late = ("0", "3")
    first = Move(host, recipient, "0", "1")
    host.settle(but=late)
    sender.say(type="send", id=1, group="g", message=1)
    host.settle(but=late)
    second = Move(host, sender, before, "3")
    host.settle(but=late)
    assert not second.states
    if ends:
        host.kill("0")
    host.settle()
    second.arrive()
    sender.say(type="send", id=2, group="g", message=2)
    host.settle()
    if not ends:
        first.arrive()
        host.settle()
        assert [frame["message"] for frame in recipient.heard()] == [1, 2]
    assert not any(worker.bus.moves._ahead or worker.bus.moves._behind for worker in host.workers.values())


@pytest.mark.parametrize("order", ["dies, sender, recipient", "dies, recipient, sender", "sender, dies, recipient"])
@pytest.mark.parametrize("to", ["0", "3"])
def test_of_a_recipient_that_is_lost_a_sender_hears_that_is_on_its_way_as_well(to: str, order: str) -> None:
    host = Host(4)
    sender, recipient = host.workers["1"].v1("ann"), host.workers["2"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    moves = {"recipient": Move(host, recipient, "2", "0"), "sender": Move(host, sender, "1", to)}
    host.settle()
    for each in order.split(", "):
        if each in moves:
            moves[each].arrive()
        else:
            host.kill("2")
        host.settle()
    # The recipient had just left. It has come all the same, and of what it had to confirm nobody hears any more.
    (key,) = (frame["key"] for frame in recipient.heard() if frame["type"] == "msg")
    recipient.say(type="ack", key=key)
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "lost"]


def test_of_clients_that_do_not_come_because_their_worker_has_died_nothing_is_kept_for_ever() -> None:
    host = Host(2)
    source, target = host.workers.values()
    leaving = source.v1("ann")
    host.settle()
    source.bus.moves.announce([leaving.session], source.bus.peers["1"], lambda _: None)
    host.settle()
    host.kill("0")
    assert target.bus.moves._lost
    target.passes(COMES_S)
    assert not target.bus.moves._lost
    assert not target.center.deadlines


@pytest.mark.parametrize("to", ["0", "2"])
def test_a_sender_that_comes_although_it_was_lost_hears_of_a_recipient_that_was_lost_as_well(to: str) -> None:
    host = Host(3)
    sender, recipient = (host.workers["1"].v1(name) for name in ("ann", "bob"))
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    moves = [Move(host, recipient, "1", to)]
    host.settle()
    moves.append(Move(host, sender, "1", "0"))
    host.settle()
    host.kill("1")
    host.settle()
    for each in moves:
        each.arrive()
        host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "lost"]
    assert not host.workers["0"].bus._awaited


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
def test_of_one_who_has_passed_to_a_worker_that_dies_a_sender_hears(is_late: bool, arrives: bool) -> None:
    host = Host(3)
    sender, recipient = host.workers["0"].v1("ann"), host.workers["1"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    moving = Move(host, recipient, "1", "2")
    host.settle()
    if arrives:
        moving.arrive()
        host.settle()
    if is_late:  # the sender's worker sees it after the other one
        del host.workers["2"]
        for number in ("1", "0"):
            host.workers[number].bus.part(host.workers[number].peers.pop("2"))
            host.settle()
    else:
        host.kill("2")
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "lost"]


@pytest.mark.parametrize("hears_from", ["both", "the next worker first", "the next worker alone"])
@pytest.mark.parametrize("moves", [False, True])
def test_of_one_who_ends_in_the_middle_of_its_move_a_sender_hears_once(moves: bool, hears_from: str) -> None:
    host = Host(4)
    recipient, sender = host.workers["0"].v1("ann"), host.workers["2"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="ann", message=1, ack="delivered")
    host.settle()
    bus, at = host.workers["0"].bus, "3" if moves else "2"
    bus.moves.announce([recipient.session], bus.peers["1"], lambda _: None)
    host.settle()
    if moves:
        move = Move(host, sender, "2", at)
        host.settle()
    recipient.session.end()
    if hears_from != "both":
        host.settle(but=("0", at))
    if hears_from == "the next worker alone":  # the other one dies before it has said it
        host.workers[at].incoming["0"].records.clear()
        host.kill("0")
    host.settle()
    if moves:
        move.arrive()
        host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "lost"]
    assert not host.workers[at].bus._awaited


def test_a_sender_that_stays_because_the_next_worker_has_died_hears_what_was_confirmed_meanwhile() -> None:
    host = Host(3)
    sender, recipient = host.workers["0"].v1("ann"), host.workers["1"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    bus = host.workers["0"].bus
    to = bus.peers["2"]
    number = bus.moves.announce([sender.session], to, lambda _: bus.moves.withdraw(number, [sender.session]))
    host.settle(but=("1", "0"))
    host.kill("2")
    (key,) = (frame["key"] for frame in recipient.heard())
    recipient.say(type="ack", key=key)
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "delivered"]


def test_a_sender_that_stays_hears_once_what_was_confirmed_meanwhile() -> None:
    host = Host(2)
    sender, recipient = host.workers["0"].v1("ann"), host.workers["1"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    bus = host.workers["0"].bus
    number = bus.moves.announce([sender.session], bus.peers["1"], lambda _: None)
    host.settle(but=("1", "0"))
    (key,) = (frame["key"] for frame in recipient.heard())
    recipient.say(type="ack", key=key)
    bus.moves.withdraw(number, [sender.session])
    host.settle()
    host.kill("1")
    assert [frame["type"] for frame in sender.heard()] == ["ok", "delivered"]


def test_a_sender_hears_what_was_confirmed_at_a_worker_that_has_not_heard_of_it_yet() -> None:
    host = Host(2)
    sender, recipient = host.workers["0"].v1("ann"), host.workers["1"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    host.add("2")
    moving = Move(host, recipient, "1", "2")
    host.settle(but=("0", "2"))
    moving.arrive()
    (key,) = (frame["key"] for frame in recipient.heard())
    recipient.say(type="ack", key=key)
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "delivered"]


@pytest.mark.parametrize("at", ["0", "2"])
def test_a_sender_that_comes_although_it_was_lost_hears_what_was_confirmed_meanwhile(at: str) -> None:
    host = Host(3)
    sender, recipient = host.workers["1"].v1("ann"), host.workers[at].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="bob", message=1, ack="delivered")
    host.settle()
    moving = Move(host, sender, "1", "2")
    host.settle()
    host.kill("1")
    host.settle()
    (key,) = (frame["key"] for frame in recipient.heard())
    recipient.say(type="ack", key=key)
    moving.arrive()
    host.settle()
    assert [frame["type"] for frame in sender.heard()] == ["ok", "delivered"]


def test_of_what_senders_are_to_be_told_that_have_gone_only_so_much_is_remembered() -> None:
    unsettled = Unsettled(3)
    told = [Settled(Address(sender), number, Address("bob"), True) for number, sender in enumerate("aabbc")]
    for each in told:
        unsettled.add(each)
    assert unsettled.take_all_of(Address("a")) == []
    assert unsettled.take_all_of(Address("b")) == told[2:4]
    assert unsettled.take_all_of(Address("c")) == told[4:]


def test_of_a_sender_that_has_gone_a_worker_does_not_remember_what_it_was_to_be_told() -> None:
    host = Host(3)
    recipient, sender = host.workers["0"].v1("ann"), host.workers["1"].v1("bob")
    host.settle()
    sender.say(id=1, recipient_uuid="ann", message=1, ack="delivered")
    host.settle()
    Move(host, recipient, "0", "2")
    host.settle()
    assert host.workers["1"].bus._awaited
    sender.session.end()
    assert not host.workers["1"].bus._awaited


@pytest.mark.parametrize("are_others_asked", [False, True])
def test_who_goes_while_it_is_about_to_leave_is_gone_for_all(are_others_asked: bool) -> None:
    host = Host(3)
    source, target, other = host.workers.values()
    ann, watcher = source.v1("ann"), other.v1("watcher")
    ann.say(type="join", id=0, group="g")
    host.settle()
    watcher.say(type="presence", id=0, uuids=["ann"], watch=True)
    watcher.heard()
    number = source.bus.moves.announce([ann.session], source.bus.peers["1"], lambda _: None)
    target.arrive("0")
    if are_others_asked:
        source.arrive("1")
    ann.session.end()
    host.settle()
    source.bus.moves.finish(number, source.bus.peers["1"])
    host.settle()
    assert [frame["state"] for frame in watcher.heard()] == ["offline"]
    for worker in host.workers.values():
        moves = worker.bus.moves
        assert not any((moves._arriving, moves._behind, moves._fences, moves.leaving))
        assert worker.center.hub.owner_of("ann") is None  # type: ignore[arg-type]
        assert worker.center.hub.members_of("g") == ()
        assert worker.center.connections == 1
