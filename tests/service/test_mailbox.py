"""What is kept for those who are not there: told `stored` means found again, in order, and never a part for the whole.

The second half is what others' users complain of, each as a test.
"""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.core import drops
from service.core.addresses import Address
from service.core.close_codes import MAILBOX_UNAVAILABLE, SLOW_CONSUMER
from service.core.figures import FIGURES, service
from service.core.mail import WINDOW
from service.core.mailbox import Kept, Kind, Letter, Settled
from service.core.plain_http import Answer
from service.core.session_v1 import SessionV1
from service.engine.identity import boot_id
from service.mailbox.database import Database
from service.mailbox.ledger import DEDUP_S, SECOND, SWEEP, Known, Ledger
from service.settings import Mailbox
from service.web.publish import Permit, Publisher, Request
from tests.service.centers import Party, World, identity
from tests.service.mailboxes import Desk, DiskInTurns
from tests.service.servers import PROGRAMS, Server

DAY = 86_400


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "mailbox"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Those that run already, by their name; each begins with the first test that wants it."""
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        server.kill()


# Every rule holds in an engine as well; one of the engines is enough for a quick look.
@pytest.fixture(params=["disk", PROGRAMS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS[1:])])
def engine(
    request: pytest.FixtureRequest, engines: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Server | None:
    """Where messages are kept: None is the disk."""
    if request.param == "disk":
        return None
    if request.param not in engines:
        server = Server(request.param, tmp_path_factory.mktemp("engine"))
        server.start()
        engines[request.param] = server
    return engines[request.param]


of_the_disk = pytest.mark.parametrize("engine", ["disk"], indirect=True)


@pytest.fixture
def desk(directory: Path, engine: Server | None) -> Iterator[Desk]:
    desk = Desk(directory, engine=engine)
    desk.away("bob")
    yield desk
    desk.close()


@pytest.fixture
def alice(desk: Desk) -> Party:
    return desk.comes("alice")


def messages(party: Party) -> list[Any]:
    """What it has heard of others."""
    return [frame["message"] for frame in party.heard() if frame["type"] == "msg"]


def offsets(party: Party) -> list[int]:
    return [frame["offset"] for frame in party.heard() if frame["type"] == "msg"]


def ok(online: int, to: object = 1) -> dict[str, object]:
    return {"type": "ok", "id": to, "online": online, "stored": True}


# The promise


def test_who_was_away_gets_everything_in_order(desk: Desk, alice: Party) -> None:
    assert desk.send(alice, "bob", "one", "two", {"three": 3}) == [ok(0, 1), ok(0, 2), ok(0, 3)]
    bob, found = desk.arrives("bob")
    heard = bob.heard()
    assert [(frame["sender_uuid"], frame["recipient_uuid"], frame["message"]) for frame in heard] == [
        ("alice", "bob", "one"),
        ("alice", "bob", "two"),
        ("alice", "bob", {"three": 3}),
    ]
    numbers = [frame["offset"] for frame in heard]
    assert numbers == sorted(set(numbers))
    assert (found["whole"], found["last"], "lost_to" in found) == (True, numbers[-1], False)
    assert found["after"] < numbers[0]


def test_who_is_there_gets_it_at_once_and_it_is_stored_all_the_same(desk: Desk, alice: Party) -> None:
    bob = desk.comes("bob")
    bob.heard()
    assert desk.send(alice, "bob", "one") == [ok(1)]
    assert messages(bob) == ["one"]
    desk.leaves(bob)
    assert messages(desk.comes("bob")) == ["one"]


def test_what_is_acknowledged_is_gone_and_what_is_not_comes_again(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abcd")
    bob = desk.comes("bob")
    second = offsets(bob)[1]
    desk.acknowledges(bob, second)
    desk.leaves(bob)
    bob, found = desk.arrives("bob")
    assert (found["after"], found["whole"]) == (second, True)
    assert messages(bob) == ["c", "d"]


def test_a_position_acknowledges_what_is_before_it(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    bob, found = desk.arrives("bob")
    first = offsets(bob)[0]
    desk.leaves(bob)
    bob, found = desk.arrives("bob", epoch=found["epoch"], after=first)
    assert (found["after"], found["whole"]) == (first, True)
    assert messages(bob) == ["b", "c"]
    desk.leaves(bob)
    assert messages(desk.comes("bob")) == ["b", "c"]


def test_nobody_gets_a_mailbox_who_has_not_asked_for_one(desk: Desk, alice: Party) -> None:
    carol = desk.world.v1(identity=identity("carol", "*"))
    carol.say(type="hello", id=0, uuid="carol")
    assert "mailbox" not in carol.heard_first()
    desk.leaves(carol)
    (answer,) = desk.send(alice, "carol", "hello?")
    assert (answer["code"], answer["temporary"]) == (114, True)


def test_without_mailboxes_nobody_hears_of_them(tmp_path: Path) -> None:
    world = World(auth="token")
    bob = world.v1(identity=identity("bob", "*"))
    bob.say(type="hello", id=0, uuid="bob", mailbox={})
    assert "mailbox" not in bob.heard_first()
    bob.say(type="ack", offset=5)
    assert bob.heard() == []


def test_a_message_to_a_group_is_not_kept(desk: Desk, alice: Party) -> None:
    bob = desk.comes("bob")
    bob.say(type="join", id=1, group="room")
    bob.heard()
    alice.heard()
    alice.say(group="room", message="all", id=1)
    assert alice.heard() == [{"type": "ok", "id": 1, "online": 1}]
    (frame,) = bob.heard()
    assert "offset" not in frame
    desk.leaves(bob)
    assert messages(desk.comes("bob")) == []


def test_figures_say_what_is_kept_what_was_stored_and_what_was_not_fetched_in_time(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "one", "two")

    def figures() -> dict[str, object]:
        names = ("mailbox_messages", "mailbox_bytes", "mailbox_stored", "mailbox_expired")
        return {each.name: each.of(service(desk.world.center)) for each in FIGURES if each.name in names}

    size = 2 * (len('"one"') + 64)
    assert figures() == {
        "mailbox_messages": 2,
        "mailbox_bytes": size,
        "mailbox_stored": 2,
        "mailbox_expired": 0,
    }
    desk.passes(DAY)
    assert figures() == {"mailbox_messages": 0, "mailbox_bytes": 0, "mailbox_stored": 2, "mailbox_expired": 2}


# v0


def test_a_message_of_v0_is_kept_as_well_and_nothing_else_changes_for_its_sender(desk: Desk) -> None:
    sender = desk.world.v0(identity=identity("old", "*"))
    sender.say(recipient_uuid="bob", message="from v0", more="keys")
    desk.turns()
    assert sender.heard() == []
    (frame,) = [frame for frame in desk.comes("bob").heard() if frame["type"] == "msg"]
    assert (frame["sender_uuid"], frame["message"]) == ("old", "from v0")


def test_a_client_of_v0_hears_live_what_is_kept_and_never_what_was_kept_before(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "before")
    desk.world.time += 1
    old = desk.world.v0(identity=identity("bob", "*"))
    old.register("bob")
    desk.turns()
    sender = desk.world.v0(identity=identity("other", "*"))
    sender.say(recipient_uuid="bob", message="to the letter", more="keys")
    desk.send(alice, "bob", "live")
    assert old.heard() == [
        {"recipient_uuid": "bob", "message": "to the letter", "more": "keys"},
        {"recipient_uuid": "bob", "message": "live"},
    ]
    desk.leaves(old)
    assert messages(desk.comes("bob")) == ["before", "to the letter", "live"]


# Acknowledgements that come late, never, twice, or beyond the end


def test_no_more_than_a_window_is_sent_ahead_and_the_rest_follows_each_acknowledgement(
    desk: Desk, alice: Party
) -> None:
    desk.send(alice, "bob", *range(2 * WINDOW + 50))
    bob = desk.comes("bob")
    heard = [frame for frame in bob.heard() if frame["type"] == "msg"]
    assert [frame["message"] for frame in heard] == list(range(WINDOW))
    desk.acknowledges(bob, heard[9]["offset"])
    assert messages(bob) == list(range(WINDOW, WINDOW + 10))


def test_a_client_that_never_acknowledges_is_sent_a_window_and_loses_nothing(desk: Desk, alice: Party) -> None:
    bob = desk.comes("bob")
    bob.heard()
    desk.send(alice, "bob", *range(WINDOW + 50))
    assert messages(bob) == list(range(WINDOW))
    assert bob.client.closed == []
    desk.leaves(bob)
    assert messages(desk.comes("bob")) == list(range(WINDOW))


def test_long_messages_do_not_close_their_own_reader(desk: Desk, alice: Party) -> None:
    limit = desk.world.center.settings.limits.queue
    desk.send(alice, "bob", *("x" * 60_000 for _ in range(16)))
    bob = desk.comes("bob")
    assert sum(map(len, bob.client.sent)) <= limit
    heard = 0
    while numbers := offsets(bob):
        heard += len(numbers)
        desk.acknowledges(bob, numbers[-1])
    assert heard == 16


def test_acknowledging_twice_or_less_than_before_changes_nothing(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    bob = desk.comes("bob")
    first, second, _ = offsets(bob)
    for offset in (second, second, first, 0, -5):
        desk.acknowledges(bob, offset)
    desk.leaves(bob)
    assert messages(desk.comes("bob")) == ["c"]


def test_acknowledging_beyond_the_end_deletes_nothing_that_was_not_sent(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *range(WINDOW + 1))
    bob = desk.comes("bob")
    desk.acknowledges(bob, 2**53)
    desk.leaves(bob)
    desk.send(alice, "bob", "later")
    assert messages(desk.comes("bob")) == [WINDOW, "later"]


def test_an_acknowledgement_says_what_it_is_about(desk: Desk) -> None:
    bob = desk.comes("bob")
    bob.heard()
    for wrong in ({}, {"key": 1, "offset": 2}):
        bob.say(type="ack", **wrong)
        (answer,) = bob.heard()
        assert answer["code"] == 107


# Full


@pytest.mark.parametrize("limit", [{"messages": 3}, {"bytes": 300}, {"total": 300}])
def test_a_full_mailbox_is_said_to_the_sender_and_drops_nothing(
    directory: Path, engine: Server | None, limit: dict[str, Any]
) -> None:
    desk = Desk(directory, engine=engine, **limit)
    desk.away("bob")
    alice = desk.comes("alice")
    answers = desk.send(alice, "bob", *("x" * 30 + str(number) for number in range(9)))
    stored = [answer for answer in answers if answer["type"] == "ok"]
    refused = [answer for answer in answers if answer["type"] == "error"]
    assert len(stored) == 3
    assert {(answer["code"], answer["reason"], answer["temporary"]) for answer in refused} == {
        (118, "mailbox full", True)
    }
    assert desk.world.dropped(drops.MAILBOX_FULL) == 6
    bob = desk.comes("bob")
    heard = [frame for frame in bob.heard() if frame["type"] == "msg"]
    assert [frame["message"][-1] for frame in heard] == ["0", "1", "2"]
    desk.acknowledges(bob, heard[0]["offset"])
    assert [answer["type"] for answer in desk.send(alice, "bob", "room again")] == ["ok"]
    desk.close()


def test_who_has_no_room_for_receipts_asks_for_no_more_of_them(directory: Path, engine: Server | None) -> None:
    desk = Desk(directory, engine=engine, messages=3)
    bob, alice = desk.comes("bob"), desk.comes("alice")

    def sends(ack: str) -> Any:
        answer, *_ = desk.send(alice, "bob", "m", ack=ack)
        for offset in offsets(bob):
            desk.acknowledges(bob, offset)
        return answer

    assert [sends("delivered")["type"] for _ in range(3)] == ["ok"] * 3
    receipts = alice.heard()
    assert sends("delivered")["code"] == 118
    assert sends("accepted")["type"] == "ok"
    desk.acknowledges(alice, receipts[-1]["offset"])
    assert sends("delivered")["type"] == "ok"
    desk.close()


def test_a_store_that_cannot_be_written_is_said_to_the_sender(desk: Desk, alice: Party) -> None:
    desk.store.is_broken = True
    (answer,) = desk.send(alice, "bob", "lost?")
    assert (answer["code"], answer["reason"]) == (118, "the mailbox cannot be written now")
    desk.store.is_broken = False
    assert messages(desk.comes("bob")) == []


def test_a_client_whose_mailbox_cannot_be_opened_is_closed_and_may_come_back(desk: Desk) -> None:
    desk.store.is_broken = True
    bob = desk.comes("bob")
    assert (bob.client.closed, bob.heard()) == ([MAILBOX_UNAVAILABLE], [])


# Time


def test_what_is_not_fetched_in_time_is_gone_and_its_recipient_is_told(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "early")
    desk.passes(DAY / 2)
    desk.away("bob")
    desk.send(alice, "bob", "late")
    desk.passes(DAY / 2)
    assert desk.world.center.hub.tally.expired == 1
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (False, ["late"])
    assert found["after"] < found["lost_to"] < found["last"]


def test_at_the_edge_of_its_time_a_message_is_whole_or_told(desk: Desk, alice: Party) -> None:
    desk.world.time += 1
    desk.send(alice, "bob", "m")
    desk.world.time += DAY - 1e-6
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (True, ["m"])
    desk.leaves(bob)
    desk.world.time += 1e-6  # before the next sweep
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (False, [])


def test_a_loss_is_told_until_it_is_acknowledged(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "m")
    desk.passes(DAY)
    for _ in range(2):
        bob, found = desk.arrives("bob")
        assert found["whole"] is False
        desk.leaves(bob)
    bob, found = desk.arrives("bob")
    desk.acknowledges(bob, found["lost_to"])
    desk.leaves(bob)
    assert desk.arrives("bob")[1]["whole"] is True


def test_a_mailbox_ends_when_its_owner_has_been_away_for_too_long(desk: Desk, alice: Party) -> None:
    desk.passes(DAY - 10)
    assert desk.send(alice, "bob", "in time") == [ok(0)]
    desk.passes(10)
    (answer,) = desk.send(alice, "bob", "too late")
    assert answer["code"] == 114
    desk.passes(30 * DAY)
    desk.passes(1)
    assert not desk.store.has_box("bob")
    # Whoever comes back with a position of then is told that something may be missing.
    bob, found = desk.arrives("bob", epoch=desk.store.epoch, after=5)
    assert found["whole"] is False
    desk.leaves(bob)
    assert desk.arrives("bob")[1]["whole"] is True


@pytest.mark.parametrize("is_broken", [False, True])
def test_mailboxes_that_have_ended_are_forgotten_if_it_can_be_seen_that_they_have(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    monkeypatch.setattr("service.core.mail.MANY_BOXES", 5)
    desk.away(*"abcd")
    desk.passes(2 * DAY + 1)
    assert not desk.store.has_box("a")
    desk.store.is_broken = is_broken
    desk.world.center.mail.heard([Address("e")])
    desk.world.center.mail.opened(Address("f"))  # while it is looked
    desk.turns()
    ended = {"bob", *"abcd", "e"}
    assert desk.world.center.mail.boxes == (ended | {"f"} if is_broken else {"f"})


def test_a_loss_is_told_after_a_long_absence_also_to_who_keeps_no_position(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "in vain")
    for _ in range(5):
        desk.passes(DAY)
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (False, [])
    desk.acknowledges(bob, found["lost_to"])
    desk.leaves(bob)
    assert desk.arrives("bob")[1]["whole"] is True


def test_a_mailbox_does_not_end_while_its_owner_is_there(desk: Desk, alice: Party) -> None:
    desk.comes("bob")
    for _ in range(16):
        desk.passes(DAY / 4)
    assert [answer["type"] for answer in desk.send(alice, "bob", "m")] == ["ok"]


@of_the_disk
def test_time_goes_on_where_it_was_when_the_host_was_started_anew(
    desk: Desk, alice: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send(alice, "bob", "m")
    desk.passes(DAY / 2)
    monkeypatch.setattr("service.engine.identity._BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another")
    desk.world.time = 10
    desk = desk.restarted()
    desk.passes(DAY / 2 - 1)
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (True, ["m"])
    desk.leaves(bob)
    desk.passes(1)
    assert desk.arrives("bob")[1]["whole"] is False
    desk.close()


def test_a_host_that_is_started_anew_gives_no_offset_twice(
    desk: Desk, alice: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send(alice, "bob", "a")
    monkeypatch.setattr("service.engine.identity._BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("another")
    desk.world.time = 10
    desk = desk.restarted()
    desk.send(desk.comes("alice"), "bob", "b", "c")
    bob = desk.comes("bob")
    heard = [frame for frame in bob.heard() if frame["type"] == "msg"]
    assert [frame["message"] for frame in heard] == ["a", "b", "c"]
    numbers = [frame["offset"] for frame in heard]
    assert numbers == sorted(set(numbers))
    desk.close()


# Two devices of one address


def test_a_second_device_takes_over_and_gets_what_the_first_had_not_acknowledged(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    phone = desk.comes("bob")
    desk.acknowledges(phone, offsets(phone)[0])
    tablet = desk.comes("bob")
    assert len(phone.client.closed) == 1
    assert messages(tablet) == ["b", "c"]


def test_a_device_is_told_what_another_one_has_taken_for_it(desk: Desk, alice: Party) -> None:
    phone, found = desk.arrives("bob")
    desk.leaves(phone)
    desk.send(alice, "bob", *"abc")
    tablet = desk.comes("bob")
    second = offsets(tablet)[1]
    desk.acknowledges(tablet, second)
    desk.leaves(tablet)
    phone, found = desk.arrives("bob", epoch=found["epoch"], after=found["after"])
    assert (found["whole"], found["lost_to"], messages(phone)) == (False, second, ["c"])


def test_a_device_that_was_replaced_acknowledges_nothing_any_more(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"ab")
    phone = desk.comes("bob")
    last = offsets(phone)[-1]
    reader = phone.session._reader
    assert reader is not None
    tablet = desk.comes("bob")
    assert messages(tablet) == ["a", "b"]
    # As if it had been said in another worker a moment before.
    desk.store.acknowledge(phone.session.name, 1, last)
    desk.turns()
    desk.leaves(tablet)
    assert messages(desk.comes("bob")) == ["a", "b"]


def test_who_takes_it_too_slowly_while_it_is_there_is_told_what_was_not_fetched_in_time(
    desk: Desk, alice: Party
) -> None:
    bob, found = desk.arrives("bob")
    desk.send(alice, "bob", *range(WINDOW + 1))
    sent = offsets(bob)
    desk.passes(DAY + 1)
    desk.acknowledges(bob, sent[-1])
    assert bob.client.closed == [MAILBOX_UNAVAILABLE]
    desk.leaves(bob)
    assert desk.arrives("bob", epoch=found["epoch"], after=sent[-1])[1]["whole"] is False


def test_too_much_for_a_client_whose_mailbox_is_being_opened_is_counted(desk: Desk, alice: Party) -> None:
    carol = desk.world.v1(identity=identity("carol", "*"))
    carol.say(type="hello", id=0, uuid="carol", mailbox={})
    for _ in range(20):
        alice.say(recipient_uuid="carol", message="x" * 60_000)
    assert carol.client.closed == [SLOW_CONSUMER]
    tally = desk.world.center.hub.tally
    assert (tally.closed[SLOW_CONSUMER.code], tally.dropped[drops.SLOW_CONSUMER]) == (1, 1)
    desk.turns()
    assert carol.heard() == []


def test_what_is_too_old_when_it_has_been_sent_is_not_missing(desk: Desk, alice: Party) -> None:
    bob, found = desk.arrives("bob")
    desk.send(alice, "bob", "early")
    sent = offsets(bob)
    desk.passes(DAY)
    desk.send(alice, "bob", "late")
    sent += offsets(bob)
    desk.acknowledges(bob, sent[-1])
    desk.leaves(bob)
    assert bob.client.closed == []
    assert desk.arrives("bob", epoch=found["epoch"], after=sent[-1])[1]["whole"] is True


def test_who_has_been_told_what_is_missing_is_served_from_there_on(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "early")
    desk.passes(DAY)
    bob, found = desk.arrives("bob")
    desk.send(alice, "bob", "late")
    assert (found["whole"], messages(bob), bob.client.closed) == (False, ["late"], [])


# Receipts and repeats


def test_a_receipt_comes_when_the_recipient_has_acknowledged_into_the_mailbox_of_the_sender(
    desk: Desk, alice: Party
) -> None:
    (answer,) = desk.send(alice, "bob", "m", id="the order", ack="delivered")
    assert answer == {"type": "ok", "id": "the order", "online": 0, "receipts": 1, "stored": True}
    desk.leaves(alice)
    desk.world.time += DAY / 2
    bob = desk.comes("bob")
    desk.acknowledges(bob, offsets(bob)[0])
    alice, found = desk.arrives("alice")
    (receipt,) = alice.heard()
    assert receipt == {"type": "delivered", "id": "the order", "recipient_uuid": "bob", "offset": found["last"]}
    desk.acknowledges(alice, receipt["offset"])
    desk.leaves(alice)
    assert [frame["type"] for frame in desk.comes("alice").heard()] == ["ok"]


def test_a_sender_that_does_not_wait_for_its_mailbox_finds_its_receipts_there_all_the_same(desk: Desk) -> None:
    alice = desk.world.v1(identity=identity("alice", "*"))
    alice.say(type="hello", id=0, uuid="alice", mailbox={})
    alice.say(type="send", id=1, recipient_uuid="bob", message="m", ack="delivered")
    desk.turns()
    desk.leaves(alice)
    bob = desk.comes("bob")
    desk.acknowledges(bob, offsets(bob)[0])
    assert [frame["type"] for frame in desk.comes("alice").heard()] == ["ok", "delivered"]


def test_a_sender_without_a_mailbox_gets_its_receipt_while_it_is_connected(desk: Desk) -> None:
    carol = desk.world.v1(identity=identity("carol", "*"))
    carol.say(type="hello", id=0, uuid="carol")
    desk.send(carol, "bob", "m", ack="delivered")
    bob = desk.comes("bob")
    desk.acknowledges(bob, offsets(bob)[0])
    assert carol.heard() == [{"type": "delivered", "id": 1, "recipient_uuid": "bob"}]


def test_a_sender_is_told_what_was_not_fetched_in_time(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "m", id="x", ack="delivered")
    desk.passes(DAY)
    assert [(frame["type"], frame["id"]) for frame in alice.heard()] == [("lost", "x")]


def test_a_sender_that_is_yet_to_come_back_from_another_process_hears_what_is_told_meanwhile(desk: Desk) -> None:
    alice = World("of-the-other-process-").v1("alice")
    temporary, state = alice.session.temporary, alice.session.leave()
    mail = desk.world.center.mail
    mail.hold()
    mail.settle([Settled(temporary, 1, Address("bob"), True)])
    alice.session = SessionV1(desk.world.center, alice.client, state.identity, None, temporary)
    alice.session.go_on(state, None)
    assert alice.heard() == []
    mail.release()
    assert alice.heard() == [{"type": "delivered", "id": 1, "recipient_uuid": "bob"}]
    mail.settle([Settled(Address("gone"), 2, Address("bob"), True)])
    mail.release()
    desk.close()


def test_what_is_sent_again_is_stored_once(desk: Desk, alice: Party) -> None:
    assert desk.send(alice, "bob", "m", dedup="order-1") == desk.send(alice, "bob", "m", dedup="order-1") == [ok(0)]
    other = desk.comes("other")
    desk.send(other, "bob", "of another sender", dedup="order-1")
    desk.passes(301)
    desk.send(alice, "bob", "later", dedup="order-1")
    assert messages(desk.comes("bob")) == ["m", "of another sender", "later"]


def test_a_connection_is_promised_no_receipt_of_what_an_earlier_one_has_sent(desk: Desk) -> None:
    first, second = (desk.world.v1(identity=identity("alice", "*")) for _ in range(2))
    for connection in (first, second):
        connection.say(type="hello", id=0)
    (sent,) = desk.send(first, "bob", "m", ack="delivered", dedup="1")
    (again,) = desk.send(second, "bob", "m", ack="delivered", dedup="1")
    bob = desk.comes("bob")
    desk.acknowledges(bob, *offsets(bob))
    assert (sent["receipts"], [frame["type"] for frame in first.heard()]) == (1, ["delivered"])
    assert (again, second.heard()) == ({**ok(0), "receipts": 0}, [])


def test_a_receipt_of_what_was_sent_again_comes_to_the_mailbox_of_its_sender(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", "m", ack="delivered", dedup="1")
    desk.leaves(alice)
    alice = desk.comes("alice")
    assert desk.send(alice, "bob", "m", ack="delivered", dedup="1") == [{**ok(0), "receipts": 1}]
    bob = desk.comes("bob")
    desk.acknowledges(bob, *offsets(bob))
    assert [(frame["type"], frame["id"]) for frame in alice.heard()] == [("delivered", 1)]


@pytest.mark.parametrize("again", [{"ack": "delivered"}, {"ack": "accepted"}, {"ack": "delivered", "id": "another"}])
@pytest.mark.parametrize("first", ["accepted", "delivered"])
def test_of_what_is_sent_again_as_many_receipts_come_as_are_promised(
    desk: Desk, alice: Party, first: str, again: dict[str, Any]
) -> None:
    desk.send(alice, "bob", "m", ack=first, dedup="1")
    desk.passes(2)
    (ok,) = desk.send(alice, "bob", "m", dedup="1", **again)
    bob = desk.comes("bob")
    desk.acknowledges(bob, *offsets(bob))
    receipts = [frame for frame in alice.heard() if frame["id"] == ok["id"]]
    assert ok.get("receipts", len(receipts)) == len(receipts)
    assert ("receipts" in ok) == (again["ack"] == "delivered")


def test_what_is_stored_for_whoever_is_there_counts_as_routed_in_each_protocol(desk: Desk, alice: Party) -> None:
    bob, old = desk.comes("bob"), desk.world.v0(identity("old", "*"))
    desk.send(alice, "bob", "of nc.v1")
    desk.send(old, "bob", "of v0")
    desk.leaves(bob)
    desk.send(old, "bob", "while bob is away")
    tally = desk.world.center.hub.tally
    assert (messages(bob), tally.stored, tally.routed) == (["of nc.v1", "of v0"], 3, 2)


def test_what_is_sent_again_counts_as_one_message(desk: Desk, alice: Party) -> None:
    bob = desk.comes("bob")
    for _ in range(2):
        desk.send(alice, "bob", "m", dedup="1")
    assert messages(bob) == ["m"]
    tally = desk.world.center.hub.tally
    assert (tally.stored, tally.routed) == (1, 1)


def test_a_key_that_another_message_has_over_http_or_a_websocket_loses_none(desk: Desk, alice: Party) -> None:
    desk.world.tokens["K"] = identity("alice", "*")
    desk.send(alice, "bob", "over a WebSocket", dedup="k")
    request = Request("POST", "/publish/bob", {"authorization": ["Bearer K"], "idempotency-key": ["k"]})
    answers: list[Answer] = []
    for body in (b"one", b"one", b"another"):
        worker = Publisher(desk.world.center)
        permit = worker.admit(request)
        assert isinstance(permit, Permit)
        worker.publish(permit, body, answers.append)
        desk.turns()
    assert [answer.status for answer in answers] == [202] * 3
    assert messages(desk.comes("bob")) == ["over a WebSocket", "one", "another"]


def test_what_is_sent_to_another_recipient_is_another_message(desk: Desk, alice: Party) -> None:
    desk.away("carol")
    desk.send(alice, "bob", "to bob", dedup="1")
    assert desk.send(alice, "carol", "to carol", dedup="1") == [ok(0)]
    assert (messages(desk.comes("bob")), messages(desk.comes("carol"))) == (["to bob"], ["to carol"])


# Several workers


def test_a_worker_that_took_a_mailbox_for_lapsed_keeps_messages_again_when_its_owner_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = desk.beside()
    # As if both were joined by a bus.
    monkeypatch.setattr(desk.world.center.hub.bus, "tell_mail", other.world.center.mail.heard)
    alice = other.comes("alice")
    desk.passes(DAY)
    other.world.time = desk.world.time
    (answer,) = other.send(alice, "bob", "too late")
    assert answer["code"] == 114
    desk.away("bob")
    assert other.send(alice, "bob", "m") == [ok(0)]
    other.close()


def test_a_worker_that_missed_how_a_mailbox_was_opened_learns_of_it_when_workers_meet(desk: Desk) -> None:
    other = desk.beside()
    alice = other.comes("alice")
    desk.away("carol")
    other.world.center.mail.look_again()
    other.turns()
    assert other.send(alice, "carol", "m") == [ok(0)]
    other.close()


def test_while_the_store_is_away_owners_stay_though_workers_meet_and_it_is_read_when_it_is_back(
    desk: Desk, alice: Party
) -> None:
    bob = desk.comes("bob")
    desk.store.is_up, desk.store.is_broken = False, True
    desk.world.center.mail.look_again()
    desk.turns()
    assert bob.client.closed == []
    other = desk.beside()
    assert other.send(other.comes("carol"), "bob", "m") == [ok(0)]
    desk.store.is_up, desk.store.is_broken = True, False
    desk.world.center.mail.look_again()
    desk.turns()
    assert messages(bob) == ["m"]
    other.close()


# What others are blamed for


def test_a_file_that_has_lost_its_end_does_not_claim_to_be_whole(directory: Path) -> None:
    desk = Desk(directory)
    desk.away("bob")
    alice = desk.comes("alice")
    assert isinstance(desk.store, DiskInTurns)
    desk.store.database.writing.execute("vacuum into ?", (str(directory / "backup.db"),))
    desk.send(alice, "bob", "after the backup")
    bob, found = desk.arrives("bob")
    desk.leaves(bob)
    desk.store.close()
    (directory / "backup.db").replace(directory / "mail.db")
    desk = Desk(directory, desk.world.time + 1)
    bob, again = desk.arrives("bob", epoch=found["epoch"], after=found["after"])
    assert again["whole"] is False
    assert again["epoch"] != found["epoch"]
    desk.close()


def test_who_keeps_no_position_is_told_of_a_restored_backup_as_well(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"ab")
    desk.store.draw_epoch()
    desk = desk.restarted()
    bob, found = desk.arrives("bob")
    assert found["whole"] is False
    # Who confirms the loss at once confirms nothing that is still to come.
    desk.acknowledges(bob, found["lost_to"])
    desk.leaves(bob)
    bob = desk.comes("bob")
    first, _ = offsets(bob)
    desk.acknowledges(bob, first)
    desk.leaves(bob)
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (True, ["b"])
    desk.close()


def test_whoever_may_have_had_a_mailbox_that_was_lost_is_told(desk: Desk, alice: Party) -> None:
    desk.store.draw_epoch()
    desk = desk.restarted()
    told_once(desk, "carol")
    desk.close()


@of_the_disk
def test_whoever_had_a_mailbox_that_is_in_no_backup_is_told_that_messages_may_be_missing(
    desk: Desk, alice: Party
) -> None:
    assert isinstance(desk.store, DiskInTurns)
    (desk.directory / "backup.db").unlink(missing_ok=True)
    desk.store.database.writing.execute("vacuum into ?", (str(desk.directory / "backup.db"),))
    desk.away("carol")
    desk.send(alice, "carol", "after the backup")
    desk.store.database.close()
    (desk.directory / "backup.db").replace(desk.directory / "mail.db")
    desk = Desk(desk.directory, desk.world.time)
    told_once(desk, "carol")
    desk.close()


def test_of_workers_that_start_at_once_whoever_makes_the_store_takes_it_for_the_first(directory: Path) -> None:
    directory.mkdir()
    for name in ("lock", "users", "mark"):
        (directory / name).touch()  # by another one, which has yet to take the lock
    desk = Desk(directory)
    assert desk.arrives("bob")[1]["whole"] is True
    desk.close()


def test_workers_that_make_the_directory_at_the_same_moment_both_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def make(path: Path, mode: int = 0o777) -> None:
        if path == directory:
            mkdir(path, mode)  # the other one was first
        mkdir(path, mode)

    monkeypatch.setattr(Path, "mkdir", make)
    desk = Desk(directory)
    assert desk.arrives("bob")[1]["whole"] is True
    desk.close()


def test_what_is_set_aside_is_lost_though_nobody_has_noted_yet_what_it_was_like(directory: Path) -> None:
    directory.mkdir()
    (directory / "mail.db").write_bytes(b"not a database" * 1000)
    desk = Desk(directory)
    assert desk.arrives("bob")[1]["whole"] is False
    desk.close()


@of_the_disk
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_store_whose_file_has_vanished_does_not_pretend_that_nothing_was_in_it(
    desk: Desk, alice: Party, is_empty: bool
) -> None:
    assert isinstance(desk.store, DiskInTurns)
    desk.send(alice, "bob", "in vain")
    desk.store.database.close()
    (desk.directory / "mail.db").unlink()
    if is_empty:
        (desk.directory / "mail.db").touch()
    desk = Desk(desk.directory, desk.world.time)
    told_once(desk, "bob")
    # As long as it is remembered of a mailbox.
    desk.passes(30 * DAY)
    assert desk.arrives("dave")[1]["whole"] is True
    desk.close()


def told_once(desk: Desk, name: str) -> None:
    """That messages may be missing; and who confirms it is not told again, and has lost nothing by that."""
    party, found = desk.arrives(name)
    assert (found["whole"], messages(party)) == (False, [])
    desk.send(desk.comes("sender"), name, "meanwhile")
    desk.acknowledges(party, found["lost_to"])
    desk.leaves(party)
    party, found = desk.arrives(name)
    assert (found["whole"], messages(party)) == (True, ["meanwhile"])
    desk.leaves(party)


def test_however_much_is_sent_what_was_sent_again_is_not_known_for_ever(directory: Path) -> None:
    up = [0]
    settings = Mailbox(keep="disk", directory=str(directory), messages=1_000_000)
    file = Database(directory, "second", lambda: up[0])
    for seconds in range(0, 3 * DEDUP_S, DEDUP_S // 2):
        up[0] = seconds * SECOND
        file.writing.execute("begin immediate")
        ledger = Ledger(file.writing, settings, file.now())
        ledger.open(Address("bob"), None)
        for number in range(2 * SWEEP):
            dedup = f"{seconds}-{number}"
            assert ledger.keep(Letter(Address("bob"), Address("alice"), Kind.JSON, b"1", dedup=dedup)) is Kept.STORED
        ledger.sweep()
        ledger.finish()
        file.writing.execute("commit")
    (known,) = file.writing.execute("select count(*) from dedup").fetchone()
    assert known == 2 * 2 * SWEEP
    file.close()


def test_what_other_workers_write_is_seen_and_what_was_not_committed_is_not(directory: Path) -> None:
    settings = Mailbox(keep="disk", directory=str(directory), messages=3)
    one, other = Database(directory, "turn"), Database(directory, "turn")
    known, bob = Known(), Address("bob")

    def kept(file: Database, known: Known, ends: str = "commit") -> Kept:
        file.writing.execute("begin immediate")
        ledger = Ledger(file.writing, settings, file.now(), known)
        if ledger.last == first:
            ledger.open(bob, None)
        kept = ledger.keep(Letter(bob, Address("alice"), Kind.JSON, b"1"))
        ledger.finish()
        file.writing.execute(ends)
        if ends == "rollback":
            known.forget()
        return kept

    (first,) = one.writing.execute("select last from state").fetchone()
    done = [kept(one, known), kept(one, known, "rollback"), kept(one, known), kept(other, Known()), kept(one, known)]
    assert done == [*[Kept.STORED] * 4, Kept.FULL]
    one.close()
    other.close()


def test_the_unit_says_which_start_of_the_host_this_is_as_it_hides_the_kernels_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot = boot_id()
    monkeypatch.setattr("service.engine.identity._BOOT", tmp_path / "hidden")
    monkeypatch.setenv("WEBSOCKET_BOOT_ID", boot.replace("-", ""))  # as %b is, in systemd.unit(5)
    database = Database(directory, "turn")
    assert database.reading.execute("select boot from state").fetchone() == (boot,)
    database.close()


def test_nobody_else_reads_the_mail_whoever_made_the_directory(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    desk = Desk(directory)
    desk.away("bob")
    assert {path.name: path.stat().st_mode & 0o077 for path in directory.iterdir()} == dict.fromkeys(
        ("lock", "users", "mark", "mail.db", "mail.db-wal", "mail.db-shm"), 0
    )
    desk.close()


@pytest.mark.parametrize("before", ["turn", "second"])
def test_a_power_cut_is_told_also_if_only_later_workers_sync_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    boot = tmp_path / "boot"
    boot.write_text("one")
    monkeypatch.setattr("service.engine.identity._BOOT", boot)
    earlier = Database(tmp_path / "mailbox", before)
    later = Database(tmp_path / "mailbox", "second")
    epoch = "select epoch from state"
    was = later.reading.execute(epoch).fetchone()
    for each in (earlier, later):  # a power cut, and nobody leaves in good order
        each.reading.close()
        each.writing.close()
        each.lock.close()
        each._users.close()
    boot.write_text("two")
    again = Database(tmp_path / "mailbox", "turn")
    assert again.reading.execute(epoch).fetchone() != was
    again.close()


def test_no_more_is_read_than_is_sent(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *("x" * 50_000 for _ in range(WINDOW)))
    tracemalloc.start()
    found = desk.store.read_now(Address("bob"), 0, WINDOW, 100_100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(found.items), found.has_more, peak < 500_000) == (2, True, True)


@pytest.mark.parametrize("position", [{"after": 7}, {"epoch": "e"}, {"epoch": "", "after": None}])
def test_a_position_without_its_epoch_is_refused(desk: Desk, position: dict[str, Any]) -> None:
    bob = desk.comes("bob", **position)
    assert bob.heard_first()["code"] == 107


@pytest.mark.parametrize("position", [{"epoch": "", "after": 7}, {"epoch": "another", "after": 2**53 - 1}])
def test_an_unknown_position_is_told_and_what_is_there_is_sent_all_the_same(
    desk: Desk, alice: Party, position: dict[str, Any]
) -> None:
    desk.send(alice, "bob", "a", "b")
    bob, found = desk.arrives("bob", **position)
    assert (found["whole"], messages(bob)) == (False, ["a", "b"])


def test_a_position_of_the_future_is_told(desk: Desk, alice: Party) -> None:
    bob, found = desk.arrives("bob")
    desk.leaves(bob)
    desk.send(alice, "bob", "a")
    bob, again = desk.arrives("bob", epoch=found["epoch"], after=2**53 - 1)
    assert (again["whole"], messages(bob)) == (False, ["a"])


def test_a_long_absence_is_caught_up_with_from_its_beginning_to_its_end(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *range(1000))
    bob = desk.comes("bob")
    heard: list[Any] = []
    while frames := [frame for frame in bob.heard() if frame["type"] == "msg"]:
        heard += frames
        desk.acknowledges(bob, frames[-1]["offset"])
    assert [frame["message"] for frame in heard] == list(range(1000))


def test_what_comes_live_does_not_jump_over_what_was_missed(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *range(WINDOW + 10))
    bob = desk.comes("bob")
    frames = [frame for frame in bob.heard() if frame["type"] == "msg"]
    desk.send(alice, "bob", "live")
    assert bob.heard() == []
    desk.leaves(bob)
    bob = desk.comes("bob")
    assert messages(bob)[0] == 0
    desk.acknowledges(bob, frames[-1]["offset"])
    assert messages(bob) == [*range(WINDOW, WINDOW + 10), "live"]


def test_what_was_acknowledged_is_not_sent_again_on_any_later_connection(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    bob, found = desk.arrives("bob")
    last = offsets(bob)[-1]
    desk.acknowledges(bob, last)
    for position in ({}, {"epoch": found["epoch"], "after": last}):
        desk.leaves(bob)
        bob, found = desk.arrives("bob", **position)
        assert (found["whole"], found["after"], found["last"], bob.heard()) == (True, last, last, [])


def test_an_empty_mailbox_has_a_position_that_holds_later(desk: Desk, alice: Party) -> None:
    bob, found = desk.arrives("bob")
    assert (found["after"], bob.heard()) == (found["last"], [])
    desk.leaves(bob)
    desk.send(alice, "bob", "a")
    bob, found = desk.arrives("bob", epoch=found["epoch"], after=found["after"])
    assert (found["whole"], messages(bob)) == (True, ["a"])


def test_a_restart_loses_nothing_and_keeps_positions(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    bob, found = desk.arrives("bob")
    first = offsets(bob)[0]
    desk.acknowledges(bob, first)
    desk = desk.restarted()
    bob, again = desk.arrives("bob", epoch=found["epoch"], after=first)
    assert (again["whole"], messages(bob)) == (True, ["b", "c"])
    alice = desk.comes("alice")
    assert desk.send(alice, "bob", "d") == [ok(1)]
    desk.close()


def test_a_shorter_time_or_a_smaller_mailbox_deletes_nothing_without_a_word(desk: Desk, alice: Party) -> None:
    desk.send(alice, "bob", *"abc")
    desk = desk.restarted(messages=1)
    assert messages(desk.comes("bob")) == ["a", "b", "c"]
    desk.world.time += 100
    desk = desk.restarted(ttl=60)
    bob, found = desk.arrives("bob")
    assert (found["whole"], messages(bob)) == (False, [])
    desk.close()
