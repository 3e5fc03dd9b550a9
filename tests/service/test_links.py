"""Hosts are one notification center over an engine that loses, holds up and mixes what it likes."""

from collections import Counter
from typing import Any

import msgspec
import pytest

import service.core.bus_records as records
from service.core import drops
from service.core.addresses import Address
from service.core.bus import PORTION
from service.core.close_codes import GIVEN_TWICE
from service.core.peer import MAX_QUEUED_BYTES
from service.engine.envelope import MAX_BYTES, VERSIONS, Batch, Beat, Bye, Greeting, Shared, Taken, decode, encode
from service.engine.link import ACK_BYTES
from service.engine.links import EXPECTED_S, MISSED_S, SEEKS_PER_SECOND, STRANGE_BEATS
from tests.service.centers import Party
from tests.service.engines import SILENCE_S, FakeEngine, HostOfOne, hosts
from tests.service.workers import FakeWire


def only(party: Party) -> Any:
    (frame,) = party.heard()
    return frame


def test_a_message_reaches_a_client_of_another_host_and_is_confirmed() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message="hi", ack="delivered")
    engine.settle()
    heard = only(bob)
    assert (heard["sender_uuid"], heard["message"]) == ("alice", "hi")
    bob.say(type="ack", key=heard["key"])
    engine.settle()
    assert [frame["type"] for frame in alice.heard()] == ["ok", "delivered"]


def test_a_message_to_a_group_reaches_its_members_on_every_host() -> None:
    engine, all_hosts = hosts(3)
    members = [host.v1(f"client {number}") for number, host in enumerate(all_hosts)]
    for member in members:
        member.say(type="join", id=1, group="g")
    engine.settle()
    for member in members:
        member.heard()
    members[0].say(type="send", id=2, group="g", message=1, ack="accepted")
    engine.settle()
    assert only(members[0])["online"] == 2
    assert [only(member)["message"] for member in members[1:]] == [1, 1]


def test_who_watches_hears_of_clients_of_other_hosts() -> None:
    engine, (here, there) = hosts(2)
    alice = here.v1("alice")
    alice.say(type="presence", id=1, uuids=["bob"], watch=True)
    bob = there.v1("bob")
    engine.settle()
    bob.session.end()
    engine.settle()
    assert [frame["state"] for frame in alice.heard() if frame["type"] == "presence"] == ["online", "offline"]


def test_a_host_that_comes_later_is_told_all() -> None:
    engine, (here,) = hosts(1)
    bob = here.v1("bob")
    bob.say(type="join", id=1, group="g")
    bob.heard()
    there = HostOfOne(engine, "z")
    engine.settle()
    assert there.links.is_complete
    alice = there.v1("alice")
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    alice.say(type="send", id=2, group="g", message=2)
    engine.settle()
    assert [frame["message"] for frame in bob.heard()] == [1, 2]
    alice.say(type="hello", id=3, uuid="bob")
    engine.settle()
    bob.answer_probe(alive=True)
    engine.settle()
    assert [frame.get("code") for frame in alice.heard()][-1] == 113


def test_records_of_one_turn_leave_in_one_message() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    for number in range(10):
        alice.say(type="send", id=number, recipient_uuid="bob", message=1)
    here.turns()
    assert engine.kinds() == ["Batch"]


def test_no_message_is_longer_than_every_engine_counts_unless_one_record_is() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    for size in (9_000, 9_000, 60_000, 10):
        alice.say(type="send", id=size, recipient_uuid="bob", message="x" * size)
    here.turns()
    batches = [decode(data) for _, data in engine.messages]
    assert [len(batch.records) for batch in batches if isinstance(batch, Batch)] == [1, 1, 1, 1]
    assert all(sum(map(len, batch.records)) < MAX_BYTES or len(batch.records) == 1 for batch in batches)
    engine.settle()
    assert len(bob.heard()) == 4


def test_a_host_that_we_have_given_up_does_not_deliver_what_we_look_for() -> None:
    engine, (here, there, _) = hosts(3)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    engine.is_down = True
    here.links._end(here.links._links["b.7.1"], "silence")  # and it does not hear that
    engine.is_down = False
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    here.turns()
    engine.messages.rotate(-sum(kind != "Shared" for kind in engine.kinds()))
    engine.pass_on()
    engine.settle()
    assert (only(alice)["code"], bob.heard()) == (117, [])


@pytest.mark.parametrize("lost", ["Batch", "Shared"])
def test_what_the_engine_loses_is_never_taken_for_delivered(lost: str) -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    if lost == "Batch":
        alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    else:
        alice.say(type="send", id=1, recipient_uuid="nobody has it", message=1)
    here.turns()
    assert engine.kinds() == [lost]
    engine.messages.clear()
    assert alice.heard() == []
    engine.passes(1)  # the next beat tells
    assert only(alice)["code"] == 116
    assert there.center.hub.tally.link_ends == {"gap": 1}
    alice.say(type="send", id=2, recipient_uuid="bob", message=2)
    engine.settle()
    assert only(bob)["message"] == 2


def test_what_is_behind_a_lost_message_is_not_acted_on() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    for number in (1, 2):
        alice.say(type="send", id=number, recipient_uuid="bob", message=number)
        here.turns()
    engine.messages.popleft()
    engine.settle()
    assert bob.heard() == []
    assert [frame["code"] for frame in alice.heard()] == [116, 116]


def test_a_client_that_has_left_while_the_engine_was_away_is_not_there_any_more() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    engine.is_down = True
    bob.session.end()
    engine.settle()
    engine.is_down = False
    engine.passes(1)
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    engine.settle()
    assert only(alice)["code"] == 114


def test_a_short_absence_of_the_engine_costs_only_time() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    for _ in range(6):  # it takes all, and passes nothing on
        for host in (here, there):
            host.time += 0.5
            host.links.tick()
            host.turns()
    engine.settle()
    assert only(bob)["message"] == 1
    assert only(alice)["type"] == "ok"
    assert not here.center.hub.tally.link_ends


def test_after_a_silence_each_host_goes_on_alone_and_says_so() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    carol = here.v1("carol")
    engine.settle()
    engine.is_down = True
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    engine.passes(SILENCE_S + 1)
    assert (here.links.state, only(alice)["code"]) == ("alone", 116)
    assert here.links.is_deaf
    alice.say(type="send", id=2, recipient_uuid="bob", message=1)
    alice.say(type="send", id=3, recipient_uuid="carol", message=1)
    here.turns()
    assert [frame.get("code") for frame in alice.heard()] == [117, None]
    assert only(carol)["message"] == 1
    assert here.dropped(drops.CUT_OFF) == 1


def test_both_go_on_when_the_engine_is_back() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    engine.is_down = True
    engine.passes(10)
    engine.is_down = False
    engine.passes(1)
    assert (here.links.state, here.links.is_cut_off) == ("up", False)
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    engine.settle()
    assert only(bob)["message"] == 1


@pytest.mark.parametrize("to", [{"recipient_uuid": "bob"}, {"group": "g"}])
def test_what_is_confirmed_after_it_was_told_to_be_lost_is_not_told_again(to: dict[str, str]) -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    bob.say(type="join", id=1, group="g")
    engine.settle()
    bob.heard()
    alice.say(type="send", id=1, message=1, ack="delivered", **to)
    engine.settle()
    key = only(bob)["key"]
    assert only(alice)["type"] == "ok"
    engine.is_down = True
    engine.passes(10)
    assert only(alice)["type"] == "lost"
    engine.is_down = False
    engine.passes(1)
    bob.say(type="ack", key=key)
    engine.settle()
    assert (here.links.state, alice.heard()) == ("up", [])


def test_a_host_that_has_not_heard_that_the_other_one_has_met_it_is_told_again() -> None:
    engine = FakeEngine()
    here, there = HostOfOne(engine, "a"), HostOfOne(engine, "b")
    while not (here.links.up or there.links.up):
        for host in (here, there):
            host.turns()
        engine.pass_on()
    engine.messages.clear()
    assert not (here.links.up and there.links.up)
    engine.passes(1)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    bob.say(type="send", id=1, recipient_uuid="alice", message=1)
    engine.settle()
    assert [sorted(frame["type"] for frame in party.heard()) for party in (alice, bob)] == [["msg", "ok"]] * 2


def test_what_a_host_says_to_all_counts_when_it_has_met_us_as_well() -> None:
    engine = FakeEngine()
    here, there = HostOfOne(engine, "a"), HostOfOne(engine, "b")
    while not (here.links.up or there.links.up):
        for host in (here, there):
            host.turns()
        engine.pass_on()
    first, second = (here, there) if here.links.up else (there, here)
    second.v1("bob")
    second.turns()
    _, shared = engine.messages.pop()
    first.links.hear(shared)
    assert not second.links.up
    assert first.center.hub.owner_of(Address("bob")) is None
    engine.settle()
    assert first.center.hub.owner_of(Address("bob")) is not None
    assert not first.center.hub.tally.link_ends


def test_what_hosts_of_the_release_before_say_to_all_counts_when_they_have_told_what_they_have() -> None:
    engine = FakeEngine()
    publish = engine.publish

    def publish_as_before(channel: str | None, data: bytes) -> None:
        if not isinstance(decode(data), Taken):
            publish(channel, data)

    engine.publish = publish_as_before  # type: ignore[method-assign]
    first, *others = [HostOfOne(engine, name) for name in "abcde"]
    engine.settle()
    first.v1("bob")
    engine.settle()
    assert all(other.center.hub.owner_of(Address("bob")) for other in others)


def test_what_clients_of_other_hosts_have_not_confirmed_when_a_process_ends_is_lost() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1, ack="delivered")
    engine.settle()
    here.bus.lose_abroad()
    assert [frame["type"] for frame in alice.heard()] == ["ok", "lost"]
    bob.say(type="ack", key=only(bob)["key"])
    engine.settle()
    assert alice.heard() == []


def test_before_the_engine_was_ever_there_nobody_is_known_not_to_be() -> None:
    engine = FakeEngine()
    engine.is_down = True
    host = HostOfOne(engine, "a")
    alice = host.v1("alice")
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    host.turns()
    assert (host.links.state, only(alice)["code"]) == ("never", 117)


def test_after_a_split_the_earlier_owner_keeps_an_address() -> None:
    engine, (here, there) = hosts(2)
    engine.is_down = True
    engine.passes(5)
    first = here.v1("bob")
    engine.passes(1)
    second = there.v1("bob")
    engine.is_down = False
    engine.passes(1.5)
    assert (first.client.closed, second.client.closed) == ([], [GIVEN_TWICE])
    alice = there.v1("alice")
    alice.say(type="send", id=1, recipient_uuid="bob", message=1)
    engine.settle()
    assert only(first)["message"] == 1


def test_the_clocks_of_two_hosts_need_not_have_begun_at_the_same_time() -> None:
    engine, (here, there) = hosts(2)
    there.time += 1_000_000.0  # of the host, which says nothing of when it is
    there.clock_is_ahead = -1_000_000.0
    engine.is_down = True
    engine.passes(5)
    second_host_first = there.v1("bob")
    engine.passes(1)
    later = here.v1("bob")
    engine.is_down = False
    engine.passes(1.5)
    assert (second_host_first.client.closed, later.client.closed) == ([], [GIVEN_TWICE])


def test_a_worker_that_says_goodbye_is_not_missed() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1, ack="delivered")
    engine.settle()
    there.links.leave()
    engine.settle()
    assert [frame["type"] for frame in alice.heard()] == ["ok", "lost"]
    alice.say(type="send", id=2, recipient_uuid="bob", message=1)
    engine.settle()
    assert only(alice)["code"] == 114


def test_a_host_that_went_without_a_word_is_missed_for_a_while() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    del engine.hosts["b.7"]
    engine.passes(SILENCE_S + 1)
    assert here.links.is_cut_off
    engine.passes(MISSED_S + 1, step_s=10)
    assert not here.links.is_cut_off
    alice.say(type="send", id=2, recipient_uuid="bob", message=1)
    engine.settle()
    assert only(alice)["code"] == 114


@pytest.mark.parametrize("pid", ["8", "7"])  # in a container each may be 1
def test_the_worker_that_takes_the_place_of_a_killed_one_ends_its_links_at_once(pid: str) -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1, ack="delivered")
    engine.settle()
    del engine.hosts["b.7"]
    HostOfOne(engine, "b", pid=pid, random="next")
    engine.settle()
    assert [frame["type"] for frame in alice.heard()] == ["ok", "lost"]
    assert not here.links.is_cut_off


def test_the_first_beat_of_a_worker_that_comes_late_ends_no_link_to_one_that_has_started_since() -> None:
    engine, (here, there) = hosts(2)
    engine.passes(1)
    for at_s, ends in ((-0.5, {}), (0.5, {"bye": 1})):
        here.links.hear(encode(Beat("b.8.x", "b", "boot", VERSIONS, SILENCE_S, 0, there.time + at_s, {}, ["8"])))
        assert here.center.hub.tally.link_ends == ends


def test_a_host_that_was_missed_is_not_when_its_next_worker_has_come() -> None:
    engine, (here, _) = hosts(2)
    del engine.hosts["b.7"]
    engine.passes(SILENCE_S + 1)
    assert here.links.is_cut_off
    HostOfOne(engine, "b", pid="8")
    engine.settle()
    assert not here.links.is_cut_off


def test_the_others_of_a_host_say_goodbye_for_one_that_was_killed() -> None:
    engine, (here, killed) = hosts(2)
    survivor = HostOfOne(engine, "b", pid="8")
    survivor_to_killed = survivor.bus.meet("7", type("Wire", (), {"queued": 0, "send": lambda *_: None})())
    engine.passes(1)
    alice, _ = here.v1("alice"), killed.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1, ack="delivered")
    engine.settle()
    del engine.hosts["b.7"]
    survivor.bus.part(survivor_to_killed)
    engine.settle()
    assert [frame["type"] for frame in alice.heard()] == ["ok", "lost"]
    assert not here.links.is_cut_off


def test_workers_of_one_host_do_not_link_over_the_engine() -> None:
    engine, (here,) = hosts(1)
    HostOfOne(engine, "a", pid="8")
    engine.settle()
    assert not here.links.up


def test_two_machines_with_one_name_are_told_apart() -> None:
    engine, (here,) = hosts(1)
    HostOfOne(engine, "a", pid="8", boot="another")
    engine.settle()
    assert here.links.conflict
    assert "engine.host" in here.teller.told[0]
    engine.passes(10)
    assert len(here.teller.told) == 1


def test_each_machine_that_takes_our_name_is_told_once_also_after_another_one_has_gone() -> None:
    engine, (here,) = hosts(1)
    for boot in ("another", "a third"):
        for pid in ("8", "9"):
            machine = HostOfOne(engine, "a", pid=pid, boot=boot)
            engine.settle()
            machine.links.leave()
            engine.settle()
            del engine.hosts[f"a.{pid}"]
    assert len(here.teller.told) == 2


def test_workers_of_one_host_know_each_other_though_one_cannot_say_which_start_of_it_this_is() -> None:
    engine, (here,) = hosts(1)
    HostOfOne(engine, "a", pid="8", boot="")
    here.bus.meet("8", FakeWire())
    engine.settle()
    engine.passes(STRANGE_BEATS)
    assert not here.links.conflict


def test_two_machines_with_one_name_are_told_apart_where_they_cannot_say_which_they_are() -> None:
    engine, (here,) = hosts(1)
    HostOfOne(engine, "a", pid="8")
    engine.passes(0.5 * STRANGE_BEATS - 1)
    assert not here.links.conflict
    engine.passes(2)
    assert here.links.conflict


def test_acknowledgements_bound_what_is_on_its_way() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    text = "x" * 60_000
    there.is_deaf = True
    for number in range(MAX_QUEUED_BYTES // len(text) + 5):
        here.center.hub.owner_of(Address("bob"))
        alice.session._messages_left = alice.session._bytes_left = 1e9
        alice.say(type="send", id=number, recipient_uuid="bob", message=text)
        here.turns()
    assert here.dropped(drops.BUS_FULL) > 0
    assert here.links.unacknowledged > MAX_QUEUED_BYTES


def test_what_was_taken_is_acknowledged_before_much_is_on_its_way() -> None:
    engine, (here, there) = hosts(2)
    alice, _ = here.v1("alice"), there.v1("bob")
    engine.settle()
    for _ in range(2 * ACK_BYTES // 60_000):
        alice.session._messages_left = alice.session._bytes_left = 1e9
        alice.say(type="send", recipient_uuid="bob", message="x" * 60_000)
        engine.settle()
    assert here.links.unacknowledged < ACK_BYTES + 60_100
    engine.passes(1)
    assert here.links.unacknowledged == 0


def test_an_answer_to_what_came_before_a_link_ended_does_not_wait_for_an_acknowledgement() -> None:
    engine, (here, there) = hosts(2)
    alice, bob = here.v1("alice"), there.v1("bob")
    engine.settle()
    alice.say(type="send", id=1, recipient_uuid="bob", message=1, ack="delivered")
    engine.settle()
    (link,) = here.links.up
    link.send(msgspec.msgpack.encode([2, None]))  # no record
    here.turns()
    while there.links.up:
        engine.pass_on()
    bob.say(type="ack", key=only(bob)["key"])
    there.turns()
    engine.settle()
    assert there.links.up
    engine.passes(2)
    assert there.links.unacknowledged == 0


def test_an_address_that_nobody_has_is_looked_for_on_other_hosts_so_often() -> None:
    engine, (here, _) = hosts(2)
    alice = here.v1("alice")
    engine.settle()
    for number in range(SEEKS_PER_SECOND + 10):
        alice.say(type="send", id=number, recipient_uuid="nobody", message=1)
    here.turns()
    assert engine.kinds().count("Shared") == SEEKS_PER_SECOND
    engine.settle()
    assert {frame["code"] for frame in alice.heard()} == {114}


def test_before_a_worker_has_told_whom_it_has_none_of_them_is_taken_to_be_offline() -> None:
    engine, (here, there) = hosts(2)
    alice, clients = here.v1("alice"), [there.v1(f"client {number}") for number in range(PORTION)]
    engine.settle()
    there.links.hear(encode(Shared(here.links.me.name, 10**6, [])))  # a gap, as when the engine was restarted
    while not here.links.up or here.links.is_complete:
        engine.pass_on() if engine.messages else [host.turns() for host in (here, there)]
    for number, _ in enumerate(clients):
        alice.say(type="send", id=number, recipient_uuid=f"client {number}", message=1)
    while not here.links.is_complete:
        engine.pass_on() if engine.messages else [host.turns() for host in (here, there)]
    engine.settle()
    told = Counter(frame.get("code", frame["type"]) for frame in alice.heard())
    assert sum(told.values()) == len(clients)
    assert told.keys() == {"ok", 117}


def test_one_that_is_expected_is_waited_for_until_it_has_told_whom_it_has() -> None:
    engine, (_, there) = hosts(2)
    bob = there.v1("bob")
    bob.say(type="join", id=1, group="all")
    there.is_deaf = True
    successor = HostOfOne(engine, "a", pid="8")
    successor.links.expect([there.links.me.name])
    engine.passes(EXPECTED_S - 0.5)
    assert successor.links.state == "up"
    assert not successor.links.is_complete
    there.is_deaf = False
    engine.passes(0.5)
    assert successor.links.is_complete
    alice = successor.v1("alice")
    alice.say(type="send", id=2, group="all", message="hi")
    engine.settle()
    assert bob.heard()[-1]["message"] == "hi"


def test_one_that_is_expected_and_has_gone_is_not_waited_for_any_longer() -> None:
    engine, (here,) = hosts(1)
    here.links.expect(["b.7.1"])
    assert not here.links.is_complete
    engine.passes(EXPECTED_S + 1)
    assert here.links.is_complete
    assert not here.links.is_cut_off


def test_to_many_all_is_told_once() -> None:
    engine, all_hosts = hosts(5)
    for number in range(PORTION + 10):
        all_hosts[0].v1(f"client {number}")
    engine.settle()
    for host in all_hosts[1:]:
        host.links.hear(encode(Shared(all_hosts[0].links.me.name, 10**6, [])))  # a gap
    said = 0
    while engine.messages or sum(host.turns() for host in all_hosts):
        while engine.messages:
            said += isinstance(decode(engine.messages[0][1]), Shared)
            engine.pass_on()
    assert all(host.links.is_complete for host in all_hosts)
    assert 0 < said < 20
    for host in all_hosts[1:]:
        assert len(host.bus.peers["a.7.0"].owned) == 2 * (PORTION + 10)


def test_a_large_worker_is_told_of_and_forgotten_in_portions() -> None:
    engine, (here,) = hosts(1)
    for number in range(3 * PORTION):
        here.v1(f"client {number}")
    there = HostOfOne(engine, "z")
    while not there.links.up:
        engine.pass_on() if engine.messages else [host.turns() for host in (here, there)]
    engine.settle()
    (peer,) = there.bus.peers.values()
    assert len(peer.owned) == 6 * PORTION
    alice = there.v1("alice")
    there.bus.part(peer)
    assert len(peer.owned) > 0
    alice.say(type="send", id=1, recipient_uuid="client 700", message=1)
    assert only(alice)["code"] in (114, 117)  # not for ever without an answer
    there.turns()
    assert (len(peer.owned), len(peer.client_addresses)) == (0, 0)


def test_a_record_that_only_a_later_release_knows_is_skipped() -> None:
    engine, (here, there) = hosts(2)
    alice = here.v1("alice")
    engine.settle()
    (link,) = there.links.up
    unknown = msgspec.msgpack.encode([99, "what", {"ever": 1}])
    known = records.encode(records.Text(b'{"recipient_uuid": "alice", "message": 1}', Address("bob"), 0))
    link.send(unknown)
    link.send(known)
    engine.settle()
    assert only(alice)["message"] == 1
    assert not here.center.hub.tally.link_ends


def test_an_envelope_that_only_a_later_release_knows_is_skipped() -> None:
    _, (here, _) = hosts(2)
    here.links.hear(msgspec.msgpack.encode([99, "b.7.1", {}]))
    here.links.hear(b"\xc1")
    here.links.hear(encode(Bye("x")).replace(b"x", b"\xff"))
    assert not here.center.hub.tally.link_ends


@pytest.mark.parametrize("record", [msgspec.msgpack.encode([2, None]), b"\x92\x02\xa1\xff"])
def test_what_is_no_record_ends_the_link_and_nothing_else(record: bytes) -> None:
    engine, (here, there) = hosts(2)
    (link,) = there.links.up
    link.send(record)
    engine.settle()
    assert here.center.hub.tally.link_ends == {"garbage": 1}
    assert "does not understand" in here.teller.told[0]
    assert here.links.up


def test_a_host_that_speaks_no_common_version_is_told_of_once() -> None:
    _, (here, _) = hosts(2)
    beat = Beat("c.1.1", "c", "boot", (VERSIONS[1] + 1, VERSIONS[1] + 2), 4.0, 0, 0.0, {})
    for _ in range(3):
        here.links.hear(encode(beat))
    assert len(here.links.up) == 1
    assert len(here.teller.told) == 1
    assert f"versions {VERSIONS[1] + 1} to {VERSIONS[1] + 2}" in here.teller.told[0]


# What the first release of this wire has published: each later one must understand it.
@pytest.mark.parametrize(
    ("envelope", "published"),
    [
        (
            Beat("b.7.1", "b", "boot", (1, 1), 4.0, 3, 1.5, {"a.7.0": (5, 6, 7, 8)}),
            "9a01a5622e372e31a162a4626f6f74920101cb401000000000000003cb3ff800000000000081a5612e372e309405060708c0",
        ),
        (Greeting("b.7.1", "b", (1, 1), 4.0, 5, 6, 7), "9802a5622e372e31a162920101cb4010000000000000050607"),
        (Batch("b.7.1", 5, 6, 7, 8, [b"r"]), "9703a5622e372e310506070891c40172"),
        (Taken("b.7.1", 5, 6, 8), "9504a5622e372e31050608"),
        (Shared("b.7.1", 7, [b"r"]), "9505a5622e372e310791c40172c0"),
        (Bye("b.7.1"), "9206a5622e372e31"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_earlier_releases_publish_is_understood(envelope: Any, published: str) -> None:
    assert decode(bytes.fromhex(published)) == envelope


def test_hosts_that_wait_for_different_times_say_so_once_for_each_difference() -> None:
    engine = FakeEngine()
    here, there = HostOfOne(engine, "a"), HostOfOne(engine, "b", silence=6.0)
    same = HostOfOne(engine, "c")
    engine.settle()
    engine.passes(3.0)
    assert [said.partition(";")[0] for said in here.teller.told] == ["host b has engine.silence 6, and this one 4"]
    assert len(there.teller.told) == 2
    there.links.silence = 5.0
    engine.passes(3.0)
    assert [said.partition(";")[0] for said in same.teller.told] == [
        "host b has engine.silence 6, and this one 4",
        "host b has engine.silence 5, and this one 4",
    ]
