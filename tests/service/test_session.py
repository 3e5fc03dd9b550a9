"""Protocol v0, as its clients see it."""

import json

import pytest

from service.core.addresses import MAX_ADDRESS_LENGTH, Address
from service.core.close_codes import FORBIDDEN, TOKEN_EXPIRED, TOO_MANY_ADDRESSES
from service.core.odd_json import MAX_ODD_BYTES
from service.core.session import MIN_PAUSE_S, PROBE_PERIOD_S
from service.core.turns import LATER, NEXT_TURN, PER_TURN, SHARE
from tests.service.centers import TOO_DEEP, Party, World, identity, limits


@pytest.fixture
def world() -> World:
    return World()


def message(uuid: str, body: object) -> bytes:
    return json.dumps({"recipient_uuid": uuid, "message": body}).encode()


def test_the_welcome_names_the_temporary_uuid() -> None:
    assert World(welcome="You are {uuid}.").v0().welcome == b"You are temporary-1."


def test_braces_in_the_welcome_other_than_those_around_uuid_stay() -> None:
    welcome = '{"you": "{uuid}", "{0}": {}, "{uuid.__class__}"}'
    assert World(welcome=welcome).v0().welcome.decode() == welcome.replace("{uuid}", "temporary-1")


def test_connected_registers_the_uuid_and_is_answered_with_nothing(world: World) -> None:
    alice, bob = world.v0(), world.v0()
    alice.register("alice")
    assert alice.heard() == []
    bob.say(recipient_uuid="alice", message="hello")
    assert alice.heard() == [{"recipient_uuid": "alice", "message": "hello"}]


@pytest.mark.parametrize("body", ["Connected", "connected ", ["connected"], {"connected": True}])
def test_what_is_nearly_connected_is_a_message_like_any_other(world: World, body: object) -> None:
    alice, bob = world.v0(), world.v0()
    bob.session.receive(message("temporary-1", body))
    assert alice.client.sent == [message("temporary-1", body)]


def test_spaces_around_connected_make_no_difference(world: World) -> None:
    alice = world.v0()
    alice.session.receive(b' { "message" : "connected" , "recipient_uuid" : "alice" } ')
    assert world.center.hub.owner_of(Address("alice")) is alice.session


def test_a_message_is_forwarded_to_the_letter(world: World) -> None:
    alice, bob = world.v0(), world.v0()
    text = b' { "more": [1], "message":{"a" :1e400},"recipient_uuid":"temporary-1"}\r\n'
    bob.session.receive(text)
    assert alice.client.sent == [text]


def test_a_client_can_send_to_itself(world: World) -> None:
    alice = world.v0()
    alice.session.receive(message("temporary-1", "x"))
    assert alice.client.sent == [message("temporary-1", "x")]


def test_a_message_for_nobody_is_counted_and_goes_nowhere(world: World) -> None:
    alice = world.v0()
    alice.say(recipient_uuid="nobody", message="hello")
    assert alice.heard() == []
    assert world.dropped("nobody") == 1


def test_a_binary_message_is_the_text_that_its_bytes_are(world: World) -> None:
    alice, bob = world.v0(), world.v0()
    bob.session.receive_binary('{"recipient_uuid": "temporary-1", "message": "é"}'.encode())
    assert alice.heard() == [{"recipient_uuid": "temporary-1", "message": "é"}]
    bob.session.receive_binary(b'{"recipient_uuid": "temporary-1", "message": "\xff"}')
    assert alice.heard() == []
    assert world.dropped("plain") == 1


def test_of_a_key_given_twice_the_last_one_counts_as_it_will_for_the_recipient(world: World) -> None:
    alice, bob = world.v0(), world.v0()
    bob.session.receive(b'{"recipient_uuid": "nobody", "recipient_uuid": "temporary-1", "message": 1}')
    assert alice.heard() == [{"recipient_uuid": "temporary-1", "message": 1}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        '"connected"',
        "{}",
        '{"recipient_uuid": "temporary-1"}',
        '{"message": "connected"}',
        '{"recipient_uuid": ["temporary-1"], "message": 1}',
        '{"recipient_uuid": 1, "message": "connected"}',
        '{"recipient_uuid": "", "message": "connected"}',
        '{"recipient_uuid": "temporary-1", "message": 01}',
        '{"recipient_uuid": "temporary-1", "message": "\n"}',
        '{"recipient_uuid": "temporary-1", "message": 1} 2',
        '{"recipient_uuid": "temporary-1", "message": 1NaN}',
        '{"recipient_uuid": "temporary-1", "message": "\\ud800',
        "[" * 1_000_000,
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_what_is_no_message_is_plain_text_counted_and_sent_nowhere(world: World, text: str) -> None:
    alice = world.v0()
    alice.session.receive(text.encode())
    assert alice.heard() == []
    assert world.dropped("plain") == 1


@pytest.mark.parametrize(
    "text",
    [
        r'{"recipient_uuid": "temporary-1", "message": "hi \ud83d"}',
        r'{"message": ["\uDE00", {"\ud83d\ud83d\ude00": "\\\ud83d"}], "recipient_uuid": "temporary-1"}',
        r'{"\ud83d": "\udc00", "recipient_uuid": "temporary-1", "message": "\ue000 \ue001 70007"}',
        '{"recipient_uuid": "temporary-1", "message": [NaN, Infinity, -Infinity, "NaN"]}',
        r'{"recipient_uuid": "temporary-1", "message": [NaN, "\ud83d"], "x": -Infinity}',
        '{"recipient_uuid": "temporary-1", "message": 1e400, "message": -1e400}',
        '{"recipient_uuid": "temporary-1", "message": %s}' % ("9" * 5000),
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_whatever_an_encoder_writes_is_passed_on_to_the_letter(world: World, text: str) -> None:
    alice, bob = world.v0(), world.v0()
    bob.session.receive(text.encode())
    assert alice.client.sent == [text.encode()]
    assert sum(world.center.hub.tally.dropped.values()) == 0


@pytest.mark.parametrize(
    "text",
    [
        r'{"recipient_uuid": "\ud83d", "message": "connected"}',
        '\ufeff{"recipient_uuid": "temporary-1", "message": 1}',
        '{"recipient_uuid": "temporary-1", "message": %s}' % ("[" * TOO_DEEP + "]" * TOO_DEEP),
        '{"x": %s, "recipient_uuid": "temporary-1", "message": 1}' % ('{"a":' * TOO_DEEP + "1" + "}" * TOO_DEEP),
        r'{"recipient_uuid": "temporary-1", "message": "%s \ud83d"}' % ("x" * MAX_ODD_BYTES),
        '{"recipient_uuid": "temporary-1", "message": ["%s", NaN]}' % ("x" * MAX_ODD_BYTES),
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_a_message_that_cannot_be_passed_on_is_counted_as_unreadable(world: World, text: str) -> None:
    alice = world.v0()
    alice.session.receive(text.encode())
    assert alice.heard() == []
    assert world.dropped("unreadable") == 1
    assert world.dropped("plain") == 0


def test_a_name_may_have_what_stands_in_for_other_things(world: World) -> None:
    alice, name = world.v0(), "NaN \\ \ue000 70007"
    text = json.dumps({"recipient_uuid": name, "message": "connected", "x": "\ud83d"}).encode()
    alice.session.receive(text)
    alice.session.receive(text.replace(b'"connected"', b"NaN"))
    assert [json.loads(frame)["recipient_uuid"] for frame in alice.client.sent] == [name]


def test_a_client_of_nc_v1_gets_halves_of_a_pair_and_nothing_that_is_not_json(world: World) -> None:
    new, old = world.v1("new"), world.v0()
    old.session.receive(rb'{"recipient_uuid": "new", "message": "hi \ud83d"}')
    assert [frame["message"] for frame in new.heard()] == ["hi \ud83d"]
    old.session.receive(b'{"recipient_uuid": "new", "message": NaN}')
    assert new.heard() == []
    assert world.dropped("unreadable") == 1


def test_what_needs_a_slow_look_costs_more_and_waits_for_its_turn() -> None:
    world = World()
    alice, bob = world.v0(), world.v0()
    odd = json.dumps({"recipient_uuid": "nobody", "message": "x" * 66_000 + "\ud83d"}).encode()
    assert alice.session.receive(odd) == 0.0
    world.turns()
    assert [alice.session.receive(odd), bob.session.receive(odd), bob.session.receive(odd)] == [0.0, LATER, LATER]
    for _ in range(3):
        world.turns()
        pause = alice.session.receive(odd)
    assert pause >= MIN_PAUSE_S
    assert world.dropped("nobody") == 5


def test_an_address_has_so_many_characters_and_no_more(world: World) -> None:
    alice = world.v0()
    longest = "u" * MAX_ADDRESS_LENGTH
    alice.register(longest)
    alice.register(longest + "u")
    assert world.center.hub.owner_of(Address(longest)) is alice.session
    assert world.dropped("plain") == 1


def test_a_client_that_claims_too_many_uuids_is_closed_and_not_heard_any_more() -> None:
    world = World(limits=limits(registrations=3))
    alice, bob = world.v0(), world.v0()
    for address in ("1", "2", "3", "1"):
        alice.register(address)
    assert alice.client.closed == []
    alice.register("4")
    assert alice.client.closed == [TOO_MANY_ADDRESSES]
    alice.session.receive(message("temporary-2", "hello"))
    assert bob.heard() == []


def test_claims_that_wait_count_as_well() -> None:
    world = World(limits=limits(registrations=1))
    owner, other, mallory = world.v0(), world.v0(), world.v0()
    owner.register("a")
    other.register("b")
    mallory.register("a")
    mallory.register("b")
    assert mallory.client.closed == [TOO_MANY_ADDRESSES]


def test_a_client_that_sends_more_than_it_may_is_to_be_read_more_slowly_and_loses_nothing() -> None:
    world = World(limits=limits(messages_per_second=10))
    alice, bob = world.v0(), world.v0()
    pauses = [bob.session.receive(message("temporary-1", number)) for number in range(20)]
    assert pauses[:10] == [0.0] * 10
    assert pauses[10] == pytest.approx(0.1)
    assert pauses[19] == pytest.approx(1.0)
    assert [heard["message"] for heard in alice.heard()] == list(range(20))
    world.passes(1.5)
    assert bob.session.receive(message("temporary-1", "x")) <= NEXT_TURN
    assert bob.session.receive(message("temporary-1", "x")) <= NEXT_TURN


def test_a_client_that_sends_more_bytes_than_it_may_is_to_be_read_more_slowly() -> None:
    world = World(limits=limits(bytes_per_second=1024))
    bob = world.v0()
    assert bob.session.receive(b"x" * 1024) == 0.0
    assert bob.session.receive(b"x" * 512) == pytest.approx(0.5)


def test_two_seconds_are_all_that_a_client_can_save_up() -> None:
    world = World(limits=limits(messages_per_second=10))
    bob = world.v0()
    world.passes(3600)
    assert [bob.session.receive(b"") >= MIN_PAUSE_S for _ in range(22)] == [False] * 21 + [True]


def _sends_until_it_has_to_wait(party: Party) -> int:
    number = 0
    while party.session.receive(b"") == 0.0:
        number += 1
    return number


def test_what_clients_may_do_in_one_turn_is_bounded_for_all_together() -> None:
    world = World(limits=limits(messages_per_second=1_000_000))
    clients = [world.v0() for _ in range(100)]
    for _ in range(3):
        numbers = [_sends_until_it_has_to_wait(client) for client in clients]
        assert sum(numbers) <= PER_TURN + len(clients) * (SHARE + 1)
        assert min(numbers) >= SHARE - 1  # who asks for little does not wait
        world.turns()


def test_a_client_whose_turn_it_is_gives_way_after_a_share() -> None:
    world = World(limits=limits(messages_per_second=1_000_000))
    alice, bob = world.v0(), world.v0()
    numbers: list[int] = []
    for party in (alice, bob):
        _sends_until_it_has_to_wait(party)
        world.center.turns.wait(party, lambda party=party: numbers.append(_sends_until_it_has_to_wait(party)))  # type: ignore[misc]
    world.turns()
    assert len(numbers) == 2
    assert numbers[0] <= SHARE


def test_a_client_that_owes_a_moment_waits_a_little_longer() -> None:
    bob = World(limits=limits(messages_per_second=1_000_000, bytes_per_second=1_000_000)).v0()
    assert bob.session.receive(b"x" * 1_000_001) == MIN_PAUSE_S


def test_what_a_client_had_sent_before_it_went_still_reaches_others_and_does_nothing_for_itself() -> None:
    world = World()
    alice, bob = world.v0(), world.v0()
    bob.session.end()
    bob.register("bob")
    bob.session.receive(message("temporary-1", "goodbye"))
    assert [heard["message"] for heard in alice.heard()] == ["goodbye"]
    alice.session.end()
    assert world.keeps() == []


def test_all_who_ask_for_an_address_share_a_probe_and_the_next_one_waits() -> None:
    world = World()
    alice = world.v0()
    alice.register("alice")
    others = [world.v1() for _ in range(40)]
    for number in range(3):
        for other in others:
            other.say(type="hello", id=number, uuid="alice", resume="a guess")
        assert len(alice.client.probes) == 1
        alice.answer_probe(alive=True)
        assert [other.heard()[-1]["code"] for other in others] == [113] * 40
        others[0].say(type="hello", id="next", uuid="alice")
        assert alice.client.probes == []
        world.passes(PROBE_PERIOD_S)
        assert len(alice.client.probes) == 1


def test_who_waits_for_a_probe_of_a_client_that_goes_meanwhile_gets_its_address() -> None:
    world = World()
    alice, bob = world.v0(), world.v1()
    alice.register("alice")
    bob.say(type="hello", id=1, uuid="alice")
    alice.answer_probe(alive=True)
    bob.heard()
    bob.say(type="hello", id=2, uuid="alice")
    alice.session.end()
    assert [frame["type"] for frame in bob.heard()] == ["ok"]
    world.passes(PROBE_PERIOD_S)
    assert alice.client.probes == []


def test_the_bearer_of_a_token_registers_its_own_uuid_and_no_other(world: World) -> None:
    alice = world.v0(identity("alice"))
    alice.register("alice")
    assert world.center.hub.owner_of(Address("alice")) is alice.session
    alice.register("bob")
    assert alice.client.closed == [FORBIDDEN]
    assert world.center.hub.owner_of(Address("bob")) is None


def test_the_bearer_of_a_token_sends_to_whom_it_may_and_to_nobody_else(world: World) -> None:
    alice, bob, carol = world.v0(identity("alice", "bob")), world.v0(), world.v0()
    bob.register("bob")
    carol.register("carol")
    alice.say(recipient_uuid="bob", message=1)
    alice.say(recipient_uuid="carol", message=1)
    assert len(bob.heard()) == 1
    assert carol.heard() == []
    assert world.dropped("forbidden") == 1


def test_a_newer_connection_of_the_same_bearer_replaces_the_older_one_at_once(world: World) -> None:
    old, new = world.v0(identity("alice")), world.v0(identity("alice"))
    old.register("alice")
    new.register("alice")
    assert [reason.code for reason in old.client.closed] == [4010]
    assert old.client.probes == []
    assert world.center.hub.owner_of(Address("alice")) is new.session
    old.session.end()
    assert world.center.hub.owner_of(Address("alice")) is new.session


def test_a_connection_ends_when_its_token_does(world: World) -> None:
    alice = world.v0(identity("alice", expires=world.time + 60))
    world.passes(59)
    assert alice.client.closed == []
    world.passes(1)
    assert alice.client.closed == [TOKEN_EXPIRED]
    assert world.center.hub.tally.closed == {4200: 1}
