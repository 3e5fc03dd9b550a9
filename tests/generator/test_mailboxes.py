"""`wsbundle mailbox`: what it prints, and that it copies and restores."""

import json
from pathlib import Path

import pytest

import generator.mailboxes
from service.core.addresses import Address
from service.core.mailbox import Kind, Letter
from service.mailbox.database import Database
from service.mailbox.history import uptime
from service.mailbox.ledger import SECOND, Ledger
from service.settings import Mailbox
from tests.generator.front_door import wsbundle


@pytest.fixture(autouse=True)
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a sound deploy.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.yaml").write_text("domain: ws.mycompany.org\nauth: token\nmailbox: {keep: disk}\n")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three messages for bob, in a directory of the test."""
    directory = tmp_path / "mailbox"
    monkeypatch.setattr(generator.mailboxes, "mailbox", lambda deploy: Mailbox(directory=str(directory)))
    database = Database(directory, "turn", lambda: uptime() - 7200 * SECOND)
    database.writing.execute("begin immediate")
    ledger = Ledger(database.writing, Mailbox(), database.now())
    ledger.open(Address("bob"), None)
    for number in range(3):
        ledger.keep(Letter(Address("bob"), Address("alice"), Kind.JSON, b"%d" % number))
    ledger.finish()
    database.writing.execute("commit")
    database.close()
    return directory


@pytest.mark.parametrize("words", [(), ("bob",), ("--export", "copy.db")])
def test_where_there_are_none_it_says_so(words: tuple[str, ...]) -> None:
    outcome = wsbundle("mailbox", *words)
    told = "there are no mailboxes in /var/lib/queue-websocket/mailbox; mailbox.keep: disk makes them\n"
    assert (outcome.code, outcome.out, outcome.err) == (1, "", told)


def test_a_copy_that_cannot_be_written_is_named_and_not_the_mailboxes(kept: Path, tmp_path: Path) -> None:
    told = f"{tmp_path}/none/copy.db: No such file or directory\n"
    assert wsbundle("mailbox", "--export", "none/copy.db").err == told


def test_it_prints_all_or_one(kept: Path) -> None:
    outcome = wsbundle("mailbox")
    assert outcome.code == 0
    first, second = outcome.out.splitlines()
    assert first.startswith("1 mailboxes: 3 messages of 195 bytes, the oldest 2 hours ago; the file has ")
    assert second == "  bob: 3 messages, 195 bytes"
    assert wsbundle("mailbox", "bob").out.splitlines() == [
        "3 messages of 195 bytes, the oldest 2 hours ago",
        "its owner was here 2 hours ago",
    ]
    assert json.loads(wsbundle("mailbox", "--format", "json").out)["messages"] == 3


def test_it_writes_a_copy_and_puts_it_back(kept: Path) -> None:
    assert wsbundle("mailbox", "--export", "copy.db").code == 0
    (kept / "mail.db").unlink()
    assert wsbundle("mailbox", "--import", "copy.db").code == 0
    assert json.loads(wsbundle("mailbox", "bob", "--format", "json").out)["messages"] == 3


def test_a_copy_is_not_written_over_another_file(kept: Path) -> None:
    Path("copy.db").write_text("mine")
    outcome = wsbundle("mailbox", "--export", "copy.db")
    assert (outcome.code, Path("copy.db").read_text()) == (1, "mine")
