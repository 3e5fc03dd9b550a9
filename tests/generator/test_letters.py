"""Mailboxes in a real engine, as whoever installs a host and `wsbundle mailbox` see them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import generator.mailboxes
from generator.host import letters
from generator.report import CommandError
from service.mailbox.rights import RIGHTS, WAITS, rights, version_of
from service.settings import Engine, Mailbox
from tests.generator.front_door import ROOT, wsbundle
from tests.service.mailboxes import Desk
from tests.service.servers import PROGRAMS, Server, serving

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
    desk = Desk(tmp_path, engine=engine, prefix=b"nc:1:center:")
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


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("word", ["--export", "--import"])
def test_copies_are_those_of_the_engine(word: str) -> None:
    outcome = wsbundle("mailbox", word, "copy.db")
    assert outcome.code == 1
    assert "are copied and restored with all that it has" in outcome.err


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
