"""Protocol v0, as one client sees it."""

import json

import pytest

from service.close_codes import TOO_MANY_ADDRESSES
from service.hub import MAX_REGISTRATIONS, Address, Hub
from service.session import MAX_ADDRESS_LENGTH, Close, Send, Session


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def alice(hub: Hub) -> Session:
    return Session(hub, Address("temporary-alice"))


@pytest.fixture
def bob(hub: Hub) -> Session:
    return Session(hub, Address("temporary-bob"))


def to(uuid: str, message: object) -> str:
    return json.dumps({"recipient_uuid": uuid, "message": message})


def test_the_welcome_names_the_temporary_uuid(alice: Session) -> None:
    assert alice.welcome("You are {uuid}.") == (Send(alice.connection, "You are temporary-alice."),)


def test_braces_in_the_welcome_other_than_those_around_uuid_stay(alice: Session) -> None:
    (effect,) = alice.welcome('{"you": "{uuid}", "{0}": {}, "{uuid.__class__}"}')
    assert effect == Send(alice.connection, '{"you": "temporary-alice", "{0}": {}, "{uuid.__class__}"}')


def test_connected_registers_the_uuid_for_this_client(alice: Session, bob: Session) -> None:
    assert alice.receive(to("alice", "connected")) == ()
    assert bob.receive(to("alice", "hello")) == (Send(alice.connection, to("alice", "hello")),)


def test_connected_inside_a_longer_message_is_a_message_like_any_other(alice: Session, bob: Session) -> None:
    for message in ("Connected", "connected ", ["connected"], {"connected": True}):
        text = to("temporary-alice", message)
        assert bob.receive(text) == (Send(alice.connection, text),)


def test_spaces_around_connected_make_no_difference(alice: Session, hub: Hub) -> None:
    alice.receive(' { "message" : "connected" , "recipient_uuid" : "alice" } ')
    assert hub.route(Address("alice")) == alice.connection


def test_a_message_is_forwarded_to_the_letter(alice: Session, bob: Session) -> None:
    text = ' { "more": [1], "message":{"a" :1e400},"recipient_uuid":"temporary-alice"}\r\n'
    assert bob.receive(text) == (Send(alice.connection, text),)


def test_a_client_can_send_to_itself(alice: Session) -> None:
    assert alice.receive(to("temporary-alice", "x")) == (Send(alice.connection, to("temporary-alice", "x")),)


def test_a_message_for_nobody_is_counted_and_goes_nowhere(alice: Session, hub: Hub) -> None:
    assert alice.receive(to("nobody", "hello")) == ()
    assert hub.tally.unroutable == 1


def test_plain_text_is_counted_and_goes_nowhere(alice: Session, hub: Hub) -> None:
    assert alice.receive("hello") == ()
    assert hub.tally.plain == 1


def test_a_binary_frame_is_the_text_that_its_bytes_are(alice: Session, bob: Session) -> None:
    assert bob.receive(to("temporary-alice", "é").encode()) == (Send(alice.connection, to("temporary-alice", "é")),)


def test_of_a_key_given_twice_the_last_one_counts_as_it_will_for_the_recipient(alice: Session, bob: Session) -> None:
    text = '{"recipient_uuid": "nobody", "recipient_uuid": "temporary-alice", "message": 1}'
    assert bob.receive(text) == (Send(alice.connection, text),)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "[1]",
        '"connected"',
        "{}",
        '{"recipient_uuid": "temporary-alice"}',
        '{"message": "connected"}',
        '{"recipient_uuid": ["temporary-alice"], "message": 1}',
        '{"recipient_uuid": 1, "message": "connected"}',
        '{"recipient_uuid": "", "message": "connected"}',
        '{"recipient_uuid": "temporary-alice", "message": NaN}',
        '{"recipient_uuid": "temporary-alice", "message": 01}',
        '{"recipient_uuid": "temporary-alice", "message": "\\ud800"}',
        '{"recipient_uuid": "temporary-alice", "message": "\ud800"}',
        '{"recipient_uuid": "temporary-alice", "message": "\n"}',
        '{"recipient_uuid": "temporary-alice", "message": 1} 2',
        '\ufeff{"recipient_uuid": "temporary-alice", "message": 1}',
        "[" * 1_000_000,
        '{"recipient_uuid": "temporary-alice", "message": %s}' % ("[" * 100_000 + "]" * 100_000),
        '{"x": %s, "recipient_uuid": "temporary-alice", "message": 1}' % ('{"a":' * 100_000 + "1" + "}" * 100_000),
        b"\xff",
        b'{"recipient_uuid": "temporary-alice", "message": "\xff"}',
    ],
    ids=lambda frame: ascii(frame)[:60],
)
def test_what_is_no_message_is_plain_text(alice: Session, hub: Hub, frame: str | bytes) -> None:
    assert alice.receive(frame) == ()
    assert hub.tally.plain == 1


def test_an_address_has_so_many_characters_and_no_more(alice: Session, hub: Hub) -> None:
    longest = "u" * MAX_ADDRESS_LENGTH
    alice.receive(to(longest, "connected"))
    alice.receive(to(longest + "u", "connected"))
    assert hub.route(Address(longest)) == alice.connection
    assert hub.tally.plain == 1


def test_a_client_that_claims_too_many_uuids_is_closed(alice: Session) -> None:
    for number in range(MAX_REGISTRATIONS):
        assert alice.receive(to(str(number), "connected")) == ()
    assert alice.receive(to("one more", "connected")) == (Close(alice.connection, TOO_MANY_ADDRESSES),)


def test_a_client_that_is_being_closed_is_not_heard(alice: Session, bob: Session) -> None:
    for number in range(MAX_REGISTRATIONS + 1):
        alice.receive(to(str(number), "connected"))
    assert alice.receive(to("temporary-bob", "hello")) == ()


def test_after_its_end_a_client_has_no_address(alice: Session, hub: Hub) -> None:
    alice.receive(to("alice", "connected"))
    alice.end()
    assert hub.route(Address("alice")) is hub.route(Address("temporary-alice")) is None
