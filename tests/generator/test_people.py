"""What root sees of clients: while some workers are stuck or about to end, and whatever clients are called."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from generator import mailboxes
from generator.doctor import examine
from generator.host import people
from generator.host.store import Store
from generator.report import CommandError, Report

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask")


class Installed(Store):
    current = 1


@contextmanager
def worker(path: Path, answer: bytes | None) -> Iterator[None]:
    """One that gives this answer to whoever asks, or none at all."""
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            stack.enter_context(connection)
            if answer is not None:
                connection.recv(4096)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_a_worker_that_is_stuck_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "variable", lambda *_: str(tmp_path))
    monkeypatch.setattr(people, "_PATIENCE_S", 0.2)
    (tmp_path / "control-4").symlink_to("gone")  # between the listing and the question, a worker has ended
    with (
        worker(tmp_path / "control-1", None),
        worker(tmp_path / "control-2", json.dumps(["a-uuid"]).encode() + b"\n"),
        worker(tmp_path / "control-3", b""),
    ):
        told = people._asked(Installed("chat", tmp_path), {"do": "kick", "uuid": "alice"})
    assert told.answers == ["a-uuid"]
    assert told.silent == [f"{tmp_path}/control-1: timed out"]


def test_what_a_worker_does_not_understand_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "variable", lambda *_: str(tmp_path))
    with (
        worker(tmp_path / "control-1", b'{"error": "JSON is malformed"}\n'),
        pytest.raises(CommandError, match="kick: the service does not understand this: JSON is malformed"),
    ):
        people._asked(Installed("chat", tmp_path), {"do": "kick", "uuid": "\udcff"})


def test_an_address_cannot_steer_the_terminal_of_root_or_look_like_another_row() -> None:
    of = {"uuid": "0c9b", "from": None, "protocol": "v0", "seconds": 1, "waiting": 0}
    row = people._row({**of, "addresses": ["\x1b[2Jalice\nroot", "b\u00f6b", "\u202eecila"]})
    assert row[1] == "\\x1b[2Jalice\\nroot b\u00f6b \\u202eecila"


def test_nor_can_that_of_a_mailbox_or_what_a_log_quotes_of_a_client(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"mailboxes": 1, "messages": 1, "bytes": 1, "file_bytes": 1, "oldest": None}
    lines = mailboxes._lines({**counts, "fullest": [{"address": "\x1b[2J", "messages": 1, "bytes": 1}]}, 0.0)
    assert lines[1].startswith("  \\x1b[2J: ")
    examine._print(examine.Finding("nginx-log", (), "warning", "", 'referrer: "\x1b[2J\x9b2J"', "", 0.0), Report())
    assert '"\\x1b[2J\\x9b2J"' in capsys.readouterr().out
