"""Mailboxes in a real engine, as whoever installs a host and `wsbundle mailbox` see them."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import generator.mailboxes
from generator.host import letters
from generator.report import CommandError
from service.mailbox import script
from service.mailbox.__main__ import export, restore
from service.mailbox.rights import RIGHTS, WAITS, rights, version_of
from service.settings import Engine, Mailbox
from tests.generator.front_door import ROOT, wsbundle
from tests.service.mailboxes import Desk
from tests.service.servers import PROGRAMS, Server, serving
from tests.service.test_mailbox_hosts import KeptThere, state

OF_LINKS = ("resetchannels", "&nc:*:center:*", "-@all", "+@connection", "+publish", "+subscribe", "+info")


@pytest.fixture(params=PROGRAMS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serving(request.param, tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def is_old(engine: Server) -> bool:
    facts = dict(line.split(":", 1) for line in engine.ask("INFO", "server").splitlines() if ":" in line)
    return version_of(facts) < WAITS


def ours(engine: Server, **more: Any) -> Engine:
    return Engine(url=engine.url, name="center", **more)


def said(engine: Server, mailbox: Mailbox | None = None, **more: Any) -> list[str]:
    return [str(fault) for fault in letters.faults(ours(engine, **more), mailbox or Mailbox(keep="engine"))]


def test_an_engine_that_keeps_mail_is_accepted(engine: Server) -> None:
    assert said(engine) == []


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("appendonly", "no", "it keeps nothing through a restart; set appendonly yes there"),
        ("maxmemory-policy", "allkeys-lru", "when it is full; set maxmemory-policy noeviction there"),
        ("maxmemory", "1000000000", "the engine has maxmemory 1000000000, and full mailboxes need 2147483648"),
    ],
)
def test_one_that_would_lose_mail_or_has_no_room_is_refused(engine: Server, key: str, value: str, what: str) -> None:
    engine.ask("CONFIG", "SET", key, value)
    (fault,) = said(engine)
    assert what in fault


def test_one_that_leaves_it_to_the_system_when_it_syncs_is_refused(engine: Server) -> None:
    engine.ask("CONFIG", "SET", "appendfsync", "no")
    (fault,) = said(engine)
    assert "set appendfsync" in fault


def test_an_old_one_that_syncs_once_a_second_is_refused(engine: Server) -> None:
    engine.ask("CONFIG", "SET", "appendfsync", "everysec")
    assert bool(said(engine)) is is_old(engine)
    assert said(engine, Mailbox(keep="engine", sync="second")) == []


@pytest.mark.parametrize("missing", [None, *RIGHTS, "~nc:1:center:*", "+config|get"])
def test_it_is_asked_whether_it_lets_the_service_do_all(engine: Server, tmp_path: Path, missing: str | None) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    needed = rights("center", is_old(engine))
    given = [right for right in needed if right != missing]
    assert engine.ask("ACL", "SETUSER", "chat", "reset", "on", ">secret", *OF_LINKS, *given) == "+OK\r\n"
    faults = said(engine, user="chat", password_file=str(password))
    if missing in needed:
        (fault,) = faults
        assert "the engine lets chat do too little for mailboxes" in fault
        assert fault.endswith(f"let it also {' '.join(needed)}")
    else:
        assert faults == []


def test_one_that_could_not_read_what_it_stored_is_refused_where_the_user_may_ask(
    engine: Server, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    chat: dict[str, Any] = {"user": "chat", "password_file": str(password)}
    let = ("ACL", "SETUSER", "chat", "reset", "on", ">secret", *OF_LINKS, *rights("center", is_old(engine)))
    engine.ask(*let, "+acl|dryrun")
    assert said(engine, **chat) == []
    for less, refused in (("-xadd", "xadd"), ("resetkeys", "hset, set, del, xadd, xtrim, zadd, zrem")):
        engine.ask("ACL", "SETUSER", "default", less)
        (fault,) = said(engine, **chat)
        assert f"its user default may not {refused}; `ACL SETUSER default +@all ~*` there" in fault
    engine.ask(*let)
    assert said(engine, **chat) == []  # nobody can know


def test_an_engine_that_is_away_is_a_fault(engine: Server) -> None:
    engine.kill()
    assert "cannot be reached" in said(engine)[0]


def test_what_is_served_is_what_is_needed() -> None:
    users = (ROOT / "tests/golden/engine-mailbox/expected/etc/queue-websocket/engine.users").read_text()
    words = users.splitlines()[1].split()
    assert {*RIGHTS, "+config|get", "+@connection", "~nc:*:queue-websocket:*"} <= {*words}
    others = {"user", "queue-websocket", "on", "resetchannels", "&nc:*:queue-websocket:*", "-@all", "-@dangerous"}
    others |= {"+publish", "+subscribe", "+unsubscribe", "+info"}
    assert {*words} - others == {*RIGHTS, "+config|get", "+@connection", "~nc:*:queue-websocket:*"}


@pytest.fixture
def kept(engine: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three messages for bob, and a deploy.yaml that says where."""
    desk = Desk(tmp_path, time.time(), engine, b"nc:1:center:")
    desk.away("bob")
    desk.send(desk.comes("alice"), "bob", 0, 1, 2)
    monkeypatch.chdir(tmp_path)
    Path("deploy.yaml").write_text(
        "domain: ws.mycompany.org\nauth: token\nmailbox: {keep: engine}\n"
        'engine: {url: "unix:///run/valkey/valkey.sock"}\n'
    )
    monkeypatch.setattr(generator.mailboxes, "engine_settings", lambda _: ours(engine))


@pytest.mark.usefixtures("kept")
def test_wsbundle_shows_all_or_one() -> None:
    outcome = wsbundle("mailbox")
    assert (outcome.code, outcome.err) == (0, "")
    first, second = outcome.out.splitlines()
    assert first.startswith("2 mailboxes: 3 messages of 195 bytes, the oldest ")
    assert second == "  bob: 3 messages, 195 bytes"
    assert wsbundle("mailbox", "bob").out.startswith("3 messages of 195 bytes, the oldest ")
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 3
    assert "carol has no mailbox" in wsbundle("mailbox", "carol").err


def filled(directory: Path, **settings: Any) -> Desk:
    """Three messages for bob, of which he has the first, and of the last the sender wants to hear; none for alice."""
    desk = Desk(directory, **settings)
    bob, alice = desk.comes("bob"), desk.comes("alice")
    desk.send(alice, "bob", 0)
    desk.acknowledges(bob, bob.heard()[-1]["offset"])
    desk.leaves(bob)
    desk.passes(600)
    desk.send(alice, "bob", 1)
    desk.send(alice, "bob", "2, \u00e4", ack="delivered")
    desk.leaves(alice)
    return desk


def finds(desk: Desk, name: str, **position: Any) -> tuple[bool, list[Any]]:
    """Whether an owner hears that all is there, and what it then gets, which it confirms."""
    party, found = desk.arrives(name, **position)
    heard = party.heard()
    desk.acknowledges(party, heard[-1]["offset"] if heard else found["last"])
    desk.leaves(party)
    return found["whole"], [frame["message"] if frame["type"] == "msg" else frame["type"] for frame in heard]


def moved_to_disk(file: Path, directory: Path) -> Desk:
    directory.mkdir(exist_ok=True)
    restore(directory, file)
    return Desk(directory)


@pytest.mark.usefixtures("kept")
def test_what_is_on_a_disk_is_moved_to_the_engine_and_back(engine: Server, tmp_path: Path) -> None:
    there, began = filled(tmp_path / "disk"), time.time()
    there.close()
    export(tmp_path / "disk", tmp_path / "copy.db")
    restored = wsbundle("mailbox", "--import", "copy.db")
    assert (restored.code, restored.err) == (0, "")
    found = json.loads(wsbundle("mailbox", "bob", "--format", "json").out)
    assert found["messages"] == 2
    assert began - 1 < found["oldest"] < time.time() + 1
    # The other way, before anybody has fetched anything; and then each owner fetches it in either place.
    exported = wsbundle("mailbox", "--export", "back.db")
    assert (exported.code, exported.err) == (0, "")
    assert Path("back.db").stat().st_mode & 0o777 == 0o600
    in_engine = Desk(tmp_path, time.time(), engine, b"nc:1:center:")
    with closing(moved_to_disk(tmp_path / "back.db", tmp_path / "again")) as back:
        for desk in (in_engine, back):
            assert finds(desk, "bob") == (False, [1, "2, \u00e4"])
            assert finds(desk, "alice") == (False, ["delivered"])
            assert finds(desk, "bob") == finds(desk, "alice") == (True, [])
            desk.send(desk.comes("carol"), "bob", "live")
            assert finds(desk, "bob") == (True, ["live"])
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 0


@pytest.mark.usefixtures("kept")
def test_what_is_older_there_stays_older_and_ends_in_its_time(engine: Server, tmp_path: Path) -> None:
    long_ago = filled(tmp_path / "disk")  # by a clock that had not been set
    long_ago.passes(7200)
    long_ago.close()
    export(tmp_path / "disk", tmp_path / "copy.db")
    assert wsbundle("mailbox", "--import", "copy.db").code == 0
    found = json.loads(wsbundle("mailbox", "bob", "--format", "json").out)
    assert 7200 <= time.time() - found["oldest"] < 7300
    desk = Desk(tmp_path, time.time(), engine, b"nc:1:center:", ttl=7300)
    desk.passes(10)
    assert desk.store.holds[0] == 2
    desk.passes(120)
    assert finds(desk, "bob") == (False, [])
    assert finds(desk, "alice") == (False, ["lost"])


@pytest.mark.usefixtures("kept")
def test_a_copy_takes_the_place_of_all_that_was_there(engine: Server) -> None:
    desk = Desk(Path(), time.time(), engine, b"nc:1:center:")
    desk.away("carol")
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    assert "is there already" in wsbundle("mailbox", "--export", "copy.db").err
    desk.away("dave")
    sender = desk.comes("eve")
    desk.send(sender, "bob", "later", dedup="1")
    desk.send(sender, "dave", "to somebody new")
    assert wsbundle("mailbox", "--import", "copy.db").code == 0
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["mailboxes"] == 3
    again = Desk(Path(), time.time(), engine, b"nc:1:center:")
    # It was told to be stored, which is not so any more.
    (answer,) = again.send(again.comes("eve"), "bob", "later", dedup="1")
    assert answer["stored"] is True
    assert finds(again, "bob") == (False, [0, 1, 2, "later"])
    assert finds(again, "dave") == (False, [])  # whose mailbox is newer than the copy


@pytest.mark.usefixtures("kept")
def test_more_than_is_read_at_once_is_copied(engine: Server) -> None:
    desk = Desk(Path(), time.time(), engine, b"nc:1:center:")
    desk.send(desk.comes("alice"), "bob", *range(3, 350))
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    engine.ask("FLUSHALL")
    assert wsbundle("mailbox", "--import", "copy.db").code == 0
    assert wsbundle("mailbox", "--export", "again.db").code == 0
    numbers = []
    for file in ("copy.db", "again.db"):
        with closing(sqlite3.connect(file)) as database:
            numbers.append([int(body) for (body,) in database.execute("select body from mail order by off")])
            assert database.execute("select messages, bytes from state").fetchone() == (350, 350 * 64 + 10 + 180 + 750)
    assert numbers == [list(range(350))] * 2


@pytest.mark.usefixtures("kept")
def test_a_copy_is_not_put_under_a_service_that_runs(engine: Server, tmp_path: Path) -> None:
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    with KeptThere(tmp_path, engine.url).host("a") as a:
        assert state(a) == "up"
        outcome = wsbundle("mailbox", "--import", "copy.db")
    assert (outcome.code, "stop it on every host first" in outcome.err) == (1, True)
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 3


@pytest.mark.usefixtures("kept")
def test_an_import_that_does_not_come_to_its_end_is_told_to_recipients(
    engine: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(Path(), time.time(), engine, b"nc:1:center:")
    desk.away("carol")
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    # The service is started when the first mailbox has come back.
    monkeypatch.setattr(letters, "_MOST", 1)
    steps, put = letters._steps, list[str]()

    def started_meanwhile(*given: Any) -> Iterator[script.Call]:
        for step in steps(*given):
            if put.count("put") == 2 and "begun" not in put:
                put.append("begun")
                Desk(Path(), time.time(), engine, b"nc:1:center:")
            put.append(step.words[0].decode())
            yield step

    monkeypatch.setattr(letters, "_steps", started_meanwhile)
    outcome = wsbundle("mailbox", "--import", "copy.db")
    assert (outcome.code, "stop it on every host, and import again" in outcome.err) == (1, True)
    again = Desk(Path(), time.time(), engine, b"nc:1:center:")
    assert [finds(again, name)[0] for name in ("alice", "bob", "carol")] == [False] * 3
    monkeypatch.setattr(letters, "_steps", steps)
    assert wsbundle("mailbox", "--import", "copy.db").code == 0
    assert finds(Desk(Path(), time.time(), engine, b"nc:1:center:"), "bob") == (False, [0, 1, 2])


@pytest.mark.usefixtures("kept")
def test_a_copy_for_which_the_engine_has_no_room_changes_nothing(engine: Server) -> None:
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    engine.ask("CONFIG", "SET", "maxmemory", "5000")
    outcome = wsbundle("mailbox", "--import", "copy.db")
    assert (outcome.code, "has maxmemory 5000, and the copy needs" in outcome.err) == (1, True)
    engine.ask("CONFIG", "SET", "maxmemory", "100000")  # of which it has taken more already
    outcome = wsbundle("mailbox", "--import", "copy.db")
    assert outcome.code == 1
    assert "make room, and do this again" in outcome.err
    engine.ask("CONFIG", "SET", "maxmemory", "0")
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 3


@pytest.mark.usefixtures("kept")
def test_what_is_no_copy_is_refused() -> None:
    assert "there is no file" in wsbundle("mailbox", "--import", "copy.db").err
    Path("copy.db").write_text("no database at all, but long enough to be read as one" * 100)
    assert "is not a copy of mailboxes" in wsbundle("mailbox", "--import", "copy.db").err
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 3


@pytest.mark.usefixtures("kept")
def test_mailboxes_of_a_newer_release_are_neither_shown_nor_called_out_of_reach(engine: Server) -> None:
    engine.ask("HSET", "nc:1:center:state", "version", "99")
    newer = "are of a newer release; install that one again"
    assert newer in wsbundle("mailbox").err
    (fault,) = said(engine)
    assert newer in fault


@pytest.mark.usefixtures("kept")
def test_a_user_that_may_not_look_is_told_what_it_lacks(engine: Server, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    needed = rights("center", False)
    engine.ask("ACL", "SETUSER", "chat", "reset", "on", ">secret", *OF_LINKS, *needed, "-hmget")
    with pytest.raises(CommandError) as refused:
        letters.look(ours(engine, user="chat", password_file=str(password)), Mailbox(keep="engine"), None)
    assert "lets chat do too little for mailboxes" in str(refused.value)
    assert str(refused.value).endswith(f"let it also {' '.join(needed)}")


def test_where_there_are_none_it_says_so(engine: Server) -> None:
    with pytest.raises(CommandError, match="there are no mailboxes in the engine at"):
        letters.look(ours(engine), Mailbox(keep="engine"), None)
