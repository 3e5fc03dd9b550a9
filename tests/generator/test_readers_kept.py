"""What readers have accepted is not read again while nothing of it has changed; what they refuse always is."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.judge import judge
from generator.readers import READERS, kept
from generator.readers.kept import Judgement
from generator.readers.processes import find_program
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle, File
from generator.rendering.render import render
from generator.report import CommandError, Report
from tests.generator.front_door import process, wsbundle
from tests.generator.readings import NAME, changed

SITE, UNIT = f"etc/nginx/sites-available/{NAME}", f"etc/systemd/system/{NAME}.service"
VERDICTS = {
    "nginx": [Verdict(tool="nginx", title="nginx configuration", state="accepted")],
    "confinement": [
        Verdict(tool="systemd-analyze", title="systemd confinement", state="accepted", exposure=0.2),
    ],
}
MANIFEST = '{"name": "queue-websocket", "files": []}'


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
        self.deploy = load_text("domain: ws.mycompany.org\n", "deploy.yaml").deploy
        self.bundle = Bundle(NAME, (File(path=SITE, text=f"ssl_certificate {home}/named;"),))

    def put_program(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "tool").write_text("#!/bin/sh\n")
        (directory / "tool").chmod(0o755)

    def read(self) -> None:
        """As when all readers have been asked."""
        judgement = Judgement(self.deploy)
        judgement.look(self.bundle)
        find_program("tool")
        find_program("missing")
        judgement.keep(MANIFEST, VERDICTS)

    def accepted(self) -> dict[str, list[Verdict]]:
        recalled = Judgement(self.deploy).recall()
        return {} if recalled is None else recalled.verdicts


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


def test_what_was_accepted_is_known_again_with_the_bundle_that_it_was_said_of(machine: Machine) -> None:
    assert machine.accepted() == VERDICTS
    recalled = Judgement(machine.deploy).recall()
    assert recalled is not None
    assert recalled.manifest == MANIFEST


@pytest.mark.parametrize("given", ["port: 9000", "env: {ZONE: eu}", "replaces: [/etc/systemd/system/old.service]"])
def test_nothing_is_known_of_another_deployment(machine: Machine, given: str) -> None:
    other = load_text(f"domain: ws.mycompany.org\n{given}\n", "deploy.yaml").deploy
    assert Judgement(other).recall() is None


def test_a_host_that_gets_a_configuration_of_nginx_is_another_one(machine: Machine) -> None:
    shutil.rmtree(machine.nginx)
    machine.read()
    assert machine.accepted() == VERDICTS
    machine.nginx.mkdir()
    assert machine.accepted() == {}


def test_no_secret_of_the_deployment_is_kept(machine: Machine) -> None:
    machine.deploy = load_text("domain: ws.mycompany.org\nenv: {PASSWORD: /SECRET}\n", "deploy.yaml").deploy
    machine.bundle = render(machine.deploy)
    judgement = Judgement(machine.deploy)
    judgement.look(machine.bundle)
    judgement.keep(machine.bundle.manifest(), VERDICTS)
    assert machine.accepted() == VERDICTS
    assert not any(b"SECRET" in file.read_bytes() for file in (machine.home / "kept").iterdir())


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
    "nginx_is_gone": lambda there: shutil.rmtree(there.nginx),
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
    judgement = Judgement(machine.deploy)
    judgement.look(machine.bundle)
    refused = Verdict(tool="nginx", title="nginx configuration", state="refused")
    broken = Verdict(tool="nginx", title="nginx configuration among this host's own", state="not checked")
    said = {"nginx": [VERDICTS["nginx"][0], broken], "units": [refused], "scripts": VERDICTS["confinement"]}
    judgement.keep(MANIFEST, said)
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
        machine.deploy = replace(machine.deploy, port=9000 + number)
        machine.read()
    assert len(list((machine.home / "kept").iterdir())) == 3
    assert machine.accepted() == VERDICTS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a deploy.yaml, whose `sh` notes in `runs` that it was run."""
    monkeypatch.setattr(kept, "DIRECTORY", str(tmp_path / "kept"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text(f'#!/bin/sh\necho >> {tmp_path}/runs\nexec /bin/sh "$@"\n')
    (tmp_path / "bin" / "sh").chmod(0o755)
    return tmp_path


def test_a_program_that_has_accepted_is_not_run_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here / "bin"))  # where most of the others are missing, and are asked again
    first, runs = wsbundle("check"), (here / "runs").read_text()
    assert runs
    assert wsbundle("check") == first
    assert (here / "runs").read_text() == runs
    assert wsbundle("check", "--set", "port=9000").code == 0
    assert (here / "runs").read_text() > runs


def test_files_that_do_not_agree_are_refused_whatever_was_accepted_before(here: Path) -> None:
    assert wsbundle("check").code == 0
    loaded = load_text("domain: ws.mycompany.org\n", "deploy.yaml")
    other = changed(render(loaded.deploy), UNIT, lambda text: text.replace("KillSignal=SIGTERM", "KillSignal=9"))
    with pytest.raises(CommandError, match="do not agree"):
        judge(loaded, other, Report(json=True))


@pytest.fixture
def accepted(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle of a deployment that every reader has accepted, those that are missing here included."""
    monkeypatch.setenv("PATH", str(here / "bin"))
    assert wsbundle("render").code == 0
    (file,) = (here / "kept").iterdir()
    known = msgspec.json.decode(file.read_bytes(), type=kept.Kept)
    verdicts = {name: known.verdicts.get(name, []) for name in READERS}
    file.write_bytes(msgspec.json.encode(replace(known, verdicts=verdicts)))
    return here / "build" / NAME


def test_with_nothing_to_do_nothing_is_even_rendered(accepted: Path, here: Path) -> None:
    runs = (here / "runs").read_text()
    program = f"""
import sys
from generator.readers import kept
kept.DIRECTORY = {str(here / "kept")!r}
from generator.__main__ import main
code = main(["render"])
print(code, sorted({{"jinja2", "generator.rendering.render"}} & set(sys.modules)))
"""
    done = process(
        [sys.executable, "-S", "-c", program],
        cwd=here,
        env={"PYTHONPATH": ":".join(sys.path)} | {"PATH": os.environ["PATH"]},
    )
    said, outcome = done.out.splitlines()[-2:]
    assert said.startswith(f"Nothing to do: build/{NAME} is up to date (")
    assert outcome == "0 []"
    assert (here / "runs").read_text() == runs


def test_the_same_is_said_whether_it_was_rendered_or_not(accepted: Path, here: Path) -> None:
    for arguments in ((), ("-v",), ("--format", "json")):
        known = wsbundle("render", *arguments)
        shutil.move(here / "kept", here / "away")
        assert "Nothing to do" in known.out or '"written": []' in known.out
        assert wsbundle("render", *arguments).out.splitlines()[-1] == known.out.splitlines()[-1]
        shutil.rmtree(here / "kept", ignore_errors=True)
        shutil.move(here / "away", here / "kept")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a_file_that_was_changed": lambda bundle: rewrite(bundle / SITE),
    "a_file_that_is_gone": lambda bundle: (bundle / SITE).unlink(),
    "a_file_that_others_may_write": lambda bundle: (bundle / SITE).chmod(0o666),
    "a_link_that_leads_elsewhere": lambda bundle: relink(bundle / f"etc/nginx/sites-enabled/{NAME}", "elsewhere"),
    "a_link_that_is_a_file": lambda bundle: shutil.copy(
        bundle / SITE, unlinked(bundle / f"etc/nginx/sites-enabled/{NAME}")
    ),
    "a_manifest_that_was_changed": lambda bundle: rewrite(bundle / "manifest.json"),
    "a_file_of_a_run_that_was_killed": lambda bundle: (bundle / "etc" / NAME / "..env.new").write_text(""),
    "a_directory_that_is_gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_was_changed_in_the_bundle_is_put_right(accepted: Path, damage: Callable[[Path], Any]) -> None:
    before = contents(accepted)
    damage(accepted)
    assert contents(accepted) != before
    assert wsbundle("render").code == 0
    assert contents(accepted) == before


def contents(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.lstat().st_mode, os.readlink(path) if path.is_symlink() else path.read_text())
        for path in directory.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def unlinked(path: Path) -> Path:
    path.unlink()
    return path


def relink(path: Path, target: str) -> None:
    unlinked(path).symlink_to(target)
