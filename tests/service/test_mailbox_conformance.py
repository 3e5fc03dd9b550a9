"""Mailboxes of a running service, whichever way it was started; every rule by itself is shown in test_mailbox."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from service.mailbox.database import FILE
from service.mint import add_key, mint
from tests.service.processes import OURS, Processes, several
from tests.service.service_manager import Unit
from tests.service.shells import COMMANDS, DEADLINE_S, Shell, clean_environment, running, wait_until
from tests.service.test_v1_conformance import Caller

OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "runner"]


class Kept:
    """The files of a deployment that keeps messages, while its service comes and goes."""

    def __init__(self, directory: Path) -> None:
        self.mailbox = directory / "mailbox"
        self.keys = str(directory / "keys.json")
        add_key(self.keys, "HS256")

    def settings(self, **settings: str) -> dict[str, str]:
        return {
            "WEBSOCKET_AUTH": "token",
            "WEBSOCKET_KEYS": self.keys,
            "WEBSOCKET_MAILBOX_KEEP": "disk",
            "WEBSOCKET_MAILBOX_DIRECTORY": str(self.mailbox),
            **settings,
        }

    @contextlib.contextmanager
    def running(self, kind: str = "runner", **settings: str) -> Iterator[Shell]:
        with running(COMMANDS[kind], **self.settings(**settings)) as shell:
            yield shell
            assert "Traceback" not in shell.log()

    def token(self, name: str) -> str:
        return mint(self.keys, name, 3600, ["*"])

    def caller(self, shell: Shell | Unit, name: str, mailbox: dict[str, Any] | None = None) -> Caller:
        wanted = {} if mailbox is None else {"mailbox": mailbox}
        return Caller(shell, name, token=self.token(name), **wanted)

    def publish(self, shell: Shell, to: str, text: str, **fields: str) -> tuple[int, bytes]:
        """The answer over HTTP."""
        request = urllib.request.Request(f"http://127.0.0.1:{shell.port}/publish/{to}", text.encode(), method="POST")
        for name, value in {"Authorization": f"Bearer {self.token('script')}", **fields}.items():
            request.add_header(name, value)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=DEADLINE_S) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def messages(caller: Caller, number: int) -> list[Any]:
    return [caller.hear()["message"] for _ in range(number)]


def leave_alone(file: Path) -> None:
    """Put what is beside a database into it, as the last one does that closes it."""
    with contextlib.closing(sqlite3.connect(file)) as last:
        last.execute("select * from state").fetchall()


@pytest.mark.parametrize("kind", ["runner", *OTHERS])
def test_what_was_stored_is_found_again_after_a_restart_of_the_service(kept: Kept, kind: str) -> None:
    with kept.running(kind) as shell:
        with kept.caller(shell, "bob", {}) as bob:
            found = bob.greeting["mailbox"]
            assert found["whole"] is True
        wait_until(lambda: shell.connections() == 0)
        with kept.caller(shell, "alice") as alice:
            for number in range(3):
                answer = alice.ask("send", recipient_uuid="bob", message=number)
                assert (answer["stored"], answer["online"]) == (True, 0)
    with (
        kept.running(kind) as shell,
        kept.caller(shell, "bob", {"epoch": found["epoch"], "after": found["after"]}) as bob,
    ):
        assert bob.greeting["mailbox"]["whole"] is True
        assert messages(bob, 3) == [0, 1, 2]
        with kept.caller(shell, "alice") as alice:
            assert alice.ask("send", recipient_uuid="bob", message="live")["online"] == 1
        assert bob.hear()["message"] == "live"


def test_a_publication_is_kept_and_told_so_and_a_full_mailbox_is_507(kept: Kept) -> None:
    with kept.running(WEBSOCKET_MAILBOX_MESSAGES="2") as shell:
        kept.caller(shell, "bob", {}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)
        assert kept.publish(shell, "bob", "one", **{"Idempotency-Key": "k"}) == (202, b'{"online": 0, "stored": true}')
        assert kept.publish(shell, "bob", "one", **{"Idempotency-Key": "k"}) == (202, b'{"online": 0, "stored": true}')
        assert kept.publish(shell, "carol", "nobody") == (202, b'{"online": 0}')
        with kept.caller(shell, "bob", {}) as bob:
            assert kept.publish(shell, "bob", "two") == (201, b'{"online": 1, "stored": true}')
            assert messages(bob, 2) == ["one", "two"]
        status, body = kept.publish(shell, "bob", "three")
        assert (status, body) == (507, b"The mailbox of the recipient is full\n")


def test_a_broken_file_is_set_aside_with_a_line_in_the_log_and_recipients_are_told(kept: Kept) -> None:
    with kept.running() as shell, kept.caller(shell, "bob", {}) as bob:
        found = bob.greeting["mailbox"]
        with kept.caller(shell, "alice") as alice:
            for _ in range(200):
                alice.ask("send", recipient_uuid="bob", message="x" * 1000)
    file = kept.mailbox / FILE
    leave_alone(file)
    damaged = bytearray(file.read_bytes())
    damaged[4096 : len(damaged) // 2] = b"\xff" * (len(damaged) // 2 - 4096)
    file.write_bytes(damaged)
    position = {"epoch": found["epoch"], "after": found["after"]}
    with kept.running() as shell, kept.caller(shell, "bob", position) as bob:
        assert bob.greeting["mailbox"]["whole"] is False
        assert bob.greeting["mailbox"]["epoch"] != found["epoch"]
        # Nobody knows any more who had a mailbox: whoever has no position may have lost something as well.
        with kept.caller(shell, "carol", {}) as carol:
            assert carol.greeting["mailbox"]["whole"] is False
        (aside,) = kept.mailbox.glob(f"{FILE}.broken-*")
        assert f"{file} is broken" in shell.log()
        assert aside.stat().st_size >= len(damaged)


def said_to_be_whole(kept: Kept, shell: Shell) -> bool | None:
    """What bob hears; None if he is closed first, since the copying went on when it was noticed."""
    with contextlib.suppress(ConnectionClosed), kept.caller(shell, "bob", {}) as bob:
        return bool(bob.greeting["mailbox"]["whole"])
    return None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["copied while it runs", "moved while it runs", "copied while it does not"])
def test_a_copy_that_was_put_over_the_file_is_noticed_and_told(kept: Kept, tmp_path: Path, how: str) -> None:
    file, backup = kept.mailbox / FILE, tmp_path / "backup.db"
    put = shutil.move if how.startswith("moved") else shutil.copyfile
    with kept.running() as shell:
        kept.caller(shell, "bob", {}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("vacuum into ?", (str(backup),))
        for number in range(20):
            kept.publish(shell, "bob", f"after the backup {number}")
        if how != "copied while it does not":
            with kept.caller(shell, "bob", {}) as bob:
                put(backup, file)
                assert bob.close_code() == 4103
            wait_until(lambda: json.loads(shell.get("/health").body)["mailbox"] == "up")
            wait_until(lambda: said_to_be_whole(kept, shell) is False)
            wait_until(lambda: kept.publish(shell, "bob", "later") == (202, b'{"online": 0, "stored": true}'))
            # Before that bob may have read half a copy, which is an error of its own.
            assert "was changed by another program" in shell.log()
    if how == "copied while it does not":
        put(backup, file)
    with kept.running() as shell, kept.caller(shell, "bob", {}) as bob:
        assert bob.greeting["mailbox"]["whole"] is False


def test_a_clock_that_was_set_expires_nothing(kept: Kept, tmp_path: Path) -> None:
    mail = mint(kept.keys, "bob", 30 * 86_400, ["*"])
    with kept.running() as shell:
        Caller(shell, "bob", token=mail, mailbox={}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)
        kept.publish(shell, "bob", "one")
    later = tmp_path / "later"
    later.mkdir()
    (later / "sitecustomize.py").write_text(
        "import time\nns, s = time.time_ns, time.time\n"
        "time.time_ns, time.time = lambda: ns() + 10 * 86_400 * 10**9, lambda: s() + 10 * 86_400\n"
    )
    with kept.running(PYTHONPATH=str(later)) as shell, Caller(shell, "bob", token=mail, mailbox={}) as bob:
        assert bob.welcome["server_time"] > time.time() + 9 * 86_400
        assert bob.greeting["mailbox"]["whole"] is True
        assert messages(bob, 1) == ["one"]


def test_a_file_of_a_newer_release_is_left_alone_and_the_service_does_not_start(kept: Kept) -> None:
    kept.mailbox.mkdir()
    with contextlib.closing(sqlite3.connect(kept.mailbox / FILE)) as database:
        database.execute("pragma user_version = 99")
    with kept.running() as shell:
        wait_until(lambda: shell.process.poll() is not None)
        assert "was written by a newer release; install that one again, or move the file away" in shell.log()


def test_messages_that_are_not_delivered_any_more_are_named_in_the_log(kept: Kept) -> None:
    with kept.running() as shell, kept.caller(shell, "bob", {}):
        pass
    with kept.running(WEBSOCKET_MAILBOX_KEEP="none") as shell:
        wait_until(lambda: f"what is in {kept.mailbox / FILE} stays there, and is not delivered" in shell.log())


@pytest.mark.parametrize(
    ("keep", "needed"), [("disk", "WEBSOCKET_MAILBOX_DIRECTORY"), ("engine", "WEBSOCKET_ENGINE_URL")]
)
def test_settings_that_cannot_keep_messages_are_refused_all_at_once(keep: str, needed: str) -> None:
    environment = clean_environment(WEBSOCKET_MAILBOX_KEEP=keep)
    done = subprocess.run(
        [sys.executable, "-m", "service"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "WEBSOCKET_AUTH" in done.stderr
    assert needed in done.stderr


# Several workers


@pytest.fixture(params=[pytest.param(kind, marks=[] if kind == "runner" else pytest.mark.slow) for kind in OURS])
def workers(request: pytest.FixtureRequest, kept: Kept, tmp_path: Path) -> Iterator[Processes]:
    with several(request.param, 2, tmp_path / "bus", **kept.settings()) as processes:
        yield processes


def worker_knows(alice: Caller, bob: Caller) -> None:
    """Wait until the worker of a sender has heard that bob, at another one, has a mailbox."""
    answers: list[dict[str, Any]] = []

    def is_stored() -> bool:
        answers.append(alice.ask("send", recipient_uuid="bob", message="is it stored?"))
        return "stored" in answers[-1]

    wait_until(is_stored)
    assert {bob.hear()["message"] for _ in answers} == {"is it stored?"}


@pytest.mark.slow
def test_whichever_worker_stores_the_owner_gets_it_from_another_one(kept: Kept, workers: Processes) -> None:
    shell = workers.shell
    one, other = workers.pids()
    with workers.only(one):
        bob = kept.caller(shell, "bob", {})
    with workers.only(other):
        alice = kept.caller(shell, "alice", {})
    with bob, alice:
        worker_knows(alice, bob)
        for number in range(5):
            assert alice.ask("send", recipient_uuid="bob", message=number, ack="delivered")["stored"] is True
        heard = [bob.hear() for _ in range(5)]
        assert [frame["message"] for frame in heard] == [0, 1, 2, 3, 4]
        bob.tell("ack", offset=heard[-1]["offset"])
        assert [alice.hear()["type"] for _ in range(5)] == ["delivered"] * 5


@pytest.mark.slow
def test_a_sender_without_a_mailbox_hears_of_a_delivery_in_another_worker(kept: Kept, workers: Processes) -> None:
    shell = workers.shell
    one, other = workers.pids()
    with workers.only(one):
        bob = kept.caller(shell, "bob", {})
    with workers.only(other):
        alice = kept.caller(shell, "alice")
    with bob, alice:
        worker_knows(alice, bob)
        answer = alice.ask("send", recipient_uuid="bob", message="m", ack="delivered")
        bob.tell("ack", offset=bob.hear()["offset"])
        assert alice.hear() == {"type": "delivered", "id": answer["id"], "recipient_uuid": "bob"}


@pytest.mark.slow
def test_all_workers_go_on_with_a_copy_that_was_put_over_the_file(
    kept: Kept, workers: Processes, tmp_path: Path
) -> None:
    shell, file, backup = workers.shell, kept.mailbox / FILE, tmp_path / "backup.db"
    one, other = workers.pids()
    with workers.only(one):
        bob = kept.caller(shell, "bob", {})
    with workers.only(other):
        alice = kept.caller(shell, "alice")
    with bob, alice:
        worker_knows(alice, bob)
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("vacuum into ?", (str(backup),))
        assert alice.ask("send", recipient_uuid="bob", message="after the backup")["stored"] is True
        shutil.copyfile(backup, file)
        assert bob.close_code() == 4103
        well = (b"\nwsbundle_mailbox_failing 0.0\n", b"\nwsbundle_workers_counted 2.0\n")
        wait_until(lambda: all(line in metrics for metrics in [shell.get("/metrics").body] for line in well))
        with workers.only(one):
            bob = kept.caller(shell, "bob", {})
        with bob:
            assert bob.greeting["mailbox"]["whole"] is False
            worker_knows(alice, bob)


@pytest.mark.slow
def test_a_second_device_at_another_worker_takes_the_mailbox_over(kept: Kept, workers: Processes) -> None:
    shell = workers.shell
    one, other = workers.pids()
    with workers.only(one):
        phone = kept.caller(shell, "bob", {})
    with workers.only(other):
        alice = kept.caller(shell, "alice")
        tablet = Caller(shell, token=kept.token("bob"))
    with phone, tablet, alice:
        # It takes a while, and another hello meanwhile changes nothing about it.
        tablet.tell("hello", id="the mailbox", uuid="bob", mailbox={})
        tablet.tell("hello", id="another")
        answers = {answer["id"]: answer for answer in (tablet.hear(), tablet.hear())}
        assert answers["the mailbox"]["mailbox"]["whole"] is True
        assert answers["another"]["uuid"] == tablet.welcome["uuid"]
        assert phone.close_code() == 4010
        alice.ask("send", recipient_uuid="bob", message="m")
        assert tablet.hear()["message"] == "m"


@pytest.mark.slow
def test_a_rolling_reload_and_a_killed_worker_lose_nothing(kept: Kept, workers: Processes) -> None:
    shell, old = workers.shell, set(workers.pids())
    kept.caller(shell, "bob", {}).__exit__(None, None, None)
    with kept.caller(shell, "alice") as alice:
        alice.ask("send", recipient_uuid="bob", message="before")
    os.kill(shell.process.pid, signal.SIGHUP)
    wait_until(lambda: not old & set(workers.pids()) and workers.are_complete())
    with kept.caller(shell, "alice") as alice:
        alice.ask("send", recipient_uuid="bob", message="between")
    workers.kill(workers.pids()[0])
    wait_until(lambda: len(workers.pids()) == 1)
    with kept.caller(shell, "alice") as alice:
        alice.ask("send", recipient_uuid="bob", message="after")
    with kept.caller(shell, "bob", {}) as bob:
        assert bob.greeting["mailbox"]["whole"] is True
        assert messages(bob, 3) == ["before", "between", "after"]
    assert json.loads(shell.get("/health").body)["status"] == "healthy"


# A disk that is full


@pytest.fixture
def small(kept: Kept) -> Iterator[None]:
    """A disk of 2 MB for the mailboxes."""
    kept.mailbox.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(kept.mailbox)], check=True)
    yield
    subprocess.run(["umount", "--lazy", str(kept.mailbox)], check=True)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")


@pytest.mark.slow
@only_root
@pytest.mark.usefixtures("small")
def test_a_full_disk_is_said_to_the_sender_and_costs_nothing_that_was_stored(kept: Kept) -> None:
    with kept.running(WEBSOCKET_MAILBOX_BYTES=str(16 * 1024 * 1024)) as shell:
        kept.caller(shell, "bob", {}).__exit__(None, None, None)
        wait_until(lambda: shell.connections() == 0)
        stored = []
        with kept.caller(shell, "alice") as alice:
            for number in range(200):
                answer = alice.ask("send", recipient_uuid="bob", message=[number, "x" * 30_000])
                if answer["type"] == "error":
                    break
                stored.append(number)
            assert (answer["code"], answer["reason"]) == (118, "the mailbox cannot be written now")
            assert stored
            # Others are not affected.
            with kept.caller(shell, "carol") as carol:
                assert alice.ask("send", recipient_uuid="carol", message="live")["online"] == 1
                assert carol.hear()["message"] == "live"
        assert shell.log().count("the mailbox cannot be written") == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(kept.mailbox)], check=True)
        with kept.caller(shell, "bob", {}) as bob:
            assert bob.greeting["mailbox"]["whole"] is True
            heard: list[int] = []
            while len(heard) < len(stored):
                frame = bob.hear()
                heard.append(frame["message"][0])
                bob.tell("ack", offset=frame["offset"])
            assert heard == stored


@pytest.mark.slow
@only_root
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("was_there", [True, False])
def test_a_service_starts_on_a_full_disk_and_keeps_messages_as_soon_as_there_is_room(
    kept: Kept, was_there: bool
) -> None:
    if was_there:
        with kept.running() as shell:
            kept.caller(shell, "bob", {}).__exit__(None, None, None)
            wait_until(lambda: shell.connections() == 0)
            kept.publish(shell, "bob", "before")
        leave_alone(kept.mailbox / FILE)
    filler = kept.mailbox / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with kept.running() as shell:
        health = json.loads(shell.get("/health").body)
        assert health["mailbox"] == "failing"
        assert b"\nwsbundle_mailbox_failing 1.0\n" in shell.get("/metrics").body
        with kept.caller(shell, "alice") as alice, kept.caller(shell, "carol") as carol:
            assert alice.ask("send", recipient_uuid="carol", message="live")["online"] == 1
            assert carol.hear()["message"] == "live"
            answer = alice.ask("send", recipient_uuid="bob", message="full")
            assert answer["code"] == (118 if was_there else 114)
        with Caller(shell, token=kept.token("dave")) as dave:
            dave.tell("hello", id="the mailbox", uuid="dave", mailbox={})
            assert dave.close_code() == 4103
        filler.unlink()
        wait_until(lambda: json.loads(shell.get("/health").body)["mailbox"] == "up")
        with kept.caller(shell, "bob", {}) as bob:
            assert kept.publish(shell, "bob", "after") == (201, b'{"online": 1, "stored": true}')
            assert messages(bob, 1 + was_there) == [*(["before"] if was_there else []), "after"]
        assert (shell.log().count("cannot be written"), shell.log().count("can be written again")) == (1, 1)
