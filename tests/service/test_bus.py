"""Several workers are one notification center."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import service.core.bus_records as records
from service.core.addresses import Address
from service.core.bus import PATIENCE_S
from service.core.close_codes import ADDRESS_IN_USE, GIVEN_TWICE, REPLACED
from service.core.hub import Owner
from service.core.peer import MANY_RECEIPTS, MAX_QUEUED_BYTES
from service.core.session_v1 import MAX_UNCONFIRMED
from service.core.standing import Standing, together
from service.core.tally import Tally
from tests.examples import EXAMPLES
from tests.service.centers import Party
from tests.service.workers import Host


@pytest.fixture
def host() -> Host:
    return Host(3)


def only(party: Party) -> Any:
    (frame,) = party.heard()
    return frame


def test_a_message_reaches_a_client_of_another_worker(host: Host) -> None:
    alice, bob = host.workers["0"].v0(), host.workers["1"].v0()
    alice.register("alice")
    host.settle()
    bob.say(recipient_uuid="alice", message=[1], more=2)
    host.settle()
    assert only(alice) == {"recipient_uuid": "alice", "message": [1], "more": 2}


def test_it_also_does_when_its_worker_has_not_been_heard_of_yet(host: Host) -> None:
    alice, bob = host.workers["0"].v0(), host.workers["1"].v0()
    alice.register("alice")
    bob.say(recipient_uuid="alice", message=1)
    host.settle()
    assert only(alice)["message"] == 1


def test_both_versions_talk_to_each_other_across_workers(host: Host) -> None:
    old, new = host.workers["0"].v0(), host.workers["1"].v1("new")
    old.register("old")
    host.settle()
    old.say(recipient_uuid="new", message=1)
    new.say(id=1, recipient_uuid="old", message=2)
    host.settle()
    msg, ok = sorted(new.heard(), key=lambda frame: str(frame["type"]))
    assert (msg["sender_uuid"], msg["message"]) == ("old", 1)
    assert (ok["type"], ok["online"]) == ("ok", 1)
    assert only(old) == {"recipient_uuid": "old", "message": 2}


@pytest.mark.parametrize("heard_of", [True, False])
def test_what_the_decoder_refuses_is_passed_on_to_the_letter_across_workers(host: Host, heard_of: bool) -> None:
    old, new = host.workers["0"].v0(), host.workers["0"].v1("new")
    old.register("old")
    if heard_of:
        host.settle()
    bob, carol = host.workers["1"].v0(), host.workers["1"].v1("carol")
    odd = [rb'{"recipient_uuid": "old", "message": "\ud83d"}', b'{"recipient_uuid": "old", "message": NaN}']
    for text in odd:
        bob.session.receive(text)
    bob.session.receive(rb'{"recipient_uuid": "new", "message": "\ud83d"}')
    bob.session.receive(b'{"recipient_uuid": "new", "message": NaN}')
    carol.session.receive(rb'{"id": 7, "recipient_uuid": "new", "message": "\ude00"}')
    host.settle()
    assert old.client.sent == odd
    assert [frame["message"] for frame in new.heard()] == ["\ud83d", "\ude00"]
    assert only(carol) == {"type": "ok", "id": 7, "online": 1}
    assert host.workers["0"].dropped("unreadable") == 1


def test_a_text_is_not_read_again_where_its_sender_says_whom_it_is_for(host: Host) -> None:
    here = host.workers["0"]
    alice = here.v0()
    alice.register("alice")
    here.bus.act(here.peers["1"], records.Text(b"not read", Address("bob"), 0, Address("alice")))
    assert alice.client.sent == [b"not read"]


def crowd(host: Host, worker: str, number: int) -> list[Party]:
    """So many members of a group, of one worker."""
    members = [host.workers[worker].v1() for _ in range(number)]
    for member in members:
        member.say(type="hello", id=0)
        member.say(type="join", id=1, group="g")
    host.settle()
    for member in members:
        member.heard()
    return members


def test_messages_of_other_workers_to_large_groups_wait_and_only_their_own_senders_wait_behind_them(host: Host) -> None:
    member = crowd(host, "0", 200)[0]
    bob, carol, dave = host.workers["1"].v1("bob"), host.workers["2"].v1("carol"), host.workers["2"].v1("dave")
    host.settle()
    for number in range(2):
        for sender in (bob, carol):
            sender.say(group="g", message=number)
    carol.say(recipient_uuid=member.session.addresses[0], message="after that")
    host.settle()
    assert len(member.heard()) == 2
    dave.say(recipient_uuid=member.session.addresses[0], message="hello")
    host.settle()
    assert [frame["sender_uuid"] for frame in member.heard()] == ["dave"]
    host.workers["0"].turns()
    heard = [(frame["sender_uuid"], frame["message"]) for frame in member.heard()]
    assert len(heard) == 3
    assert [message for sender, message in heard if sender == "carol"][-1] == "after that"


def test_of_too_many_messages_that_wait_for_their_turn_the_rest_is_dropped_and_told(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.core.bus.MAX_LATE", 0)
    crowd(host, "0", 200)
    bob, carol = host.workers["1"].v1("bob"), host.workers["2"].v1("carol")
    host.settle()
    for number in range(2):
        for sender in (bob, carol):
            sender.say(id=number, group="g", message=number, ack="delivered")
    host.settle()
    assert host.workers["0"].dropped("bus_full") == 2
    told = [frame["type"] for sender in (bob, carol) for frame in sender.heard()]
    assert told.count("lost") == 2 * 200


def test_a_message_for_nobody_is_told_when_all_workers_have_said_so(host: Host) -> None:
    bob = host.workers["1"].v1("bob")
    bob.say(id=1, recipient_uuid="nobody", message=1)
    assert bob.heard() == []
    host.settle()
    assert only(bob)["code"] == 114
    host.workers["1"].v0().say(recipient_uuid="nobody", message=1)
    host.settle()
    assert host.workers["1"].dropped("nobody") == 2


def test_a_worker_that_dies_before_it_answers_keeps_nobody_waiting(host: Host) -> None:
    bob = host.workers["1"].v1("bob")
    bob.say(id=1, recipient_uuid="nobody", message=1)
    host.kill("0")
    host.settle()
    assert only(bob)["code"] == 116  # it may have had the recipient


@pytest.mark.parametrize("known", [True, False])
def test_receipts_come_back_across_workers(host: Host, known: bool) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    if known:
        host.settle()
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    host.settle()
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 1}
    alice.say(type="ack", key=only(alice)["key"])
    host.settle()
    assert only(bob) == {"type": "delivered", "id": 7, "recipient_uuid": "alice"}


@pytest.mark.parametrize("to", [{"recipient_uuid": "alice"}, {"group": "ops"}])
def test_receipts_of_senders_that_have_gone_are_not_remembered_for_ever(host: Host, to: dict[str, str]) -> None:
    one, other, _ = host.workers.values()
    staying, carol = one.v1("staying"), other.v1("carol")
    host.settle()
    staying.say(type="send", id=1, recipient_uuid="carol", message="m", ack="delivered")
    for _ in range(3 * MANY_RECEIPTS // 20):
        alice, sender = other.v1("alice"), one.v1("sender")
        alice.say(type="join", id=1, group="ops")
        host.settle()
        for number in range(20):
            sender.say(type="send", id=number, message="m", ack="delivered", **to)
        host.settle()
        for party in (sender, alice):
            party.session.end()
            host.settle()
    assert len(one.peers[other.number].receipts) <= MANY_RECEIPTS + 1
    carol.session.end()
    host.settle()
    assert [frame["type"] for frame in staying.heard()] == ["ok", "lost"]


def test_what_a_dying_worker_had_not_confirmed_is_told_lost_once(host: Host) -> None:
    host.workers["0"].v1("alice")
    bob = host.workers["1"].v1("bob")
    host.settle()
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    host.settle()
    assert only(bob)["receipts"] == 1
    host.kill("0")
    assert only(bob) == {"type": "lost", "id": 7, "recipient_uuid": "alice"}
    host.kill("2")
    assert bob.heard() == []


@pytest.mark.parametrize("ack", ["accepted", "delivered"])
def test_what_a_dying_worker_has_not_answered_for_is_told_once(host: Host, ack: str) -> None:
    host.workers["0"].v1("alice")
    bob = host.workers["1"].v1("bob")
    host.settle()
    bob.say(id=7, recipient_uuid="alice", message=1, ack=ack)
    assert bob.heard() == []
    host.kill("0")
    assert only(bob)["code"] == 116
    assert host.workers["1"].peers["2"].receipts == {}


def test_a_message_is_acknowledged_when_it_has_left_the_other_worker(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    host.settle()
    alice.client.reads_slowly = True
    bob.say(id=7, recipient_uuid="alice", message=1)
    bob.say(id=8, recipient_uuid="alice", message=2)
    host.settle()
    assert [frame["message"] for frame in alice.heard()] == [1, 2]
    assert bob.heard() == []
    alice.client.leaving[0](True)
    host.settle()
    assert only(bob) == {"type": "ok", "id": 7, "online": 1}
    alice.client.leaving[1](False)
    host.settle()
    assert only(bob)["code"] == 116
    assert [worker.center.hub.tally.routed for worker in host.workers.values()] == [0, 1, 0]


@pytest.mark.parametrize("ack", ["accepted", "delivered"])
def test_a_message_for_an_address_that_has_moved_follows_it(host: Host, ack: str) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    host.settle()
    alice.session.end()
    while host.workers["2"].arrive("0"):
        pass
    again = host.workers["2"].v1("alice")
    bob.say(id=7, recipient_uuid="alice", message=1, ack=ack)
    host.settle()
    assert only(bob)["online"] == 1
    heard = only(again)
    assert heard["message"] == 1
    if ack == "delivered":
        again.say(type="ack", key=heard["key"])
        host.settle()
        assert only(bob) == {"type": "delivered", "id": 7, "recipient_uuid": "alice"}


def test_a_message_for_an_address_that_nobody_has_any_more_is_told_so(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    host.settle()
    alice.session.end()
    bob.say(id=7, recipient_uuid="alice", message=1)
    bob.say(recipient_uuid="alice", message=1)
    host.settle()
    assert only(bob)["code"] == 114
    assert [worker.dropped("nobody") for worker in host.workers.values()] == [1, 1, 0]


def test_a_client_of_another_worker_with_too_much_to_confirm_is_told(host: Host) -> None:
    host.workers["0"].v1("alice")
    bob = host.workers["1"].v1("bob")
    host.settle()
    for number in range(MAX_UNCONFIRMED):
        bob.say(id=number, recipient_uuid="alice", message=1, ack="delivered")
    host.settle()
    assert {frame["type"] for frame in bob.heard()} == {"ok"}
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    host.settle()
    assert only(bob)["code"] == 115
    assert host.workers["0"].dropped("unconfirmed") == 1


def test_a_client_of_v0_in_another_worker_gives_no_receipts(host: Host) -> None:
    host.workers["0"].v0().register("old")
    bob = host.workers["1"].v1("bob")
    for _ in range(2):  # unknown at first, known then
        bob.say(id=7, recipient_uuid="old", message=1, ack="delivered")
        host.settle()
        assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 0}
    host.kill("0")
    assert bob.heard() == []


def test_a_group_spans_workers(host: Host) -> None:
    alice, bob, carol = (host.workers[str(number)].v1(name) for number, name in enumerate(("alice", "bob", "carol")))
    for party in (alice, bob, carol):
        party.say(type="join", id=1, group="g")
        host.settle()
        party.heard()
    alice.say(id=2, group="g", message="hi", ack="delivered")
    host.settle()
    assert only(alice) == {"type": "ok", "id": 2, "online": 2, "receipts": 2}
    bob.say(type="ack", key=only(bob)["key"])
    host.settle()
    assert only(alice) == {"type": "delivered", "id": 2, "recipient_uuid": "bob"}
    host.kill("2")
    assert only(alice) == {"type": "lost", "id": 2, "recipient_uuid": "carol"}
    bob.say(type="leave", id=3, group="g")
    host.settle()
    alice.say(id=4, group="g", message="hi")
    assert only(alice)["online"] == 0


def test_presence_spans_workers(host: Host) -> None:
    alice = host.workers["0"].v1("alice")
    alice.say(type="presence", id=1, uuids=["bob"], watch=True)
    alice.heard()
    host.workers["1"].v1("bob")
    host.settle()
    assert only(alice) == {"type": "presence", "uuid": "bob", "state": "online"}
    alice.say(type="presence", id=2, uuids=["bob"])
    assert only(alice)["online"] == ["bob"]
    host.kill("1")
    assert only(alice) == {"type": "presence", "uuid": "bob", "state": "offline"}


def test_which_of_two_has_an_address_that_they_got_at_one_moment_all_agree() -> None:
    host = Host(3)
    for number in "01":
        host.workers[number].v1("a")
    host.settle()
    third = host.workers["2"]
    assert third.center.hub.owner_of(Address("a")) is third.peers["0"]
    assert host.workers["1"].center.hub.owner_of(Address("a")) is host.workers["1"].peers["0"]


@pytest.mark.parametrize("alive", [True, False])
def test_nobody_takes_the_address_of_a_living_client_of_another_worker(host: Host, alive: bool) -> None:
    alice, mallory = host.workers["0"].v0(), host.workers["1"].v0()
    alice.register("alice")
    host.settle()
    mallory.register("alice")
    host.settle()
    alice.answer_probe(alive)
    host.settle()
    assert (mallory.client.closed == [ADDRESS_IN_USE]) is alive
    assert alice.client.aborted is not alive
    host.workers["2"].v0().say(recipient_uuid="alice", message=1)
    host.settle()
    assert len((alice if alive else mallory).heard()) == 1


def test_the_secret_of_a_connection_counts_in_every_worker(host: Host) -> None:
    old, new = host.workers["0"].v1(), host.workers["1"].v1()
    old.say(type="hello", id=1, uuid="alice")
    secret = only(old)["resume"]
    host.settle()
    new.say(type="hello", id=1, uuid="alice", resume=secret)
    host.settle()
    assert only(new)["uuid"] == "alice"
    assert old.client.closed == [REPLACED]
    assert old.client.probes == []


@pytest.mark.parametrize("where", ["0", "1"])
def test_who_comes_back_under_the_temporary_address_leaves_nothing_of_the_old_connection(
    host: Host, where: str
) -> None:
    old, new, bob = host.workers["0"].v1(), host.workers[where].v1(), host.workers["2"].v1("bob")
    old.say(type="hello", id=1)
    secret = only(old)["resume"]
    old.say(type="join", id=2, group="all")
    host.settle()
    new.say(type="hello", id=1, uuid=old.session.temporary, resume=secret)
    host.settle()
    assert only(new)["uuid"] == old.session.temporary
    host.add("3")  # it hears of all that is there now
    host.settle()
    old.session.end()
    host.settle()
    assert [worker.center.connections for worker in host.workers.values()] == [2] * 4
    assert not any(list(worker.center.hub.groups()) for worker in host.workers.values())
    bob.say(recipient_uuid=old.session.temporary, message="welcome back")
    host.settle()
    assert only(new)["message"] == "welcome back"


def test_of_two_clients_that_are_granted_an_address_at_one_moment_the_earlier_one_keeps_it(host: Host) -> None:
    first, second = host.workers["1"].v0(), host.workers["0"].v0()
    first.register("alice")
    host.workers["0"].time += 1
    second.register("alice")
    host.settle()
    assert (first.client.closed, second.client.closed) == ([], [ADDRESS_IN_USE])
    for worker in host.workers.values():
        worker.v0().say(recipient_uuid="alice", message=1)
        host.settle()
    assert len(first.heard()) == 3


def test_a_client_that_was_told_to_have_an_address_may_come_back_when_another_one_keeps_it(host: Host) -> None:
    host.workers["1"].v1("alice")
    host.workers["0"].time += 1
    second = host.workers["0"].v1("alice")
    host.settle()
    assert second.client.closed == [GIVEN_TWICE]


def test_limits_hold_for_all_workers_together() -> None:
    host = Host(2)
    host.workers["0"].v0(address="192.0.2.1")
    gone = host.workers["0"].v0(address="192.0.2.1")
    host.workers["1"].v0()
    host.settle()
    for worker in host.workers.values():
        assert worker.center.connections == 3
        assert worker.center.connections_of == {"192.0.2.1": 2}
    gone.session.end()
    host.settle()
    assert host.workers["1"].center.connections_of == {"192.0.2.1": 1}
    host.kill("0")
    assert host.workers["1"].center.connections == 1
    assert host.workers["1"].center.connections_of == {}


def test_a_new_worker_learns_what_the_others_have(host: Host) -> None:
    alice = host.workers["0"].v1("alice")
    alice.say(type="join", id=1, group="g")
    alice.heard()
    host.settle()
    bob = host.add("3").v1("bob")
    host.settle()
    bob.say(id=1, group="g", message=1)
    bob.say(id=2, recipient_uuid="alice", message=1)
    host.settle()
    assert [frame["online"] for frame in bob.heard()] == [1, 1]
    assert host.workers["3"].center.connections == 2


def test_a_worker_that_is_stuck_gets_no_more_than_it_can_keep_and_senders_are_told(host: Host) -> None:
    host.workers["0"].v1("alice")
    bob = host.workers["1"].v1("bob")
    host.settle()
    host.workers["0"].incoming["1"].queued = MAX_QUEUED_BYTES + 1
    for ack in ("accepted", "delivered"):
        bob.say(id=1, recipient_uuid="alice", message=1, ack=ack)
        assert only(bob)["temporary"] is True
    bob.say(id=2, recipient_uuid="nobody", message=1)
    host.settle()
    assert only(bob)["code"] == 114  # the stuck worker is not waited for
    assert host.workers["1"].dropped("bus_full") >= 2


def test_a_stuck_worker_need_not_say_that_it_does_not_have_the_recipient(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    while host.workers["0"].arrive("1"):
        pass
    while host.workers["1"].arrive("0"):
        pass
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 1}
    alice.say(type="ack", key=only(alice)["key"])
    host.settle()
    assert only(bob)["type"] == "delivered"
    host.kill("2")
    assert bob.heard() == []


def test_a_message_that_fills_the_queue_is_still_one_that_was_sent(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    host.settle()
    wire = host.workers["0"].incoming["1"]
    wire.send_also = lambda: setattr(wire, "queued", MAX_QUEUED_BYTES + 1)
    bob.say(id=1, recipient_uuid="alice", message=1)
    host.settle()
    assert only(bob)["online"] == 1
    assert only(alice)["message"] == 1


def test_a_receipt_names_the_member_as_others_know_it_by_now(host: Host) -> None:
    alice, bob = host.workers["0"].v1(), host.workers["1"].v1("bob")
    alice.say(type="hello", id=1)
    alice.say(type="join", id=2, group="g")
    alice.say(type="hello", id=3, uuid="alice")
    alice.heard()
    host.settle()
    bob.say(id=7, group="g", message=1, ack="delivered")
    host.settle()
    alice.say(type="ack", key=only(alice)["key"])
    host.settle()
    ok, delivered = bob.heard()
    assert (ok["receipts"], delivered) == (1, {"type": "delivered", "id": 7, "recipient_uuid": "alice"})


def test_of_a_member_that_leaves_before_the_message_comes_it_is_told_lost(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    alice.say(type="join", id=1, group="g")
    host.settle()
    alice.say(type="leave", id=2, group="g")
    bob.say(id=7, group="g", message=1, ack="delivered")
    host.settle()
    ok, lost = bob.heard()
    assert (ok["receipts"], lost) == (1, {"type": "lost", "id": 7, "recipient_uuid": "alice"})
    assert "msg" not in [frame["type"] for frame in alice.heard()]


def test_a_recipient_that_cannot_confirm_any_more_is_not_counted(host: Host) -> None:
    alice, bob = host.workers["0"].v1("alice"), host.workers["1"].v1("bob")
    host.settle()
    alice.session.end()
    old = host.workers["0"].v0()
    old.register("alice")
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    host.settle()
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 0}
    assert only(old)["message"] == 1


addresses = st.sampled_from(["a", "b"])
numbers = st.sampled_from("012")


class BusModel(RuleBasedStateMachine):
    """Clients come, claim, send and go in three workers; records arrive late, workers die and come back.

    Whatever has happened: when all has arrived, the workers agree about every address.
    """

    @initialize()
    def start(self) -> None:
        self.host = Host(3)
        self.parties: list[tuple[str, Party]] = []
        self.sent = 0

    @rule(number=numbers, is_v1=st.booleans())
    def connect(self, number: str, is_v1: bool) -> None:
        worker = self.host.workers.get(number)
        if worker is not None and len(self.parties) < 8:
            party = worker.v1() if is_v1 else worker.v0()
            if is_v1:
                party.say(type="hello", id=0)
            self.parties.append((number, party))

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), address=addresses)
    def claim(self, data: st.DataObject, address: str) -> None:
        number, party = data.draw(st.sampled_from(self.parties))
        self.host.workers[number].time += 1e-3
        if party.session.protocol == "v0":
            party.register(address)
        else:
            party.say(type="hello", id=1, uuid=address)

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), address=addresses)
    def send(self, data: st.DataObject, address: str) -> None:
        _, party = data.draw(st.sampled_from(self.parties))
        party.say(id=2, recipient_uuid=address, message=self.sent, ack="delivered")
        self.sent += 1

    @precondition(lambda self: self.parties)
    @rule(data=st.data(), alive=st.booleans())
    def probe_ends(self, data: st.DataObject, alive: bool) -> None:
        _, party = data.draw(st.sampled_from(self.parties))
        if party.client.probes:
            party.answer_probe(alive)
        self._forget_the_gone()

    @precondition(lambda self: self.parties)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, party = data.draw(st.sampled_from(self.parties))
        party.session.end()
        self._forget_the_gone()

    @rule(receiver=numbers, sender=numbers, times=st.integers(1, 5))
    def arrive(self, receiver: str, sender: str, times: int) -> None:
        worker = self.host.workers.get(receiver)
        for _ in range(times):
            if worker is not None and sender in worker.peers:
                worker.arrive(sender)
        self._forget_the_gone()

    @rule(number=numbers)
    def die_or_come_back(self, number: str) -> None:
        if number in self.host.workers:
            self.host.kill(number)
            self.parties = [(at, party) for at, party in self.parties if at != number]
        else:
            self.host.add(number)
        self._forget_the_gone()

    @rule()
    def everything_arrives(self) -> None:
        for _ in range(20):
            self.host.settle()
            self._forget_the_gone()
            self._answer_probes()
        self._workers_agree()
        self._messages_arrive()

    def _forget_the_gone(self) -> None:
        for _, party in self.parties:
            if party.client.closed:
                party.session.end()
        self.parties = [
            (number, party)
            for number, party in self.parties
            if party.session in self.host.workers[number].center.hub.members
        ]

    def _answer_probes(self) -> None:
        for _, party in self.parties:
            while party.client.probes:
                party.answer_probe(alive=True)

    def _owner(self, address: str) -> tuple[str, Owner] | None:
        """The one worker whose client has an address, and the client."""
        owners = [
            (number, party.session) for number, party in self.parties if Address(address) in party.session.addresses
        ]
        assert len(owners) <= 1, f"{address} has {len(owners)} owners"
        return owners[0] if owners else None

    def _workers_agree(self) -> None:
        for address in ("a", "b"):
            owner = self._owner(address)
            for number, worker in self.host.workers.items():
                known = worker.center.hub.owner_of(Address(address))
                if owner is None:
                    assert known is None
                elif owner[0] == number:
                    assert known is owner[1]
                else:
                    assert known is worker.peers[owner[0]]

    def _messages_arrive(self) -> None:
        for _, party in self.parties:
            party.heard() if party.session.protocol != "v0" else party.client.sent.clear()
        for worker in self.host.workers.values():
            for address in ("a", "b"):
                self.sent += 1
                worker.v0().say(recipient_uuid=address, message=f"#{self.sent}")
                self.host.settle()
                owner = self._owner(address)
                for _, party in self.parties:
                    heard = [frame["message"] for frame in party.heard()]
                    expected = owner is not None and party.session is owner[1]
                    assert heard == ([f"#{self.sent}"] if expected else [])


TestBusModel = pytest.mark.slow(BusModel.TestCase)
TestBusModel.settings = settings(
    deadline=None,
    database=None,
    max_examples=60 * EXAMPLES,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)


def asked(host: Host, number: str) -> dict[str, bytes]:
    """What the others answer when this worker asks how they are."""
    answers: dict[str, bytes] = {}
    assert host.workers[number].bus.ask_all(answers.__setitem__) == len(host.workers) - 1
    host.settle()
    return answers


def test_each_worker_tells_what_it_has_counted(host: Host) -> None:
    host.workers["1"].center.hub.tally.routed = 5
    answers = asked(host, "0")
    routed = {number: msgspec.msgpack.decode(each, type=Standing).tally.routed for number, each in answers.items()}
    assert routed == {"1": 5, "2": 0}
    # Whoever is asked next knows no less.
    assert host.workers["2"].bus.known == {"1": answers["1"]}


def test_a_worker_that_dies_before_it_tells_what_it_has_counted_is_not_waited_for(host: Host) -> None:
    answers: dict[str, bytes] = {}
    host.workers["0"].bus.ask_all(answers.__setitem__)
    host.kill("1")
    host.settle()
    assert answers["1"] == b""


def counted(host: Host) -> Tally:
    """By all workers that are there, and those before."""
    return together([worker.center.standing() for worker in host.workers.values()]).tally


@pytest.mark.parametrize("says_so", [True, False])
def test_what_a_worker_has_counted_outlives_it(says_so: bool, host: Host) -> None:
    """Once: the youngest of the others has it."""
    gone = host.workers["0"]
    gone.center.hub.tally.routed = 5
    gone.center.hub.tally.refused[503] = 2
    if says_so:
        gone.bus.tell_standing(gone.center.standing())
        host.settle()
    else:  # it is killed: what was shown is kept
        asked(host, "1")
        gone.center.hub.tally.routed = 6
    host.kill("0")
    standings = [worker.center.standing() for worker in host.workers.values()]
    assert [standing.inherited.routed for standing in standings] == [0, 5]
    assert standings[1].inherited.refused == {503: 2}
    assert counted(host).routed == 5
    assert [standing.tally.routed for standing in standings] == [0, 0]
    assert "5 routed" in host.workers["2"].center.status()
    # And what that one had goes on as well.
    asked(host, "1")
    host.kill("2")
    assert counted(host).routed == 5


def test_a_worker_tells_what_it_has_counted_whenever_that_is_new(host: Host) -> None:
    """So if it is killed, no more is lost than what it has counted since."""
    worker, records = host.workers["0"], host.workers["1"].incoming["0"].records
    worker.bus.tell_what_is_new()
    host.settle()
    worker.bus.tell_what_is_new()
    assert not records
    worker.center.hub.tally.dropped["nobody"] = 5  # in a table, which is the same one all the time
    worker.bus.tell_what_is_new()
    worker.center.hub.tally.dropped["nobody"] = 6
    host.kill("0")
    assert counted(host).dropped["nobody"] == 5


def test_a_worker_tells_those_who_come_or_stay_who_goes_on_with_what_it_has_counted(host: Host) -> None:
    worker = host.workers["0"]
    worker.center.hub.tally.routed = 5
    worker.bus.tell_what_is_new()
    host.settle()
    host.add("3")
    worker.bus.tell_what_is_new()
    host.settle()
    host.kill("0")
    assert [each.center.standing().inherited.routed for each in host.workers.values()] == [0, 0, 5]


def test_a_worker_that_does_not_answer_is_asked_again_only_when_it_has(host: Host) -> None:
    answers: dict[str, bytes] = {}
    bus, ask = host.workers["0"].bus, answers.__setitem__
    assert bus.ask_all(ask) == 2
    host.workers["1"].arrive("0")
    host.workers["0"].arrive("1")
    assert bus.ask_all(ask) == 2  # "2" has time left
    host.workers["0"].time += PATIENCE_S
    host.workers["1"].arrive("0")
    host.workers["0"].arrive("1")
    assert bus.ask_all(ask) == 1
    host.settle()
    assert bus.ask_all(ask) == 2


def test_if_the_heir_is_gone_as_well_one_of_the_others_goes_on(host: Host) -> None:
    host.workers["0"].center.hub.tally.routed = 5
    host.workers["2"].center.hub.tally.routed = 3
    asked(host, "1")
    host.kill("2")
    host.kill("0")
    assert counted(host).routed == 8


def test_the_last_worker_has_nobody_to_leave_anything_to() -> None:
    worker = Host(1).workers["0"]
    worker.bus.tell_standing(worker.center.standing())
