"""What other hosts keep for clients whose host restarts, and for how long."""

import pytest

import service.core.bus_records as records
from service.core import drops
from service.core.addresses import Address
from service.core.restarts import AWAY_S, MAX_KEPT_BYTES
from service.engine import links
from service.engine.envelope import RESTARTS
from tests.service.centers import Party
from tests.service.engines import SILENCE_S, FakeEngine, HostOfOne, hosts
from tests.service.workers import FakeWire

ALICE = Address("alice")


def leave(here: HostOfOne, *parties: Party, engine: FakeEngine) -> list[bool]:
    """These clients leave for another process, which does not come yet. Returns: whether all have answered."""
    answered: list[bool] = []
    here.bus.announce_restart([party.session for party in parties], lambda: answered.append(True))
    engine.settle()
    here.bus.lose_abroad()
    for party in parties:
        party.session.leave()
    here.bus.confirm_restart([])
    end(here, engine)
    return answered


def end(here: HostOfOne, engine: FakeEngine) -> None:
    """It ends, and says so."""
    here.links.leave()
    engine.settle()
    del engine.hosts["a.7"]


def watched(there: HostOfOne, uuid: str) -> Party:
    """A client that watches an address."""
    party = there.v1("watcher")
    party.say(type="presence", id=0, uuids=[uuid], watch=True)
    assert party.heard()[0]["online"] == [uuid]
    return party


def alice_and_who_watches_her() -> tuple[FakeEngine, HostOfOne, Party, Party]:
    """On two hosts."""
    engine, (here, there) = hosts(2)
    alice = here.v1("alice")
    engine.settle()
    return engine, here, alice, watched(there, "alice")


def test_when_nobody_comes_back_clients_are_gone_after_a_while_and_it_is_told() -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    bob.say(type="send", id=1, recipient_uuid="alice", message=1, ack="delivered")
    engine.settle()
    assert bob.heard() == [{"type": "ok", "id": 1, "online": 1, "receipts": 1}]
    assert leave(here, alice, engine=engine) == [True]
    bob.say(type="send", id=2, recipient_uuid="alice", message=2, ack="accepted")
    there = engine.hosts["b.7"]
    there.passes(AWAY_S - 1)
    assert bob.heard() == []
    there.passes(1)
    assert [(frame["type"], frame.get("id"), frame.get("code")) for frame in bob.heard()] == [
        ("lost", 1, None),
        ("presence", None, None),
        ("error", 2, 116),
    ]
    assert there.center.hub.owner_of("alice") is None  # type: ignore[arg-type]
    assert not there.bus.restarts._restarts


def test_more_clients_than_go_in_one_portion_are_gone_all_the_same() -> None:
    engine, (here, there) = hosts(2)
    parties = [here.v1(f"client {number}") for number in range(600)]
    engine.settle()
    leave(here, *parties, engine=engine)
    assert len(there.bus.restarts._away) == 600
    there.passes(AWAY_S)
    there.turns()
    assert not there.bus.restarts._away
    assert not there.bus.restarts._restarts
    assert there.center.hub.owner_of("client 599") is None  # type: ignore[arg-type]


def test_a_worker_that_ends_before_its_clients_have_left_has_lost_them() -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    here.bus.announce_restart([alice.session], lambda: None)
    engine.settle()
    assert bob.heard() == []
    end(here, engine)
    assert [frame["state"] for frame in bob.heard()] == ["offline"]


@pytest.mark.parametrize("what", ["a message", "who leaves"])
def test_a_worker_that_has_missed_something_does_not_say_that_it_has_all(what: str) -> None:
    engine, here, alice, _ = alice_and_who_watches_her()
    engine.settle()
    if what == "a message":
        alice.say(type="send", id=1, recipient_uuid="watcher", message=1, ack="delivered")
        here.turns()
        assert engine.kinds() == ["Batch"]
        engine.messages.clear()
    answered: list[bool] = []
    here.bus.announce_restart([alice.session], lambda: answered.append(True))
    here.turns()
    if what == "who leaves":
        assert engine.kinds() == ["Shared", "Batch"]
        engine.messages.popleft()
    engine.settle()
    assert not here.bus.restarts.followers
    engine.passes(SILENCE_S)
    if what == "a message":
        assert [(frame["type"], frame.get("code")) for frame in alice.heard()] == [("error", 116)]


@pytest.mark.parametrize("ack", ["accepted", "delivered"])
def test_who_waits_for_a_worker_that_does_not_answer_can_leave_and_is_told_that_its_message_is_lost(ack: str) -> None:
    engine, here, alice, _ = alice_and_who_watches_her()
    engine.settle()
    engine.hosts["b.7"].is_deaf = True
    alice.say(type="send", id=1, recipient_uuid="watcher", message=1, ack=ack)
    here.bus.announce_restart([alice.session], lambda: None)
    engine.settle()
    assert not alice.session.may_leave
    here.bus.lose_abroad()
    assert alice.session.may_leave
    assert [(frame["type"], frame.get("code")) for frame in alice.heard()] == [("error", 116)]


def test_one_that_stays_after_all_is_where_it_was() -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    here.bus.announce_restart([alice.session], lambda: None)
    engine.settle()
    here.bus.confirm_restart([])
    bob.say(type="send", id=1, recipient_uuid="alice", message=1)
    engine.settle()
    assert [frame["message"] for frame in alice.heard()] == [1]
    assert [frame["type"] for frame in bob.heard()] == ["ok"]
    alice.session.end()
    engine.settle()
    assert [frame["state"] for frame in bob.heard()] == ["offline"]


@pytest.mark.parametrize("who", ["before", "after"])
def test_one_that_cannot_be_kept_or_served_on_is_gone_at_once(who: str) -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    here.bus.announce_restart([alice.session], lambda: None)
    engine.settle()
    alice.session.leave()
    here.bus.confirm_restart([alice.session.temporary] if who == "before" else [])
    end(here, engine)
    if who == "after":
        assert bob.heard() == []
        HostOfOne(engine, "a", pid="8").bus.does_not_come(alice.session.temporary)
        HostOfOne(engine, "c").bus.does_not_come(alice.session.temporary)
        engine.passes(1)
        engine.hosts["a.8"].bus.does_not_come(alice.session.temporary)
        engine.settle()
    assert [frame["state"] for frame in bob.heard()] == ["offline"]


def test_one_that_moved_while_the_link_to_whoever_had_taken_it_was_down_is_where_it_moved_to() -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    alice.say(type="join", id=0, group="g")
    moving = here.bus.moves.moving(alice.session)
    leave(here, alice, engine=engine)
    eight, nine = (HostOfOne(engine, "a", pid=pid) for pid in "89")
    engine.passes(1)
    there = engine.hosts["b.7"]
    said, gets = (there.bus.peers[host.links.me.name] for host in (eight, nine))
    there.bus.act(said, records.Moves(1, "9", [moving]))
    assert {there.center.hub.owner_of(address) for address, _ in moving.addresses} == {gets}
    assert gets.groups == {"g": {alice.session.temporary: ALICE}}
    there.passes(AWAY_S)
    assert bob.heard() == []


@pytest.mark.parametrize("moves", [False, True])
def test_a_message_to_a_group_comes_once_to_one_that_is_back_at_a_worker_that_is_met_anew(moves: bool) -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    alice.say(type="join", id=0, group="g")
    engine.settle()
    moving = here.bus.moves.moving(alice.session)
    leave(here, alice, engine=engine)
    there, wire = engine.hosts["b.7"], FakeWire()
    said = there.bus.meet_far("a.8.x", FakeWire(), "b.7.x", "a", "8")
    gets = there.bus.meet_far("a.9.x", wire, "b.7.x", "a", "9")
    if moves:
        there.bus.act(said, records.Moves(1, "9", [moving]))
    else:
        there.bus.act(gets, records.Came(moving.temporary, None))
        there.bus.act(gets, records.Joined("g", moving.temporary, ALICE))
    bob.say(type="send", id=1, group="g", message=1, ack="delivered")
    assert bob.heard() == [{"type": "ok", "id": 1, "online": 1, "receipts": 1}]
    there.bus.act(gets, records.Told())
    bob.say(type="send", id=2, group="g", message=2)
    sent = [record for record in map(records.decode, wire.records) if isinstance(record, records.Said)]
    assert [record.body for record in sent] == [b"1", b"2"]


def test_another_host_has_no_say_in_who_comes_back() -> None:
    engine, (here, there, other) = hosts(3)
    alice = here.v1("alice")
    engine.settle()
    bob = watched(there, "alice")
    leave(here, alice, engine=engine)
    other.bus.does_not_come(alice.session.temporary)
    engine.settle()
    assert bob.heard() == []


def test_one_that_is_back_under_another_name_of_its_host_and_leaves_once_more_is_waited_for_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, here, alice, bob = alice_and_who_watches_her()
    leave(here, alice, engine=engine)
    bob.say(type="send", id=1, recipient_uuid="alice", message=1)
    renamed = HostOfOne(engine, "c")
    monkeypatch.setattr(renamed.center, "draw_address", lambda: alice.session.temporary)
    back = renamed.v0()
    engine.settle()
    renamed.bus.announce_restart([back.session], lambda: None)
    engine.settle()
    assert [frame["code"] for frame in bob.heard() if frame["type"] == "error"] == [116]
    renamed.bus.lose_abroad()
    back.session.leave()
    renamed.bus.confirm_restart([])
    engine.settle()
    there = engine.hosts["b.7"]
    there.passes(AWAY_S)
    there.turns()
    assert not there.bus.restarts._away
    assert not there.bus.restarts._restarts


def test_what_is_kept_is_bounded_and_the_rest_is_refused() -> None:
    engine, (here, there) = hosts(2)
    alice, group = here.v1("alice"), {"type": "send", "group": "g", "message": 1}
    alice.say(type="join", id=0, group="g")
    engine.settle()
    bob = there.v1("bob")
    leave(here, alice, engine=engine)
    owner = there.center.hub.owner_of(ALICE)
    assert owner is not None
    for _ in range(MAX_KEPT_BYTES // 1_000_000 + 1):
        owner.forward(b"x" * 1_000_000, bob.session, ALICE)
    assert there.dropped(drops.BUS_FULL) == 0
    owner.forward(b"x", bob.session, ALICE)
    bob.say(type="send", id=1, recipient_uuid="alice", message=1, ack="accepted")
    bob.say(type="send", recipient_uuid="alice", message=1)
    bob.say(id=2, ack="delivered", **group)
    bob.say(id=3, ack="accepted", **group)
    codes = [(frame["id"], frame.get("code"), frame.get("online")) for frame in bob.heard()]
    assert codes == [(1, 115, None), (2, 115, None), (3, None, 0)]
    assert there.dropped(drops.BUS_FULL) >= 4


def test_a_host_of_the_release_before_sees_the_clients_as_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "VERSIONS", (1, RESTARTS - 1))
    engine, here, alice, bob = alice_and_who_watches_her()
    alice.say(type="send", id=1, recipient_uuid="watcher", message=1, ack="delivered")
    engine.settle()
    bob.heard()
    answered: list[bool] = []
    here.bus.announce_restart([alice.session], lambda: answered.append(True))
    here.bus.lose_abroad()
    assert answered == [True]
    assert [frame["type"] for frame in alice.heard()] == ["ok", "lost"]
    end(here, engine)
    assert [frame["state"] for frame in bob.heard()] == ["offline"]


def test_if_two_hosts_restart_at_once_what_the_one_keeps_for_the_other_is_lost_and_it_is_told() -> None:
    engine, (here, there) = hosts(2)
    alice = here.v1("alice")
    engine.settle()
    bob = there.v1("bob")
    bob.say(type="send", id=1, recipient_uuid="alice", message=1, ack="delivered")
    engine.settle()
    bob.heard()
    leave(here, alice, engine=engine)
    bob.say(type="send", id=2, recipient_uuid="alice", message=2, ack="accepted")
    assert not bob.session.may_leave
    there.bus.announce_restart([bob.session], lambda: None)
    assert [(frame["type"], frame["id"]) for frame in bob.heard()] == [("lost", 1), ("error", 2)]
    assert bob.session.may_leave
