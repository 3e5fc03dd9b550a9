"""Mailboxes of several hosts in a real engine; every rule by itself is shown in test_mailbox."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.readers.engine import with_password
from service.mailbox.rights import RIGHTS, WAITS, rights
from tests.service.servers import PROGRAMS, Server, serving
from tests.service.shells import ROOT, Shell, wait_until
from tests.service.test_engine_faults import RIGHTS as OF_LINKS
from tests.service.test_engine_faults import Sentinels, as_user, refused
from tests.service.test_mailbox_conformance import Kept, messages
from tests.service.test_v1_conformance import Caller

pytestmark = pytest.mark.slow

# What an engine does that keeps mail.
KEEPS = ("--appendonly", "yes", "--appendfsync", "always")


class KeptThere(Kept):
    """A deployment of several hosts, whose mailboxes are in an engine."""

    def __init__(self, directory: Path, url: str, **more: str) -> None:
        super().__init__(directory)
        self.directory = directory
        self.more = {"WEBSOCKET_ENGINE_URL": url, "WEBSOCKET_ENGINE_SILENCE": "2", **more}

    def settings(self, **settings: str) -> dict[str, str]:
        given = super().settings(**{"WEBSOCKET_MAILBOX_KEEP": "engine", **self.more, **settings})
        del given["WEBSOCKET_MAILBOX_DIRECTORY"]
        return given

    @contextlib.contextmanager
    def host(self, name: str, **settings: str) -> Iterator[Shell]:
        """A host of one worker."""
        bus = str(self.directory / f"bus-{name}")
        with self.running(WEBSOCKET_ENGINE_HOST=name, WEBSOCKET_BUS=bus, **settings) as shell:
            yield shell

    def away(self, shell: Shell, *names: str) -> None:
        """These have a mailbox, and are not there."""
        for name in names:
            self.caller(shell, name, {}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)


@pytest.fixture(params=PROGRAMS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(request.param, tmp_path, *KEEPS) as server:
        yield server


@pytest.fixture
def kept(tmp_path: Path, engine: Server) -> KeptThere:
    return KeptThere(tmp_path, engine.url)


def is_at_rest(engine: Server) -> bool:
    """Whether nothing is asked of the mailboxes for a while."""

    def asked() -> list[str]:
        return re.findall(r"cmdstat_evalsha:calls=(\d+)", engine.ask("INFO", "commandstats"))

    before = asked()
    time.sleep(0.3)
    return asked() == before != []


def knows(kept: Kept, shell: Shell, name: str) -> Caller:
    """A sender whose host has heard that this one has a mailbox."""
    sender = kept.caller(shell, "finder")
    wait_until(lambda: sender.ask("send", recipient_uuid=name, message="is it stored?").get("stored") is True)
    return sender


def state(shell: Shell) -> str:
    """What /health says of the mailboxes."""
    return str(json.loads(shell.get("/health").body)["mailbox"])


def figure(engine: Server, name: str) -> int:
    """What the engine says of its memory."""
    found = re.search(rf"\b{name}:(\d+)", engine.ask("INFO", "memory"))
    assert found
    return int(found[1])


def sweeps(engine: Server) -> int:
    """How many scripts have run there."""
    found = re.search(r"cmdstat_evalsha:calls=(\d+)", engine.ask("INFO", "commandstats"))
    assert found
    return int(found[1])


def test_what_one_host_stores_the_owner_gets_from_another_one_and_the_receipt_comes_later(kept: KeptThere) -> None:
    with kept.host("a") as a, kept.host("b") as b:
        kept.away(b, "bob")
        with knows(kept, a, "bob"), kept.caller(a, "alice", {}) as alice:
            for number in range(5):
                answer = alice.ask("send", recipient_uuid="bob", message=number, ack="delivered")
                assert (answer["stored"], answer["online"], answer["receipts"]) == (True, 0, 1)
    # Both hosts are stopped, and started again; the sender comes back to the other one.
    with kept.host("a") as a, kept.host("b") as b:
        with kept.caller(b, "bob", {}) as bob:
            assert bob.greeting["mailbox"]["whole"] is True
            heard = [bob.hear() for _ in range(6)]
            assert [frame["message"] for frame in heard if frame["message"] != "is it stored?"] == [0, 1, 2, 3, 4]
            bob.tell("ack", offset=heard[-1]["offset"])
            bob.ask("ping")
        with kept.caller(b, "alice", {}) as alice:
            receipts = [alice.hear() for _ in range(5)]
            assert {(each["type"], each["recipient_uuid"]) for each in receipts} == {("delivered", "bob")}
        with kept.caller(a, "alice") as alice, kept.caller(b, "bob", {}) as bob:
            assert alice.ask("send", recipient_uuid="bob", message="live")["stored"] is True
            assert bob.hear()["message"] == "live"


def test_an_engine_that_is_away_is_said_to_senders_and_has_lost_nothing_when_it_is_back(
    kept: KeptThere, engine: Server
) -> None:
    with kept.host("a") as a:
        kept.away(a, "bob")
        with kept.caller(a, "alice") as alice:
            assert alice.ask("send", recipient_uuid="bob", message="before")["stored"] is True
            engine.kill()
            # One that was under way when the connection was lost: nobody knows.
            said = [alice.ask("send", recipient_uuid="bob", message="meanwhile") for _ in range(2)]
            assert said[0]["code"] in (116, 118)
            assert (said[1]["code"], said[1]["reason"]) == (118, "the mailbox cannot be written now")
            refusal = b"The mailbox of the recipient cannot be written now\n"
            assert kept.publish(a, "bob", "meanwhile") == (507, refusal)
            assert kept.caller(a, "carol").ask("send", recipient_uuid="alice", message="live")["online"] == 1
            assert alice.hear()["message"] == "live"
            with kept.caller(a, "bob") as bob:
                bob.tell("hello", id=9, uuid="bob", mailbox={})
                assert bob.close_code() == 4103
            engine.start()
            wait_until(lambda: alice.ask("send", recipient_uuid="bob", message="after").get("stored") is True)
        with kept.caller(a, "bob", {}) as bob:
            assert bob.greeting["mailbox"]["whole"] is True
            assert messages(bob, 2) == ["before", "after"]
        assert len(re.findall("mailboxes: .* is back", a.log())) == 1


def test_a_full_engine_is_said_to_senders_and_what_is_fetched_makes_room(kept: KeptThere, engine: Server) -> None:
    with kept.host("a") as a:
        kept.away(a, "bob")
        with kept.caller(a, "alice") as alice:
            for number in range(20):
                assert alice.ask("send", recipient_uuid="bob", message=[number, "x" * 20_000])["stored"] is True
            engine.ask("CONFIG", "SET", "maxmemory", "1")
            for _ in range(2):
                answer = alice.ask("send", recipient_uuid="bob", message="too much")
                assert (answer["code"], answer["reason"]) == (118, "the mailbox cannot be written now")
                swept = sweeps(engine)
                wait_until(lambda: sweeps(engine) > swept + 2)  # noqa: B023
            assert state(a) == "failing"
            assert "stores again" not in a.log()
            with kept.caller(a, "bob", {}) as bob:
                frames = [bob.hear() for _ in range(20)]
                assert [frame["message"][0] for frame in frames] == list(range(20))
                bob.tell("ack", offset=frames[-1]["offset"])
                wait_until(lambda: "mailbox_messages 0.0" in a.get("/metrics").body.decode())
            engine.ask("CONFIG", "SET", "maxmemory", "0")
            wait_until(lambda: state(a) == "up")
            assert alice.ask("send", recipient_uuid="bob", message="again")["stored"] is True
            assert (a.log().count("OOM"), a.log().count("stores again")) == (1, 1)


def test_to_confirm_one_long_message_does_not_let_the_engine_read_them_all(kept: KeptThere, engine: Server) -> None:
    long = {"WEBSOCKET_MAX_MESSAGE_SIZE": "600000", "WEBSOCKET_MAILBOX_BYTES": "100000000"}
    with kept.host("a", **long) as a:
        kept.away(a, "bob")
        with kept.caller(a, "alice") as alice:
            for _ in range(40):
                assert alice.ask("send", recipient_uuid="bob", message="x" * 500_000)["stored"] is True
        before = figure(engine, "used_memory")
        with kept.caller(a, "bob", {}) as bob:
            for number in range(5):
                bob.tell("ack", offset=bob.hear()["offset"])
                wait_until(lambda: f"mailbox_messages {39 - number}.0" in a.get("/metrics").body.decode())  # noqa: B023
        assert figure(engine, "used_memory_peak") < before + 5_000_000


def test_a_host_that_has_not_seen_the_mailboxes_yet_takes_nobody_for_without_one(
    kept: KeptThere, engine: Server
) -> None:
    engine.kill()
    with kept.host("a") as a:
        assert state(a) == "failing"  # so that it has started
        # It joins the others, and does not use the mailboxes.
        engine.start("--appendonly", "no")
        wait_until(lambda: json.loads(a.get("/health").body)["engine"] == "up")
        wait_until(lambda: "is of no use for mailboxes" in a.log())
        with kept.caller(a, "alice") as alice, kept.caller(a, "carol") as carol:
            assert alice.ask("send", recipient_uuid="bob", message="m")["code"] == 117
            assert kept.publish(a, "bob", "m") == (503, b"Other hosts cannot be reached now\n")
            assert alice.ask("send", recipient_uuid="carol", message="live")["online"] == 1
            assert carol.hear()["message"] == "live"


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_host_hands_over_that_does_not_know_of_the_mailbox_is_stored(
    program: str, tmp_path: Path, password: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("user default on nopass ~* &* +@all\nuser chat {}\n".format(" ".join(OF_LINKS)))
    with serving(program, tmp_path, *KEEPS, "--aclfile", str(users)) as engine:
        kept = KeptThere(tmp_path, engine.url)
        with kept.host("b") as b, kept.caller(b, "bob", {}) as bob:
            assert kept.publish(b, "bob", "before")[0] == 201
            assert bob.hear()["message"] == "before"
            wait_until(lambda: is_at_rest(engine))  # or bob is closed, whose mailbox is just being read
            engine.kill()
            with kept.host("a", **as_user(password)) as a:
                assert state(a) == "failing"  # so that it has started
                engine.start()
                wait_until(lambda: state(b) == "up")
                with kept.caller(a, "alice") as alice:
                    wait_until(lambda: alice.ask("presence", uuids=["bob"])["online"] == ["bob"])
                    assert alice.ask("send", recipient_uuid="bob", message="m")["online"] == 1
                    frame = bob.hear()
                    assert (frame["message"], frame["offset"] > 0) == ("m", True)
                assert state(a) == "failing"


@pytest.mark.parametrize("program", PROGRAMS)
def test_owners_stay_when_hosts_meet_before_the_mailboxes_are_back(
    program: str, tmp_path: Path, password: Path
) -> None:
    users, everybody = tmp_path / "users", "user default on nopass ~* &* +@all\nuser chat on >secret {}\n"
    users.write_text(everybody.format("~* &* +@all"))
    with serving(program, tmp_path, *KEEPS, "--aclfile", str(users)) as engine:
        kept = KeptThere(tmp_path, engine.url, **as_user(password))
        with kept.host("b") as b, kept.caller(b, "bob", {}) as bob:
            wait_until(lambda: is_at_rest(engine))
            engine.kill()
            wait_until(lambda: state(b) == "failing")
            assert kept.publish(b, "bob", "m")[0] == 507  # so that nobody waits for it any more
            with kept.host("a") as a:
                assert state(a) == "failing"  # so that it has started
                users.write_text(everybody.format(" ".join(OF_LINKS)))
                engine.start()
                with kept.caller(a, "alice") as alice:
                    wait_until(lambda: alice.ask("presence", uuids=["bob"])["online"] == ["bob"])
                assert state(b) == "failing"
                engine.ask("ACL", "SETUSER", "chat", "~*", "&*", "+@all")
                wait_until(lambda: state(b) == "up")
                assert kept.publish(b, "bob", "m")[0] == 201
                assert bob.hear()["message"] == "m"


def test_an_engine_that_lost_everything_is_noticed(kept: KeptThere, engine: Server) -> None:
    with kept.host("a") as a:
        with kept.caller(a, "bob", {}) as bob, kept.caller(a, "alice") as alice:
            found = bob.greeting["mailbox"]
            assert alice.ask("send", recipient_uuid="bob", message="lost")["stored"] is True
            engine.ask("FLUSHALL")
            assert bob.close_code() == 4103
        position = {"epoch": found["epoch"], "after": found["after"]}
        with kept.caller(a, "bob", position) as bob:
            assert bob.greeting["mailbox"]["whole"] is False
            assert bob.greeting["mailbox"]["epoch"] != found["epoch"]
        assert "it has lost all that was stored" in a.log()


@pytest.mark.parametrize("restarts", [False, True])
def test_an_engine_that_lost_everything_is_noticed_by_whoever_knew_what_it_had(
    restarts: bool, kept: KeptThere, engine: Server
) -> None:
    with kept.host("a") as a:
        kept.away(a, "bob")
        with kept.caller(a, "alice") as alice:
            assert alice.ask("send", recipient_uuid="bob", message="lost")["stored"] is True
        os.kill(a.process.pid, signal.SIGSTOP)
        if restarts:
            engine.kill()
            shutil.rmtree(engine.home / "appendonlydir")
            engine.start()
        else:
            engine.ask("FLUSHALL")
        # One that has just been started is the first to find nothing there.
        with kept.host("b") as b:
            kept.away(b, "carol")
            os.kill(a.process.pid, signal.SIGCONT)
            wait_until(lambda: "it has lost all that was stored" in a.log())
            # An owner that keeps no position.
            with kept.caller(b, "bob", {}) as bob:
                assert bob.greeting["mailbox"]["whole"] is False


def test_with_a_sync_once_a_second_a_restart_of_the_engine_is_told(kept: KeptThere, engine: Server) -> None:
    with kept.host("a", WEBSOCKET_MAILBOX_SYNC="second") as a:
        with kept.caller(a, "bob", {}) as bob:
            found = bob.greeting["mailbox"]
        engine.kill()
        engine.start()
        wait_until(lambda: "it was restarted, with mailbox.sync: second" in a.log())
        with kept.caller(a, "bob", {"epoch": found["epoch"], "after": found["after"]}) as bob:
            assert bob.greeting["mailbox"]["whole"] is False


def test_a_copy_that_was_restored_is_told(kept: KeptThere, engine: Server) -> None:
    with kept.host("a") as a, kept.caller(a, "bob", {}) as bob:
        found = bob.greeting["mailbox"]
    engine.ask("HSET", "nc:1:center:state", "run", "restored")
    for is_whole in (False, True):
        with (
            kept.host("a") as a,
            kept.caller(a, "bob", {"epoch": found["epoch"], "after": found["after"]}) as bob,
        ):
            found = bob.greeting["mailbox"]
            assert found["whole"] is is_whole
            bob.tell("ack", offset=found.get("lost_to", 0))
            bob.ask("ping")
            found["after"] = max(found["after"], found.get("lost_to", 0))


# What the engine must be, and let us do


def version(engine: Server) -> tuple[int, ...]:
    told = re.search(r"redis_version:(\d+)\.(\d+)", engine.ask("INFO", "server"))
    assert told
    return tuple(map(int, told.groups()))


def let(engine: Server, *words: str) -> None:
    """Give the user of the tests what links need, and these rights."""
    assert engine.ask("ACL", "SETUSER", "chat", "reset", *OF_LINKS, *words) == "+OK\r\n"


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("secret\n")
    return file


def test_these_rights_are_enough(kept: KeptThere, engine: Server, password: Path) -> None:
    let(engine, *rights("center", version(engine) < WAITS))
    kept.more |= as_user(password)
    with kept.host("a", WEBSOCKET_MAILBOX_TTL="60") as a, kept.host("b", WEBSOCKET_MAILBOX_TTL="60") as b:
        kept.away(a, "bob")
        with knows(kept, b, "bob") as alice:
            alice.ask("send", recipient_uuid="bob", message="m", dedup="1", ack="delivered")
            with kept.caller(a, "bob", {}) as bob:
                frames = [bob.hear(), bob.hear()]
                bob.tell("ack", offset=frames[-1]["offset"])
                assert alice.hear()["type"] == "delivered"
        assert "NOPERM" not in a.log() + b.log()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_served_engine_lets_the_service_do_all_that_it_does(program: str, tmp_path: Path, password: Path) -> None:
    rendered = ROOT / "tests/golden/engine-mailbox/expected/etc/queue-websocket/engine.users"
    users = tmp_path / "users"
    users.write_text(with_password(rendered.read_text(), "secret"))
    with serving(program, tmp_path, *KEEPS, "--aclfile", str(users)) as engine:
        served = {"WEBSOCKET_ENGINE_NAME": "queue-websocket", "WEBSOCKET_ENGINE_USER": "queue-websocket"}
        kept = KeptThere(tmp_path, engine.url, WEBSOCKET_ENGINE_PASSWORD_FILE=str(password), **served)
        with kept.host("a") as a, kept.host("b") as b:
            kept.away(a, "bob")
            with knows(kept, b, "bob") as alice:
                assert alice.ask("send", recipient_uuid="bob", message="m", dedup="1")["stored"] is True
            with kept.caller(b, "bob", {}) as bob:
                bob.tell("ack", offset=[bob.hear(), bob.hear()][-1]["offset"])
                wait_until(lambda: "mailbox_messages 0.0" in b.get("/metrics").body.decode())
            assert kept.publish(a, "bob", "before")[0] == 202
        # Whoever has not signed in may do nothing, and yet the engine reads its own file as that user.
        assert "NOAUTH" in engine.ask("XLEN", "nc:1:queue-websocket:mail:bob")
        engine.kill()
        engine.start()
        with kept.host("a") as a, kept.caller(a, "bob", {}) as bob:
            assert bob.greeting["mailbox"]["whole"] is True
            assert bob.hear()["message"] == "before"


@pytest.mark.parametrize("missing", [*RIGHTS, "~nc:1:center:*"])
def test_a_right_that_is_missing_is_named(missing: str, kept: KeptThere, engine: Server, password: Path) -> None:
    let(engine, *(right for right in rights("center", version(engine) < WAITS) if right != missing))
    settings = kept.settings(**as_user(password))
    said = refused("runner", kept.directory, settings.pop("WEBSOCKET_ENGINE_URL"), **settings)
    assert "lets user chat do too little for mailboxes" in said
    assert missing in said


@pytest.mark.parametrize("missing", ["hset", "zadd"])
def test_a_right_that_is_taken_away_leaves_nothing_uncounted_and_no_sender_in_the_belief_that_it_was_not_sent(
    missing: str, kept: KeptThere, engine: Server, password: Path
) -> None:
    let(engine, *rights("center", version(engine) < WAITS))
    kept.more |= as_user(password)
    with kept.host("a") as a:
        kept.away(a, "bob")
        # When carol has a mailbox, what is noted of bob as he leaves is written as well.
        with kept.caller(a, "carol", {}), kept.caller(a, "alice") as alice:
            engine.ask("ACL", "SETUSER", "chat", f"-{missing}")
            answer = alice.ask("send", recipient_uuid="bob", message="half-way")
            assert (answer["code"], answer["reason"]) == (116, "the mailbox has not confirmed it")
            wait_until(lambda: "lets user chat do too little for mailboxes" in a.log())
            assert a.log().count("until it can be used") == 1
    engine.ask("ACL", "SETUSER", "chat", f"+{missing}")
    with kept.host("a") as a:
        with kept.caller(a, "alice") as alice:
            for message in ("one", "two"):
                assert alice.ask("send", recipient_uuid="bob", message=message)["stored"] is True
        assert "mailbox_messages 3.0" in a.get("/metrics").body.decode()
        for expected in ("half-way", "one", "two"):  # each confirmed by itself, and what follows is still there
            with kept.caller(a, "bob", {}) as bob:
                frame = bob.hear()
                assert frame["message"] == expected
                bob.tell("ack", offset=frame["offset"])
                bob.ask("ping")
        wait_until(lambda: "mailbox_bytes 0.0" in a.get("/metrics").body.decode())


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("appendonly", "no", "set appendonly yes"), ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction")],
)
def test_an_engine_that_would_lose_mail_is_refused(
    key: str, value: str, what: str, kept: KeptThere, engine: Server
) -> None:
    engine.ask("CONFIG", "SET", key, value)
    settings = kept.settings()
    assert what in refused("runner", kept.directory, settings.pop("WEBSOCKET_ENGINE_URL"), **settings)


def test_an_engine_that_syncs_once_a_second_and_cannot_be_asked_to_wait_is_refused(
    kept: KeptThere, engine: Server
) -> None:
    engine.ask("CONFIG", "SET", "appendfsync", "everysec")
    settings = kept.settings()
    if version(engine) >= WAITS:
        with kept.host("a") as a:
            kept.away(a, "bob")
            assert kept.publish(a, "bob", "m")[0] == 202
    else:
        said = refused("runner", kept.directory, settings.pop("WEBSOCKET_ENGINE_URL"), **settings)
        assert "set appendfsync always there" in said
        with kept.host("a", WEBSOCKET_MAILBOX_SYNC="second") as a:
            kept.away(a, "bob")


def test_an_engine_that_never_syncs_is_said_to_senders_and_in_the_log(kept: KeptThere, engine: Server) -> None:
    if version(engine) < WAITS:
        pytest.skip("it is refused")
    engine.ask("CONFIG", "SET", "appendfsync", "no")
    with kept.host("a") as a:
        kept.away(a, "bob")
        with kept.caller(a, "alice") as alice:
            answer = alice.ask("send", recipient_uuid="bob", message="m")
            assert (answer["code"], answer["reason"]) == (116, "the mailbox has not confirmed it")
        assert "what it stores is on its disk; set appendfsync everysec or always there" in a.log()


def test_mailboxes_of_a_newer_release_are_left_alone(kept: KeptThere, engine: Server) -> None:
    engine.ask("HSET", "nc:1:center:state", "version", "99")
    settings = kept.settings()
    said = refused("runner", kept.directory, settings.pop("WEBSOCKET_ENGINE_URL"), **settings)
    assert said.count("are of a newer release") == 1


# Sentinel


@pytest.mark.parametrize("loses", [False, True], ids=["nothing lost", "the end lost"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_failover_keeps_what_was_told_to_be_stored_and_one_that_lost_the_end_is_noticed(
    name: str, loses: bool, tmp_path: Path
) -> None:
    sentinels = Sentinels(name, tmp_path, *KEEPS)
    with contextlib.closing(sentinels):
        kept = KeptThere(tmp_path, "redis://127.0.0.1:1", **sentinels.settings())
        with kept.host("a") as a, kept.host("b") as b:
            with kept.caller(a, "bob", {}) as bob:
                found = bob.greeting["mailbox"]
            with kept.caller(a, "alice") as alice:
                assert alice.ask("send", recipient_uuid="bob", message="on both")["stored"] is True
                if loses:
                    sentinels.relay.is_cut = True
                    answer = alice.ask("send", recipient_uuid="bob", message="on one")
                    assert (answer["code"], answer["reason"]) == (116, "the mailbox has not confirmed it")
                sentinels.master.send(signal.SIGKILL)
                wait_until(lambda: sentinels.replica.is_a("master"))
                wait_until(lambda: re.search("mailboxes: .* is back", a.log()) is not None)
                # Nobody confirms what is stored while there is one server only.
                answer = alice.ask("send", recipient_uuid="bob", message="alone")
                assert (answer["code"], answer["reason"]) == (116, "the mailbox has not confirmed it")
            with kept.caller(a, "bob", {"epoch": found["epoch"], "after": found["after"]}) as bob:
                assert bob.greeting["mailbox"]["whole"] is not loses
                assert messages(bob, 2) == ["on both", "alone"]
            # Whichever host has noticed it first.
            assert ("it has lost the end of what was stored" in a.log() + b.log()) is loses
