"""nc.v1, as its clients see it."""

import json
import sys
from typing import Any

import pytest

from service.core.addresses import Address
from service.core.close_codes import NO_HELLO, REPLACED, TOKEN_EXPIRED, UNAUTHORIZED
from service.core.odd_json import MAX_ODD_BYTES
from service.core.session_v1 import MAX_GROUPS, MAX_UNCONFIRMED, MAX_WATCHED
from service.core.turns import LATER, NEXT_TURN
from tests.service.centers import TOO_DEEP, Party, World, identity, limits


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def alice(world: World) -> Party:
    return world.v1("alice")


@pytest.fixture
def bob(world: World) -> Party:
    return world.v1("bob")


def only(party: Party) -> Any:
    """The one frame that it has heard."""
    (frame,) = party.heard()
    return frame


def error(code: int, to: object) -> dict[str, object]:
    return {"type": "error", "id": to, "code": code}


def without_words(frame: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in frame.items() if key not in ("reason", "temporary")}


# Hello


def test_the_welcome_names_the_temporary_uuid_and_the_protocol(world: World) -> None:
    assert json.loads(world.v1().welcome) == {
        "type": "welcome",
        "uuid": "temporary-1",
        "message": "temporary-1",
        "protocol": "nc.v1",
        "server_time": 1_000_000.0,
    }


def test_hello_registers_the_uuid_and_is_told_what_holds_here(world: World) -> None:
    alice = world.v1()
    alice.say(type="hello", id="first", uuid="alice")
    assert only(alice) == {
        "type": "ok",
        "id": "first",
        "uuid": "alice",
        "resume": "secret-1",
        "ping_ms": 60_000,
        "limits": {
            "message_size": 65_536,
            "messages_per_second": 1000,
            "bytes_per_second": 4_194_304,
            "registrations": 8,
        },
    }
    assert world.center.hub.owner_of(Address("alice")) is alice.session


def test_hello_without_a_uuid_keeps_the_temporary_one(world: World) -> None:
    alice = world.v1()
    alice.say(type="hello", id=1)
    assert only(alice)["uuid"] == "temporary-1"


def test_a_second_hello_registers_a_further_uuid(world: World, alice: Party, bob: Party) -> None:
    alice.say(type="hello", id=2, uuid="alice-too")
    assert only(alice)["uuid"] == "alice-too"
    bob.say(recipient_uuid="alice-too", message=1)
    assert only(alice)["recipient_uuid"] == "alice-too"


def test_hellos_beyond_the_limit_are_refused() -> None:
    world = World(limits=limits(registrations=2))
    alice = world.v1("1")
    alice.say(type="hello", id=2, uuid="2")
    assert only(alice)["type"] == "ok"
    alice.say(type="hello", id=3, uuid="3")
    assert without_words(only(alice)) == error(106, 3)


def test_before_hello_nothing_is_heard_but_a_ping(world: World, bob: Party) -> None:
    alice = world.v1()
    for frame in ({"recipient_uuid": "bob", "message": 1}, {"type": "join", "group": "g"}, {"type": "ack", "key": 1}):
        alice.say(id=5, **frame)
        assert without_words(only(alice)) == error(101, 5)
    alice.say(type="ping", id=6)
    assert only(alice) == {"type": "pong", "id": 6}
    assert bob.heard() == []


def test_who_says_no_hello_in_time_is_closed(world: World) -> None:
    alice = world.v1()
    world.passes(9)
    assert alice.client.closed == []
    world.passes(1)
    assert alice.client.closed == [NO_HELLO]


def test_who_has_said_hello_has_all_the_time_of_the_world(world: World, alice: Party) -> None:
    world.passes(1_000_000)
    assert alice.client.closed == []


def test_a_uuid_that_somebody_has_who_is_alive_is_refused(world: World, alice: Party) -> None:
    mallory = world.v1()
    mallory.say(type="hello", id=1, uuid="alice")
    assert mallory.heard() == []
    alice.answer_probe(alive=True)
    assert without_words(only(mallory)) == error(113, 1)
    mallory.say(type="hello", id=2, uuid="mallory")
    assert only(mallory)["type"] == "ok"


def test_a_uuid_whose_owner_is_dead_is_granted(world: World, alice: Party) -> None:
    back = world.v1()
    back.say(type="hello", id=1, uuid="alice")
    alice.answer_probe(alive=False)
    assert only(back)["uuid"] == "alice"


def test_the_secret_of_the_old_connection_takes_its_uuid_at_once(world: World) -> None:
    old = world.v1()
    old.say(type="hello", id=1, uuid="alice")
    secret = only(old)["resume"]
    new = world.v1()
    new.say(type="hello", id=1, uuid="alice", resume=secret)
    assert only(new)["uuid"] == "alice"
    assert old.client.closed == [REPLACED]
    assert old.client.probes == []


@pytest.mark.parametrize("secret", ["", "secret-2", "sécret"])
def test_a_wrong_secret_is_as_good_as_none(world: World, alice: Party, secret: str) -> None:
    mallory = world.v1()
    mallory.say(type="hello", id=1, uuid="alice", resume=secret)
    assert len(alice.client.probes) == 1
    assert alice.client.closed == []


def test_the_same_hello_twice_while_it_waits_is_answered_once_each(world: World, alice: Party) -> None:
    mallory = world.v1()
    mallory.say(type="hello", id=1, uuid="alice")
    mallory.say(type="hello", id=2, uuid="alice")
    assert without_words(only(mallory)) == error(107, 2)
    alice.answer_probe(alive=True)
    assert without_words(only(mallory)) == error(113, 1)


# Tokens


def with_tokens(**tokens: tuple[str, ...]) -> World:
    world = World(auth="token")
    world.tokens = {name: identity(name, *permitted) for name, permitted in tokens.items()}
    return world


def test_a_token_proves_the_uuid(world: World) -> None:
    world = with_tokens(alice=("*",))
    alice = world.v1()
    alice.say(type="hello", id=1, token="alice", uuid="alice")
    heard = only(alice)
    assert (heard["uuid"], heard["expires"]) == ("alice", 2_000_000.0)


def test_a_token_without_a_uuid_lets_its_bearer_send_and_takes_no_address_from_anybody() -> None:
    world = with_tokens(alice=("bob",), bob=())
    listening, sending, bob = world.v1(), world.v1(), world.v1()
    listening.say(type="hello", id=1, token="alice", uuid="alice")
    bob.say(type="hello", id=1, token="bob", uuid="bob")
    bob.heard()
    sending.say(type="hello", id=1, token="alice")
    assert only(sending)["uuid"] == sending.session.addresses[0]
    sending.say(recipient_uuid="bob", message=1)
    assert only(bob)["sender_uuid"] == "alice"
    assert listening.client.closed == []


def test_without_a_token_there_is_nothing_but_the_end() -> None:
    mallory = with_tokens().v1()
    mallory.say(type="hello", id=1, uuid="alice")
    assert mallory.heard() == []  # to close drops what waits
    assert mallory.client.closed == [UNAUTHORIZED]


def test_a_wrong_token_can_be_corrected_in_time() -> None:
    world = with_tokens(alice=())
    alice = world.v1()
    alice.say(type="hello", id=1, token="wrong")
    assert without_words(only(alice)) == error(101, 1)
    alice.say(type="hello", id=2, token="alice")
    assert only(alice)["type"] == "ok"


def test_who_asks_for_many_addresses_at_once_pays_for_them() -> None:
    alice = World(limits=limits(messages_per_second=33)).v1("alice")  # which was the first message
    pauses = [alice.say(type="presence", id=1, uuids=["bob"] * 100) for _ in range(3)]
    assert pauses[1] <= NEXT_TURN
    assert pauses[2] == pytest.approx(1 / 33)


@pytest.mark.parametrize("guess", ["token", "resume"])
def test_a_client_that_guesses_tokens_or_secrets_is_to_be_read_more_slowly(guess: str) -> None:
    world = World(limits=limits(messages_per_second=100))
    world.v1("alice")
    mallory = world.v1()
    pauses = []
    for number in range(12):
        pauses.append(mallory.say(type="hello", id=1, uuid="alice", **{guess: f"guess {number}"}))
        world.turns()
        world.center.hub.refuse_claimants(Address("alice"))
    assert all(pause <= NEXT_TURN for pause in pauses[:9])
    assert pauses[-1] == pytest.approx(12 * (1 + 100 / 10) / 100 - 1)


def test_tokens_beyond_what_a_turn_has_room_for_are_looked_at_in_the_next_one() -> None:
    world = World()
    clients = [world.v1() for _ in range(20)]
    first = [client.say(type="hello", id=1, token="a guess") == LATER for client in clients]
    assert (first[0], first[-1]) == (False, True)
    world.turns()
    assert clients[-1].say(type="hello", id=1, token="a guess") != LATER
    assert [len(client.heard()) for client in clients] == [int(not later) for later in first[:-1]] + [1]


def test_a_message_to_a_large_group_waits_for_those_before_it_and_costs_nothing_until_then() -> None:
    world = World(limits=limits(messages_per_second=300))
    alice, bob = world.v1("alice"), world.v1("bob")
    for number in range(290):
        world.v1(str(number)).say(type="join", id=1, group="g")
    assert alice.say(id=1, group="g", message="hi") != LATER
    assert [bob.say(id=1, group="g", message="hi") for _ in range(9)] == [LATER] * 9
    assert bob.heard() == []
    assert bob.say(id=1, recipient_uuid="alice", message="hi") == 0.0
    world.turns()
    assert bob.say(id=1, group="g", message="hi") != LATER


def test_a_confirmation_that_was_asked_for_costs_nothing_and_any_other_does() -> None:
    world = World(limits=limits(messages_per_second=2))
    alice, bob = world.v1("alice"), world.v1("bob")
    world.passes(60)
    alice.say(type="ping")
    for number in range(10):
        assert bob.say(id=number, recipient_uuid="alice", message="hi", ack="delivered") is not None
    pauses = [alice.say(type="ack", key=frame["key"]) for frame in alice.heard() if frame["type"] == "msg"]
    assert len(pauses) == 10
    assert all(pause <= NEXT_TURN for pause in pauses)
    assert max(alice.say(type="ack", key=1) for _ in range(5)) > NEXT_TURN


def test_a_message_to_a_group_that_nobody_is_in_counts_as_one() -> None:
    bob = World(limits=limits(messages_per_second=10)).v1("bob")
    assert max(bob.say(id=1, group="g", message="hi") for _ in range(25)) > NEXT_TURN


def test_clocks_that_are_set_let_no_hello_be_late_and_end_a_token(world: World) -> None:
    world.tokens["alice"] = identity("alice", expires=world.time + 60)
    alice, bob = world.v1(), world.v1()
    alice.say(type="hello", id=1, token="alice")
    world.clock_is_ahead = 7200.0
    world.passes(1)
    assert (alice.client.closed, bob.client.closed) == ([TOKEN_EXPIRED], [])
    world.clock_is_ahead = -86400.0
    world.passes(10)
    assert bob.client.closed == [NO_HELLO]


def test_an_expired_token_is_told_apart() -> None:
    world = with_tokens(alice=())
    world.time = 3_000_000.0
    alice = world.v1()
    alice.say(type="hello", id=1, token="alice")
    assert without_words(only(alice)) == error(109, 1)


def test_a_token_is_for_its_own_uuid_only() -> None:
    world = with_tokens(alice=())
    alice = world.v1()
    alice.say(type="hello", id=1, token="alice", uuid="bob")
    assert without_words(only(alice)) == error(103, 1)
    assert world.center.hub.owner_of(Address("bob")) is None


def test_what_a_token_does_not_permit_is_forbidden() -> None:
    world = with_tokens(alice=("bob", "group:friends"), bob=("*",))
    alice, bob = world.v1(), world.v1()
    alice.say(type="hello", id=1, token="alice", uuid="alice")
    bob.say(type="hello", id=1, token="bob", uuid="bob")
    alice.heard(), bob.heard()
    forbidden: list[dict[str, Any]] = [
        {"recipient_uuid": "carol", "message": 1},
        {"group": "foes", "message": 1},
        {"type": "join", "group": "foes"},
        {"type": "presence", "uuids": ["bob", "carol"]},
    ]
    for number, frame in enumerate(forbidden):
        alice.say(id=number, **frame)
        assert without_words(only(alice)) == error(103, number)
    permitted: list[dict[str, Any]] = [
        {"recipient_uuid": "bob", "message": 1},
        {"group": "friends", "message": 1},
        {"type": "join", "group": "friends"},
        {"type": "presence", "uuids": ["bob"]},
    ]
    for number, frame in enumerate(permitted):
        alice.say(id=number, **frame)
        assert only(alice)["type"] == "ok"


def test_a_connection_ends_with_its_token_unless_it_is_refreshed() -> None:
    world = with_tokens(alice=())
    world.tokens["newer"] = identity("alice", expires=3_000_000.0)
    world.tokens["bob"] = identity("bob", expires=3_000_000.0)
    alice = world.v1()
    alice.say(type="hello", id=1, token="alice")
    alice.heard()
    alice.say(type="refresh", id=2, token="bob")
    assert without_words(only(alice)) == error(103, 2)
    alice.say(type="refresh", id=3, token="newer")
    assert only(alice) == {"type": "ok", "id": 3, "expires": 3_000_000.0}
    world.passes(1_500_000)
    assert alice.client.closed == []
    world.passes(500_000)
    assert alice.client.closed == [TOKEN_EXPIRED]


@pytest.mark.parametrize(
    ("enters", "leaves"),
    [
        ({"type": "join", "group": "office"}, {"type": "leave", "group": "office"}),
        ({"type": "presence", "uuids": ["bob"], "watch": True}, {"type": "presence", "uuids": ["bob"], "watch": False}),
    ],
)
@pytest.mark.parametrize("shows", [{"type": "refresh"}, {"type": "hello"}])
def test_what_a_newer_token_does_not_allow_any_more_ends_with_the_older_one(
    enters: dict[str, Any], leaves: dict[str, Any], shows: dict[str, Any]
) -> None:
    world = with_tokens(alice=("bob", "group:office"))
    world.tokens["newer"] = identity("alice", expires=3_000_000.0)
    alice = world.v1()
    alice.say(type="hello", id=1, token="alice")
    alice.say(id=2, **enters)
    alice.heard()
    alice.say(id=3, token="newer", **shows)
    assert without_words(only(alice)) == error(103, 3)
    alice.say(id=4, **leaves)
    assert only(alice)["type"] == "ok"  # the older token is still the one that counts
    alice.say(id=5, token="newer", **shows)
    assert only(alice)["type"] == "ok"
    alice.say(id=6, **enters)
    assert without_words(only(alice)) == error(103, 6)


def test_a_handshake_with_a_token_needs_none_in_its_hello(world: World) -> None:
    alice = world.v1(identity=identity("alice", "*"))
    alice.say(type="hello", id=1, uuid="alice")
    assert only(alice)["uuid"] == "alice"


def test_where_there_are_no_tokens_none_can_be_refreshed(alice: Party) -> None:
    alice.say(type="refresh", id=1, token="x")
    assert without_words(only(alice)) == error(107, 1)


# Sending


def test_a_message_tells_who_sent_it(alice: Party, bob: Party) -> None:
    bob.say(recipient_uuid="alice", message={"text": ["hello"]})
    assert only(alice) == {
        "type": "msg",
        "sender_uuid": "bob",
        "recipient_uuid": "alice",
        "message": {"text": ["hello"]},
    }
    assert bob.heard() == []


def test_with_an_id_it_is_acknowledged(alice: Party, bob: Party) -> None:
    bob.say(type="send", id=7, recipient_uuid="alice", message=1)
    assert only(bob) == {"type": "ok", "id": 7, "online": 1}
    bob.say(type="send", id=8, recipient_uuid="alice", message=1, ack="none")
    assert bob.heard() == []


def test_a_message_for_nobody_is_told_and_may_succeed_later(world: World, bob: Party) -> None:
    bob.say(id=7, recipient_uuid="alice", message=1)
    assert only(bob) == {
        "type": "error",
        "id": 7,
        "code": 114,
        "reason": "nobody has this address",
        "temporary": True,
    }
    bob.say(recipient_uuid="alice", message=1)
    assert bob.heard() == []
    assert world.dropped("nobody") == 2


def test_both_kinds_of_client_talk_to_each_other(world: World, alice: Party) -> None:
    old = world.v0()
    old.register("old")
    old.say(recipient_uuid="alice", message=[1], more="is not passed on")
    assert only(alice) == {"type": "msg", "sender_uuid": "old", "recipient_uuid": "alice", "message": [1]}
    alice.say(id=1, recipient_uuid="old", message=[2])
    assert old.client.sent == [b'{"recipient_uuid":"old","message":[2]}']


def test_connected_is_a_message_like_any_other_for_hello_registers(world: World, alice: Party, bob: Party) -> None:
    bob.say(recipient_uuid="alice", message="connected")
    assert only(alice)["message"] == "connected"


def test_a_receipt_comes_when_the_recipient_has_confirmed(alice: Party, bob: Party) -> None:
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 1}
    key = only(alice)["key"]
    alice.say(type="ack", key=key + 1)
    assert bob.heard() == []
    alice.say(type="ack", key=key)
    assert only(bob) == {"type": "delivered", "id": 7, "recipient_uuid": "alice"}
    alice.say(type="ack", key=key)
    assert bob.heard() == []


def test_what_was_not_confirmed_at_the_end_of_its_recipient_is_told_lost(alice: Party, bob: Party) -> None:
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    bob.heard()
    alice.session.end()
    assert only(bob) == {"type": "lost", "id": 7, "recipient_uuid": "alice"}


def test_a_sender_that_has_left_gets_no_receipt(alice: Party, bob: Party) -> None:
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    bob.heard()
    bob.session.end()
    alice.say(type="ack", key=only(alice)["key"])
    assert bob.heard() == []


def test_a_client_of_v0_gives_no_receipts_and_the_sender_is_told(world: World, bob: Party) -> None:
    world.v0().register("old")
    bob.say(id=7, recipient_uuid="old", message=1, ack="delivered")
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 0}


def test_a_message_is_acknowledged_when_it_has_left_and_not_before(world: World, alice: Party, bob: Party) -> None:
    alice.client.reads_slowly = True
    bob.say(id=7, recipient_uuid="alice", message=1)
    assert only(alice)["message"] == 1
    assert bob.heard() == []
    alice.client.leaving.pop()(True)
    assert only(bob) == {"type": "ok", "id": 7, "online": 1}
    assert world.center.hub.tally.routed == 1


def test_who_sends_to_a_client_that_is_lost_before_it_has_left_is_told(world: World, alice: Party, bob: Party) -> None:
    alice.client.reads_slowly = True
    bob.say(id=7, recipient_uuid="alice", message=1)
    alice.client.leaving.pop()(False)
    refused = only(bob)
    assert (refused["id"], refused["code"], refused["temporary"]) == (7, 116, True)
    assert (world.center.hub.tally.routed, world.dropped("gone")) == (0, 1)


@pytest.mark.parametrize("ack", ["accepted", "delivered"])
def test_a_client_that_is_being_closed_is_nobody(alice: Party, bob: Party, ack: str) -> None:
    alice.session.close(REPLACED)
    bob.say(id=7, recipient_uuid="alice", message=1, ack=ack)
    assert without_words(only(bob)) == error(114, 7)
    assert alice.heard() == []


def test_what_the_recipient_confirms_need_not_have_left(alice: Party, bob: Party) -> None:
    alice.client.reads_slowly = True
    bob.say(id=7, recipient_uuid="alice", message=1, ack="delivered")
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 1}


def test_what_a_client_of_v0_cannot_confirm_is_acknowledged_when_it_has_left(world: World, bob: Party) -> None:
    old = world.v0()
    old.register("old")
    old.client.reads_slowly = True
    bob.say(id=7, recipient_uuid="old", message=1, ack="delivered")
    assert bob.heard() == []
    old.client.leaving.pop()(True)
    assert only(bob) == {"type": "ok", "id": 7, "online": 1, "receipts": 0}


@pytest.mark.parametrize("request_", [{"id": 7, "ack": "none"}, {"ack": "accepted"}])
def test_who_wants_no_answer_waits_for_nothing(
    world: World, alice: Party, bob: Party, request_: dict[str, object]
) -> None:
    alice.client.reads_slowly = True
    bob.say(recipient_uuid="alice", message=1, **request_)
    assert (alice.client.leaving, bob.heard()) == ([], [])
    assert world.center.hub.tally.routed == 1


def test_a_group_waits_for_none_of_its_members(alice: Party, bob: Party) -> None:
    alice.say(type="join", id=1, group="g")
    alice.client.reads_slowly = True
    bob.say(id=2, group="g", message="hi")
    assert only(bob) == {"type": "ok", "id": 2, "online": 1}


def test_a_client_that_never_confirms_gets_no_further_message_that_wants_a_receipt(
    world: World, alice: Party, bob: Party
) -> None:
    for number in range(MAX_UNCONFIRMED):
        bob.say(id=number, recipient_uuid="alice", message=1, ack="delivered")
    bob.heard()
    bob.say(id="one more", recipient_uuid="alice", message=1, ack="delivered")
    refused = only(bob)
    assert (refused["code"], refused["temporary"]) == (115, True)
    assert len(alice.heard()) == MAX_UNCONFIRMED
    assert world.dropped("unconfirmed") == 1
    bob.say(id="without", recipient_uuid="alice", message=1)
    assert only(bob)["type"] == "ok"


# Groups


def test_a_message_for_a_group_reaches_all_members_but_its_sender(world: World, alice: Party, bob: Party) -> None:
    carol = world.v1("carol")
    for party in (alice, bob):
        party.say(type="join", id=1, group="g")
        assert only(party) == {"type": "ok", "id": 1}
    alice.say(id=2, group="g", message="hi")
    assert only(alice) == {"type": "ok", "id": 2, "online": 1}
    assert only(bob) == {"type": "msg", "sender_uuid": "alice", "group": "g", "message": "hi"}
    assert carol.heard() == []


def test_who_has_left_a_group_is_not_reached(alice: Party, bob: Party) -> None:
    bob.say(type="join", id=1, group="g")
    bob.say(type="leave", id=2, group="g")
    bob.say(type="leave", id=3, group="never joined")
    assert [frame["type"] for frame in bob.heard()] == ["ok"] * 3
    alice.say(id=2, group="g", message="hi")
    assert only(alice) == {"type": "ok", "id": 2, "online": 0}
    assert bob.heard() == []


def test_each_member_of_a_group_gives_a_receipt(world: World, alice: Party, bob: Party) -> None:
    carol = world.v1("carol")
    for party in (bob, carol):
        party.say(type="join", id=1, group="g")
        party.heard()
    alice.say(id=2, group="g", message="hi", ack="delivered")
    assert only(alice) == {"type": "ok", "id": 2, "online": 2, "receipts": 2}
    bob.say(type="ack", key=only(bob)["key"])
    assert only(alice) == {"type": "delivered", "id": 2, "recipient_uuid": "bob"}
    carol.session.end()
    assert only(alice) == {"type": "lost", "id": 2, "recipient_uuid": "carol"}


def test_a_message_to_a_group_counts_once_for_each_recipient() -> None:
    world = World(limits=limits(messages_per_second=10))
    alice = world.v1("alice")
    for number in range(10):
        member = world.v1(str(number))
        member.say(type="join", id=1, group="g")
    assert alice.say(id=1, group="g", message="hi") > 0


def test_a_group_larger_than_the_rate_cannot_be_written_to() -> None:
    world = World(limits=limits(messages_per_second=3))
    alice = world.v1("alice")
    members = [world.v1(str(number)) for number in range(4)]
    for member in members:
        member.say(type="join", id=1, group="g")
        member.heard()
    alice.say(id=1, group="g", message="hi")
    assert without_words(only(alice)) == error(106, 1)
    assert [member.heard() for member in members] == [[]] * 4


def test_a_client_joins_so_many_groups_and_no_more(alice: Party) -> None:
    for number in range(MAX_GROUPS):
        alice.say(type="join", id=number, group=str(number))
        assert only(alice)["type"] == "ok"
    alice.say(type="join", id="one more", group="one more")
    assert without_words(only(alice)) == error(106, "one more")
    alice.say(type="join", id="again", group="0")
    assert only(alice)["type"] == "ok"


# Presence


def test_presence_tells_who_is_there(alice: Party, bob: Party) -> None:
    alice.say(type="presence", id=1, uuids=["bob", "nobody", "alice"])
    assert only(alice) == {"type": "ok", "id": 1, "online": ["bob", "alice"]}


def test_who_watches_an_address_is_told_of_every_change(world: World, alice: Party) -> None:
    alice.say(type="presence", id=1, uuids=["bob"], watch=True)
    alice.heard()
    bob = world.v1("bob")
    assert only(alice) == {"type": "presence", "uuid": "bob", "state": "online"}
    bob.session.end()
    assert only(alice) == {"type": "presence", "uuid": "bob", "state": "offline"}
    alice.say(type="presence", id=2, uuids=["bob"], watch=False)
    alice.heard()
    world.v1("bob")
    assert alice.heard() == []


def test_an_address_that_changes_hands_was_never_gone(world: World, alice: Party) -> None:
    dead = world.v1("bob")
    alice.say(type="presence", id=1, uuids=["bob"], watch=True)
    alice.heard()
    world.v1().say(type="hello", id=1, uuid="bob")
    dead.answer_probe(alive=False)
    assert [frame["state"] for frame in alice.heard()] == ["online"]


def test_a_client_watches_so_many_addresses_and_no_more(alice: Party) -> None:
    for start in range(0, MAX_WATCHED, 64):
        alice.say(type="presence", id=1, uuids=[str(start + number) for number in range(64)], watch=True)
        assert only(alice)["type"] == "ok"
    alice.say(type="presence", id=2, uuids=["one more"], watch=True)
    assert without_words(only(alice)) == error(106, 2)
    alice.say(type="presence", id=3, uuids=["0", "1"], watch=True)
    assert only(alice)["type"] == "ok"


# What encoders write that is not quite JSON

HALF = r"\ud83d is half of a surrogate pair, which only a message may have"
NO_JSON = "NaN and Infinity are not JSON"
TOO_LONG_AND_ODD = "it is not plain JSON, and longer than 262144 bytes"


@pytest.mark.parametrize(
    ("text", "to", "reason"),
    [
        (r'{"type": "send", "id": 7, "recipient_uuid": "\ud83d", "message": 1}', 7, f"recipient_uuid: {HALF}"),
        (r'{"type": "send", "group": "a\ud83db", "message": 1, "id": 7}', 7, f"group: {HALF}"),
        (r'{"type": "join", "group": "\ud83d", "id": "seven"}', "seven", f"group: {HALF}"),
        (r'{"type": "hello", "uuid": "\ud83d", "id": 7}', 7, f"uuid: {HALF}"),
        (r'{"type": "hello", "token": "\ud83d", "id": 7}', 7, f"token: {HALF}"),
        (r'{"type": "hello", "resume": "\ud83d", "id": 7}', 7, f"resume: {HALF}"),
        (r'{"type": "refresh", "token": "\ud83d", "id": 7}', 7, f"token: {HALF}"),
        (r'{"type": "presence", "uuids": ["a", "\ud83d"], "id": 7}', 7, f"uuids: {HALF}"),
        (r'{"type": "presence", "uuids": [], "id": "7\ud83d"}', "7\ud83d", f"id: {HALF}"),
        (r'{"type": "\ud83d", "id": 7}', 7, "unknown type"),
        ('{"type": "send", "id": 7, "recipient_uuid": "alice", "message": NaN}', 7, NO_JSON),
        ('{"message": [1, -Infinity], "recipient_uuid": "alice", "id": 7}', 7, NO_JSON),
        (r'{"message": [Infinity, "\ud83d", "\"id\": 3"], "recipient_uuid": "alice", "id": 7}', 7, NO_JSON),
        ('{"type": "hello", "id": 7, "uuid": NaN}', 7, NO_JSON),
        ('{"id": 7, "message": %s, "group": "g"}' % ("[" * TOO_DEEP + "]" * TOO_DEEP), 7, "it is nested too deep"),
        pytest.param(
            '{"message": %s, "group": "g", "id": "7"}' % ('{"id":' * 2_000 + "1" + "}" * 2_000),
            "7",
            "it is nested too deep",
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="its decoder takes that"),
        ),
        ('\ufeff{"type": "ping", "id": 7}', 7, "it begins with a byte order mark"),
        ('{"type": "ping", "id": 7', 7, "Input data was truncated"),
        ('{"id": 7, "message": undefined}', 7, "JSON is malformed: invalid character (byte 21)"),
        ("{'id': 7}", None, "JSON is malformed: object keys must be strings (byte 1)"),
        ('{"type": "ping", "id": 1e400}', None, "Number out of range - at `$.id`"),
        ('{"type": ["send"], "id": 7}', 7, "Expected `str`, got `array` - at `$.type`"),
        ('{"type": "ack", "key": "1"}', None, "Expected `int`, got `str` - at `$.key`"),
        (r'{"id": 7, "group": "g", "message": "%s \ud83d"}' % ("x" * MAX_ODD_BYTES), 7, TOO_LONG_AND_ODD),
        (r'{"message": "%s", "group": "\ud83d", "id": 7}' % ("x" * MAX_ODD_BYTES), None, TOO_LONG_AND_ODD),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_read_is_refused_with_its_own_id_and_the_reason(
    alice: Party, text: str, to: object, reason: str
) -> None:
    alice.session.receive(text.encode())
    refused = only(alice)
    assert (refused["type"], refused["id"], refused["reason"]) == ("error", to, reason)
    alice.say(type="ping", id=9)
    assert only(alice) == {"type": "pong", "id": 9}


@pytest.mark.parametrize("message", [r'"hi \ud83d"', r'{"\uDE00": ["\\\\", "\ue000", 70007]}', r'"\ud83d\ud83d\ude00"'])
def test_half_of_a_surrogate_pair_in_a_message_is_passed_on_to_the_letter(
    alice: Party, bob: Party, message: str
) -> None:
    bob.say(type="join", id=1, group="g")
    bob.heard()
    for target in ('"recipient_uuid": "bob"', '"group": "g"'):
        alice.session.receive(f'{{"type": "send", "id": 7, {target}, "message": {message}, "x": "\\udfff"}}'.encode())
        assert only(alice) == {"type": "ok", "id": 7, "online": 1}
        [heard] = bob.client.sent
        assert f'"message":{message}'.encode() in heard
        bob.heard()


def test_a_name_may_have_what_stands_in_for_other_things(alice: Party) -> None:
    name = "NaN \\ \ue000 70007"
    alice.say(type="hello", id=name, uuid=name, x="\ud83d")
    ok = only(alice)
    assert (ok["type"], ok["id"], ok["uuid"]) == ("ok", name, name)


# Whatever else


@pytest.mark.parametrize(
    ("text", "code", "to"),
    [
        ("hello", 107, None),
        ("[1]", 107, None),
        ("[" * 60_000, 107, None),
        ('{"type": "send", "id": {"a": 1}}', 107, None),
        ('{"type": 1, "id": 1}', 107, 1),
        ('{"type": "send", "id": -1}', 107, None),
        ('{"type": "sendd", "id": 1}', 104, 1),
        ('{"id": 1, "recipient_uuid": "a"}', 107, 1),
        ('{"id": 1, "message": 1}', 107, 1),
        ('{"id": 1, "message": 1, "recipient_uuid": "a", "group": "b"}', 107, 1),
        ('{"id": 1, "message": 1, "recipient_uuid": ""}', 107, 1),
        ('{"id": 1, "message": 1, "recipient_uuid": "a", "ack": "maybe"}', 107, 1),
        ('{"id": 1, "type": "join"}', 107, 1),
        ('{"id": 1, "type": "presence", "uuids": "alice"}', 107, 1),
        (json.dumps({"id": 1, "type": "presence", "uuids": ["a"] * 101}), 107, 1),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_request_is_an_error_and_the_connection_lives(
    alice: Party, text: str, code: int, to: object
) -> None:
    alice.session.receive(text.encode())
    assert without_words(only(alice)) == error(code, to)
    alice.say(type="ping", id=9)
    assert only(alice) == {"type": "pong", "id": 9}


def test_a_binary_frame_that_is_not_utf_8_is_no_request(alice: Party) -> None:
    alice.session.receive_binary(b"\xff")
    assert without_words(only(alice)) == error(107, None)


def test_unknown_keys_are_ignored_so_that_newer_clients_can_talk_to_us(alice: Party) -> None:
    alice.say(type="ping", id=1, future=[{}])
    assert only(alice) == {"type": "pong", "id": 1}


def test_a_client_is_told_when_to_come_back(alice: Party) -> None:
    alice.session.goaway(reconnect_in_ms=120, deadline_ms=500)
    assert only(alice) == {"type": "goaway", "reconnect_in_ms": 120, "deadline_ms": 500}
