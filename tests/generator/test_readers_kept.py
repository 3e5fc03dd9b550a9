"""What readers have accepted is not read again while nothing of it has changed; what they refuse always is."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from generator.readers import kept
from generator.readers.kept import Judgement
from generator.readers.processes import find_program
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle
from tests.generator.front_door import wsbundle
from tests.generator.readings import NAME, changed, rendered

SITE = f"etc/nginx/sites-available/{NAME}"
VERDICTS = {
    "nginx": [Verdict(tool="nginx", title="nginx configuration", state="accepted")],
    "confinement": [
        Verdict(tool="systemd-analyze", title="systemd confinement", state="accepted", exposure=0.2),
    ],
}
ENVIRONMENT = {"WEBSOCKET_PORT": "8765"}


class Machine:
    """A machine with a program `tool`, a file `/…/named` that the bundle names, and a configuration of nginx."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin, self.nginx, self.outside = home / "bin", home / "nginx", home / "outside"
        for directory in (self.bin, self.nginx / "sites-enabled", self.outside):
            directory.mkdir(parents=True)
        self.put_program(self.bin)
        (self.home / "named").write_text("a")
        (self.nginx / "nginx.conf").write_text(f"include {self.outside}/*.inc;\nssl_certificate {home}/pair.pem;\n")
        (self.outside / "a.inc").write_text(f"include {home}/deeper;")
        (self.home / "deeper").write_text("")
        self.bundle = changed(rendered(), SITE, lambda text: f"# {home}/named\n{text}")

    def put_program(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "tool").write_text("#!/bin/sh\n")
        (directory / "tool").chmod(0o755)

    def read(self) -> None:
        """As when all readers have been asked."""
        judgement = Judgement(self.bundle, ENVIRONMENT)
        judgement.look()
        find_program("tool")
        find_program("missing")
        judgement.keep(VERDICTS)

    def accepted(self) -> dict[str, list[Verdict]]:
        return Judgement(self.bundle, ENVIRONMENT).accepted()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    there = Machine(tmp_path)
    monkeypatch.setattr(kept, "DIRECTORY", str(tmp_path / "kept"))
    monkeypatch.setattr(kept, "_NGINX", str(there.nginx))
    # The directory for temporary files is one of those that are written all the time.
    monkeypatch.setattr(kept, "_NOT_READ", ("/proc/",))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{there.bin}")
    there.read()
    return there


def test_what_was_accepted_is_known_again(machine: Machine) -> None:
    assert machine.accepted() == VERDICTS


def test_nothing_is_known_of_another_bundle_or_another_environment(machine: Machine) -> None:
    other = changed(machine.bundle, SITE, lambda text: f"{text}\n")
    assert Judgement(other, ENVIRONMENT).accepted() == {}
    assert Judgement(replace(machine.bundle, replaces=("/etc/nginx/sites-enabled/old",)), ENVIRONMENT).accepted() == {}
    assert Judgement(machine.bundle, {"WEBSOCKET_PORT": "8766"}).accepted() == {}


def rewrite(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def replace_by_one_as_long(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_text(path.read_text().swapcase())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


CHANGES: dict[str, Callable[[Machine], Any]] = {
    "the_program": lambda there: rewrite(there.bin / "tool"),
    "the_program_is_gone": lambda there: (there.bin / "tool").unlink(),
    "another_program_comes_first": lambda there: there.put_program(there.home / "first"),
    "a_program_that_was_missing": lambda there: shutil.copy(there.bin / "tool", there.bin / "missing"),
    "a_file_that_the_bundle_names": lambda there: rewrite(there.home / "named"),
    "a_file_that_is_as_long_and_as_old": lambda there: replace_by_one_as_long(there.home / "named"),
    "a_file_that_is_gone": lambda there: (there.home / "named").unlink(),
    "a_file_that_others_may_read_no_more": lambda there: (there.home / "named").chmod(0o600),
    "the_configuration_of_nginx": lambda there: rewrite(there.nginx / "nginx.conf"),
    "another_site": lambda there: (there.nginx / "sites-enabled" / "other").write_text("server { }"),
    "a_certificate_of_another_site": lambda there: (there.home / "pair.pem").write_text(""),
    "what_nginx_includes_from_elsewhere": lambda there: rewrite(there.outside / "a.inc"),
    "what_that_includes": lambda there: rewrite(there.home / "deeper"),
    "one_more_that_nginx_includes": lambda there: (there.outside / "b.inc").write_text(""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_all_is_read_again_when_something_has_changed_that_a_reader_looks_at(
    machine: Machine, change: Callable[[Machine], Any]
) -> None:
    change(machine)
    assert machine.accepted() == {}
    machine.read()
    assert machine.accepted() == VERDICTS


@pytest.mark.parametrize("seconds", [24 * 3600, -1])
def test_nothing_is_kept_for_longer_than_a_day_or_from_a_time_to_come(
    machine: Machine, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)
    assert machine.accepted() == {}


def test_another_version_of_this_program_reads_for_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ROOT", str(machine.home))
    (machine.home / "generator").mkdir()
    assert machine.accepted() == {}
    machine.read()
    assert machine.accepted() == VERDICTS
    (machine.home / "generator" / "more.py").write_text("")
    assert machine.accepted() == {}


def test_what_is_refused_or_not_checked_is_never_kept(machine: Machine) -> None:
    judgement = Judgement(machine.bundle, ENVIRONMENT)
    judgement.look()
    refused = Verdict(tool="nginx", title="nginx configuration", state="refused")
    broken = Verdict(tool="nginx", title="nginx configuration among this host's own", state="not checked")
    judgement.keep({"nginx": [VERDICTS["nginx"][0], broken], "units": [refused], "scripts": VERDICTS["confinement"]})
    assert machine.accepted() == {"scripts": VERDICTS["confinement"]}


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"at": "now"}'])
def test_a_file_that_cannot_be_read_says_nothing(machine: Machine, content: bytes) -> None:
    (file,) = (machine.home / "kept").iterdir()
    file.write_bytes(content)
    assert machine.accepted() == {}


def test_where_no_bytecode_is_written_nothing_is_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(machine.home / "kept")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    machine.read()
    assert not (machine.home / "kept").exists()


def test_only_the_newest_are_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST_FILES", 3)
    for number in range(5):
        machine.bundle = Bundle(f"name-{number}", ())
        machine.read()
    assert len(list((machine.home / "kept").iterdir())) == 3
    assert machine.accepted() == VERDICTS


def test_a_program_that_has_accepted_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "DIRECTORY", str(tmp_path / "kept"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sh").write_text(f'#!/bin/sh\necho >> {tmp_path}/runs\nexec /bin/sh "$@"\n')
    (tmp_path / "sh").chmod(0o755)
    first, runs = wsbundle("check"), (tmp_path / "runs").read_text()
    assert runs
    assert wsbundle("check") == first
    assert (tmp_path / "runs").read_text() == runs
    assert wsbundle("check", "--set", "port=9000").code == 0
    assert (tmp_path / "runs").read_text() > runs
