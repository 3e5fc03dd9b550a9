"""Who owns an address, and who is told of it."""

from service.core.addresses import Address
from service.core.close_codes import ADDRESS_IN_USE
from tests.service.centers import World


def test_a_client_is_reached_under_its_temporary_address_and_under_the_one_that_it_registered() -> None:
    world = World()
    alice, bob = world.v0(), world.v0()
    alice.register("alice")
    for address in ("temporary-1", "alice"):
        bob.say(recipient_uuid=address, message=1)
        assert alice.heard() == [{"recipient_uuid": address, "message": 1}]


def test_a_client_that_leaves_leaves_no_address_behind() -> None:
    world = World()
    alice = world.v0()
    alice.register("alice")
    alice.session.end()
    assert world.center.hub.owner_of(Address("alice")) is world.center.hub.owner_of(Address("temporary-1")) is None
    assert world.center.connections == 0
    alice.session.end()  # twice does no harm


def test_nobody_can_take_the_address_of_a_client_that_is_alive() -> None:
    world = World()
    alice, mallory, bob = world.v0(), world.v0(), world.v0()
    alice.register("alice")
    mallory.register("alice")
    bob.say(recipient_uuid="alice", message="while it is asked")
    alice.answer_probe(alive=True)
    bob.say(recipient_uuid="alice", message="afterwards")
    assert [heard["message"] for heard in alice.heard()] == ["while it is asked", "afterwards"]
    assert mallory.client.closed == [ADDRESS_IN_USE]
    assert mallory.heard() == []


def test_the_address_of_a_dead_client_goes_to_who_asked_for_it() -> None:
    world = World()
    dead, back, bob = world.v0(), world.v0(), world.v0()
    dead.register("alice")
    back.register("alice")
    dead.answer_probe(alive=False)
    bob.say(recipient_uuid="alice", message=1)
    assert [heard["message"] for heard in back.heard()] == [1]
    assert dead.client.aborted
    assert dead.heard() == []


def test_the_address_of_a_client_that_leaves_while_it_is_asked_goes_to_who_asked_for_it() -> None:
    world = World()
    old, new, bob = world.v0(), world.v0(), world.v0()
    old.register("alice")
    new.register("alice")
    old.session.end()
    bob.say(recipient_uuid="alice", message=1)
    assert [heard["message"] for heard in new.heard()] == [1]
    old.answer_probe(alive=False)  # the outcome of the probe, which nobody waits for any more
    bob.say(recipient_uuid="alice", message=2)
    assert [heard["message"] for heard in new.heard()] == [2]


def test_of_several_that_wait_the_first_gets_the_address_and_is_asked_for_the_next() -> None:
    world = World()
    dead, first, second = world.v0(), world.v0(), world.v0()
    dead.register("alice")
    first.register("alice")
    second.register("alice")
    assert len(dead.client.probes) == 1
    dead.answer_probe(alive=False)
    assert world.center.hub.owner_of(Address("alice")) is first.session
    first.answer_probe(alive=True)
    assert second.client.closed == [ADDRESS_IN_USE]


def test_who_waited_and_has_left_gets_nothing() -> None:
    world = World()
    dead, impatient, patient = world.v0(), world.v0(), world.v0()
    dead.register("alice")
    impatient.register("alice")
    patient.register("alice")
    impatient.session.end()
    dead.answer_probe(alive=False)
    assert world.center.hub.owner_of(Address("alice")) is patient.session


def test_a_former_owner_that_leaves_does_not_take_the_address_from_the_present_one() -> None:
    world = World()
    dead, back = world.v0(), world.v0()
    dead.register("alice")
    back.register("alice")
    dead.answer_probe(alive=False)
    dead.session.end()
    assert world.center.hub.owner_of(Address("alice")) is back.session


def test_nothing_is_kept_of_those_who_have_left() -> None:
    world = World()
    watcher, alice, mallory = world.v1("watcher"), world.v1("alice"), world.v0()
    watcher.say(type="presence", id=1, uuids=["alice", "nobody"], watch=True)
    watcher.say(type="join", id=2, group="all")
    alice.say(type="join", id=2, group="all")
    mallory.register("alice")
    for party in (watcher, alice, mallory):
        party.session.end()
    assert world.keeps() == []


def test_who_waits_for_an_owner_that_is_replaced_waits_for_the_new_one() -> None:
    world = World()
    old, mallory = world.v1(), world.v0()
    old.say(type="hello", id=1, uuid="alice")
    secret = old.heard()[0]["resume"]
    mallory.register("alice")
    new = world.v1()
    new.say(type="hello", id=1, uuid="alice", resume=secret)
    assert new.heard()[0]["type"] == "ok"
    old.answer_probe(alive=True)
    assert mallory.client.closed == []
    new.answer_probe(alive=True)
    assert mallory.client.closed == [ADDRESS_IN_USE]


def test_who_comes_back_under_the_temporary_address_is_reached_there_and_the_old_connection_leaves_nothing() -> None:
    world = World()
    old, new, bob = world.v1(), world.v1(), world.v1("bob")
    old.say(type="hello", id=1)
    secret = old.heard()[0]["resume"]
    old.say(type="join", id=2, group="all")
    new.say(type="hello", id=1, uuid="temporary-1", resume=secret)
    assert new.heard()[0]["uuid"] == "temporary-1"
    old.session.end()
    bob.say(recipient_uuid="temporary-1", message="welcome back")
    assert [frame["message"] for frame in new.heard()] == ["welcome back"]
    for party in (new, bob):
        party.session.end()
    assert world.keeps() == []
