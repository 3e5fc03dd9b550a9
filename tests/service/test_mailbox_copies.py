"""Looking at mailboxes, and their backup: written while the service runs, and told when it is restored."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from generator.mailboxes import _lines
from service.mailbox import copies
from service.mailbox.database import FILE
from tests.in_process import program
from tests.programs import needs
from tests.service.shells import ROOT, wait_until
from tests.service.test_mailbox_conformance import Kept, messages


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def desk(*words: object) -> "subprocess.CompletedProcess[str]":
    return program("service.mailbox", *map(str, words), environ=os.environ)


def test_a_backup_is_written_while_the_service_runs_and_its_restoration_is_told(kept: Kept, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with kept.running() as shell:
        with kept.caller(shell, "bob", {}) as bob:
            found = bob.greeting["mailbox"]
        wait_until(lambda: shell.connections() == 0)
        with kept.caller(shell, "alice") as alice:
            alice.ask("send", recipient_uuid="bob", message="before")
            assert desk("export", kept.mailbox, backup).returncode == 0
            alice.ask("send", recipient_uuid="bob", message="after")
        refused = desk("import", kept.mailbox, backup)
        assert (refused.returncode, "the service is running; stop it first" in refused.stderr) == (1, True)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert desk("import", kept.mailbox, backup).returncode == 0
    position = {"epoch": found["epoch"], "after": found["after"]}
    with kept.running() as shell, kept.caller(shell, "bob", position) as bob:
        assert bob.greeting["mailbox"]["whole"] is False
        assert messages(bob, 1) == ["before"]
        assert "was copied or restored from a backup" in shell.log()


def test_what_mailboxes_hold_is_shown_for_all_and_for_one(kept: Kept) -> None:
    with kept.running() as shell:
        kept.caller(shell, "bob", {}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)
        with kept.caller(shell, "alice") as alice:
            for number in range(3):
                alice.ask("send", recipient_uuid="bob", message=number)
        whole, one = json.loads(desk("show", kept.mailbox).stdout), json.loads(desk("show", kept.mailbox, "bob").stdout)
    assert (whole["mailboxes"], whole["messages"], whole["bytes"]) == (1, 3, 3 * 65)
    assert whole["fullest"] == [{"address": "bob", "messages": 3, "bytes": 195}]
    assert (one["messages"], one["oldest"] <= one["newest"]) == (3, True)
    unknown = desk("show", kept.mailbox, "carol")
    assert (unknown.returncode, unknown.stderr.startswith("carol has no mailbox: ")) == (1, True)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read as one" * 100])
def test_what_is_no_backup_is_refused_and_nothing_changes(kept: Kept, tmp_path: Path, content: bytes) -> None:
    kept.mailbox.mkdir()
    (tmp_path / "backup.db").write_bytes(content)
    done = desk("import", kept.mailbox, tmp_path / "backup.db")
    assert done.returncode == 1
    assert "is not a copy of mailboxes" in done.stderr
    assert not (kept.mailbox / FILE).exists()


def test_nothing_is_written_over_and_nothing_is_found_where_there_is_nothing(kept: Kept, tmp_path: Path) -> None:
    assert "there are no mailboxes in" in desk("show", kept.mailbox).stderr
    with kept.running():
        wait_until(lambda: (kept.mailbox / FILE).exists() and desk("show", kept.mailbox).returncode == 0)
        (tmp_path / "there").write_text("mine")
        assert "is there already" in desk("export", kept.mailbox, tmp_path / "there").stderr
    assert (tmp_path / "there").read_text() == "mine"


def test_nothing_is_left_of_a_copy_that_cannot_be_completed(tmp_path: Path) -> None:
    with Path("/proc/self/mem").open("rb") as content, pytest.raises(OSError, match=r"Input/output error: .*/copy\.db"):
        copies.write_new(tmp_path / "copy.db", content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_root_leaves_no_file_that_the_service_could_not_use(kept: Kept) -> None:
    with kept.running():
        wait_until(lambda: (kept.mailbox / FILE).exists() and desk("show", kept.mailbox).returncode == 0)
    for path in (kept.mailbox, *kept.mailbox.iterdir()):
        os.chown(path, 65534, 65534)
    for parent in kept.mailbox.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    assert desk("show", kept.mailbox).returncode == 0
    assert desk("export", kept.mailbox, kept.mailbox.parent / "copy.db").returncode == 0
    assert desk("import", kept.mailbox, kept.mailbox.parent / "copy.db").returncode == 0
    assert {path.stat().st_uid for path in kept.mailbox.iterdir()} == {65534}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write where a link leads to")
@pytest.mark.parametrize("name", ["import", "export"])
def test_root_follows_no_link_that_the_service_has_put_there(kept: Kept, tmp_path: Path, name: str) -> None:
    with kept.running():
        wait_until(lambda: (kept.mailbox / FILE).exists() and desk("show", kept.mailbox).returncode == 0)
    assert desk("export", kept.mailbox, tmp_path / "copy.db").returncode == 0
    victim = tmp_path / "victim"
    victim.write_text("of root")
    victim.chmod(0o600)
    (kept.mailbox / name).symlink_to(victim)
    for path in (kept.mailbox, *kept.mailbox.iterdir()):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for parent in kept.mailbox.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    file = tmp_path / ("copy.db" if name == "import" else "another.db")
    assert desk(name, kept.mailbox, file).returncode == 0
    assert (victim.read_text(), victim.stat().st_uid, victim.stat().st_mode & 0o777) == ("of root", 0, 0o600)


@needs("strace")
def test_a_restored_copy_survives_a_power_cut_and_so_does_what_was_there_until_then(kept: Kept, tmp_path: Path) -> None:
    with kept.running() as shell:
        kept.caller(shell, "bob", {}).__exit__(None, None, None)
        assert desk("export", kept.mailbox, tmp_path / "backup.db").returncode == 0
        with kept.caller(shell, "alice") as alice:
            alice.ask("send", recipient_uuid="bob", message="after")
        shell.process.kill()  # what was stored last is beside the file
    command = [sys.executable, "-m", "service.mailbox", "import", str(kept.mailbox), str(tmp_path / "backup.db")]
    watched = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,rename,unlink", "-o", str(tmp_path / "trace")]
    subprocess.run([*watched, *command], cwd=ROOT, check=True)
    done = (tmp_path / "trace").read_text().splitlines()
    (renamed,) = (at for at, call in enumerate(done) if f'rename("{kept.mailbox}/import"' in call)
    assert any(f"fsync({{fd}}<{kept.mailbox}>)" in re.sub(r"sync\(\d+<", "sync({fd}<", call) for call in done[renamed:])
    emptied = next(at for at, call in enumerate(done) if f'unlink("{kept.mailbox}/{FILE}-wal")' in call)
    assert any("sync(" in call and f"{kept.mailbox}/{FILE}>" in call for call in done[:emptied])


def test_a_backup_that_is_not_there_is_not_made(kept: Kept, tmp_path: Path) -> None:
    kept.mailbox.mkdir()
    done = desk("import", kept.mailbox, tmp_path / "backup.db")
    assert (done.returncode, done.stderr) == (1, f"there is no file {tmp_path / 'backup.db'}\n")
    assert not (tmp_path / "backup.db").exists()


def test_it_is_said_in_words() -> None:
    found = {"mailboxes": 2, "messages": 3, "bytes": 1312, "oldest": 1000.0, "file_bytes": 49152}
    fullest = [{"address": "alice", "messages": 3, "bytes": 1312}]
    assert _lines({**found, "fullest": fullest}, 1000.0 + 5 * 3600) == [
        "2 mailboxes: 3 messages of 1312 bytes, the oldest 5 hours ago; the file has 49152 bytes",
        "  alice: 3 messages, 1312 bytes",
    ]
    one = {"address": "bob", "messages": 0, "bytes": 0, "oldest": None, "owner_seen": 1000.0}
    assert _lines(one, 1030.0) == ["0 messages of 0 bytes", "its owner was here 30 seconds ago"]
