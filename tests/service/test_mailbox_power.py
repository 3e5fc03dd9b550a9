"""A power cut, at any moment: what was written and not synced is there, or not, or only in part.

strace(1) tells in which order a process has written, synced and said what is stored. From that follows what a disk may
hold when the power goes.
"""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.mailbox.database import FILE, Database
from tests.service.mailbox_writer import BATCH
from tests.service.shells import ROOT

COMMITS = 150
CUTS = 150
SECTOR = 512
CALLS = "pwrite64,write,fdatasync,fsync,ftruncate,unlink,rename"

_call = re.compile(r'\d+ +(\w+)\((?:\d+<([^>]*)>|"([^"]*)")(?:, "([^"]*)")?(?:\.\.\.)?(?:, (\d+))?(?:, (\d+))?\) = \d')


class Disk:
    """What is on a disk: of each file what was synced, and what was written after that."""

    def __init__(self) -> None:
        self.synced: dict[str, bytearray] = {}
        self.since: dict[str, list[tuple[int, bytes | None]]] = {}
        self.told = 0

    def see(self, name: str, path: str, data: bytes, numbers: list[int]) -> None:
        """One call of the system."""
        if name == "write" and data.startswith(b"told "):
            self.told = int(data.split()[1])
        elif name == "pwrite64":
            self.since.setdefault(path, []).append((numbers[1], data))
        elif name == "ftruncate":
            self.since.setdefault(path, []).append((numbers[0], None))
        elif name in ("fsync", "fdatasync"):
            for offset, written in self.since.pop(path, []):
                write(self.synced.setdefault(path, bytearray()), offset, written)
        elif name == "unlink":
            self.synced.pop(path, None)
            self.since.pop(path, None)

    def after_power_cut(self, chance: random.Random) -> dict[str, bytes]:
        """The files, with any part of what was not synced."""
        files = {path: bytearray(content) for path, content in self.synced.items()}
        for path, writes in self.since.items():
            for offset, data in writes:
                if chance.random() < 0.5:
                    kept = data if data is None or chance.random() < 0.8 else data[: SECTOR * chance.randrange(1, 9)]
                    write(files.setdefault(path, bytearray()), offset, kept)
        return {path: bytes(content) for path, content in files.items()}


def write(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write into a file; None truncates it."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : None if data is None else offset + len(data)] = data or b""


def decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def calls(trace: Path) -> Iterator[tuple[str, str, bytes, list[int]]]:
    for line in trace.read_text().splitlines():
        if found := _call.match(line):
            name, of_file, path, data, *numbers = found.groups()
            yield name, decoded(of_file or path).decode(), decoded(data or ""), [int(n) for n in numbers if n]


def traced(directory: Path, sync: str) -> list[tuple[str, str, bytes, list[int]]]:
    """What a writer has done, call by call."""
    trace = directory / "trace"
    writer = [sys.executable, "-m", "tests.service.mailbox_writer", str(directory / "mailbox"), sync, str(COMMITS)]
    watched = ["strace", "-f", "-y", "-xx", "-s", "2000000", "-e", f"trace={CALLS}", "-o", str(trace), *writer]
    try:
        subprocess.run(watched, cwd=ROOT, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.fail("strace is missing: apt-get install strace")
    return list(calls(trace))


def found_after(files: dict[str, bytes], directory: Path) -> tuple[list[int], str]:
    """The numbers of the messages that are found on such a disk, and the epoch."""
    directory.mkdir()
    for path, content in files.items():
        if path.endswith((FILE, f"{FILE}-wal")):
            (directory / Path(path).name).write_bytes(content)
    database = Database(directory, "turn")
    numbers = [int(body) for (body,) in database.reading.execute("select body from mail order by off")]
    (epoch,) = database.reading.execute("select epoch from state").fetchone()
    database.close()
    assert list(directory.glob("*.broken*")) == []
    return numbers, epoch


@pytest.mark.slow
def test_what_was_told_to_be_stored_survives_a_power_cut_at_any_moment(tmp_path: Path) -> None:
    done, chance = traced(tmp_path, "turn"), random.Random(1)
    first = next(at for at, call in enumerate(done) if call[2].startswith(b"told "))
    assert sum(call[2].startswith(b"told ") for call in done) == COMMITS
    cuts = {*chance.sample(range(first, len(done)), CUTS), len(done) - 1}
    disk = Disk()
    for at, call in enumerate(done):
        disk.see(*call)
        if at in cuts:
            numbers, _ = found_after(disk.after_power_cut(chance), tmp_path / str(at))
            assert numbers == list(range(len(numbers)))
            assert len(numbers) % BATCH == 0, "a part of a commit"
            assert disk.told <= len(numbers)


@pytest.mark.slow
def test_without_a_sync_for_each_commit_a_power_cut_loses_the_end_and_recipients_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, chance = traced(tmp_path, "second"), random.Random(1)
    epoch = ""
    disk, lost = Disk(), 0
    another_boot = tmp_path / "boot_id"
    another_boot.write_text("another\n")
    first = next(at for at, call in enumerate(done) if call[2].startswith(b"told "))
    cuts = set(chance.sample(range(first + len(done) // 10, len(done) - len(done) // 20), 20))
    monkeypatch.setattr("service.engine.identity._BOOT", another_boot)
    for at, call in enumerate(done):
        disk.see(*call)
        if at in cuts:
            numbers, now = found_after(disk.after_power_cut(chance), tmp_path / str(at))
            lost += disk.told > len(numbers)
            assert now != epoch, "the position of before would be believed"
            epoch = now
    assert lost
