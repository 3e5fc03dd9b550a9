"""Another program that uses apt or dpkg is waited for. Real apt-get and dpkg, with directories of their own."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

import pytest

from generator.config.schema import Deploy
from generator.host import programs
from generator.host.packages import install_packages, locked, patiently
from generator.report import Report

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this is no Debian or Ubuntu")
# Each lock with a command that wants it. /var/cache/apt/archives/lock needs a package to download: a test on hosts.
LOCKS = [
    ("lists/lock", "apt-get", ("update",)),
    ("dpkg/lock-frontend", "apt-get", ("-y", "install", "nothing-of-this-name")),
    ("dpkg/lock", "apt-get", ("-y", "install", "nothing-of-this-name")),
    ("dpkg/lock-frontend", "dpkg", ("--configure", "--pending")),
    ("dpkg/lock", "dpkg", ("--configure", "--pending")),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Directories of apt and dpkg in which nothing is installed and nothing known."""
    for directory in ("lists/partial", "archives/partial", "etc/apt.conf.d", "dpkg/updates", "dpkg/info"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("dpkg/status", "etc/sources.list"):
        (tmp_path / file).touch()
    return tmp_path


def command(root: Path, program: str, words: tuple[str, ...]) -> tuple[str, ...]:
    if program == "dpkg":
        return (program, f"--admindir={root}/dpkg", "--force-not-root", *words)
    places = {"State::Lists": "lists", "Cache::archives": "archives", "State::status": "dpkg/status", "Etc": "etc"}
    options = [word for key, path in places.items() for word in ("-o", f"Dir::{key}={root}/{path}")]
    return (program, *options, "-o", "DPkg::Lock::Timeout=0", *words)


class Told(Report):
    """It closes a file when it has said something."""

    def __init__(self, held: IO[str]) -> None:
        super().__init__()
        self._held = held

    def line(self, text: str = "") -> None:
        super().line(text)
        self._held.close()


@pytest.mark.parametrize(("lock", "program", "words"), LOCKS)
def test_a_lock_that_another_program_holds_is_waited_for_and_that_is_said(
    lock: str, program: str, words: tuple[str, ...], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = (root / lock).open("w")
    fcntl.lockf(held, fcntl.LOCK_EX)
    outcome = patiently(Told(held), *command(root, program, words))
    (waiting,) = capsys.readouterr().out.splitlines()
    assert waiting.startswith("  waiting for ")
    assert f", held by process {os.getpid()}" in waiting
    assert waiting.endswith(", for 15 minutes at most")
    assert locked(outcome.output) is None


def test_the_wait_ends_and_then_the_lock_is_named_with_its_holder(root: Path) -> None:
    with (root / "lists/lock").open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        outcome = patiently(Report(json=True), *command(root, "apt-get", ("update",)), patience_s=-1)
    assert outcome.code == 100
    assert f"{root}/lists/lock, held by process {os.getpid()}" in outcome.output.splitlines()[-1]


def test_what_is_no_lock_is_not_waited_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = patiently(Report(), *command(root, "apt-get", ("-y", "install", "nothing-of-this-name")))
    assert outcome.code == 100
    assert "Unable to locate package" in outcome.output
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("output", "lock"),
    [
        ("E: Could not get lock /var/cache/apt/archives/lock. It is held by process 7 (apt-get)\nE: Unable to lock",
         "/var/cache/apt/archives/lock, held by process 7 (apt-get)"),
        ("E: Could not get lock /var/lib/dpkg/lock - open (11: Resource temporarily unavailable)",
         "/var/lib/dpkg/lock"),
        ("dpkg: error: dpkg frontend lock was locked by another process with pid 7", "dpkg frontend lock"),
        ('debconf: DbDriver "config": /var/cache/debconf/config.dat is locked by another process: Resource temporarily',
         "/var/cache/debconf/config.dat"),
        ("E: Could not open lock file /var/lib/apt/lists/lock - open (13: Permission denied)", None),
    ],
)  # fmt: skip
def test_the_words_of_apt_dpkg_and_debconf_are_understood(output: str, lock: str | None) -> None:
    found = locked(output)
    assert (found or "").startswith(lock or "") if lock else found is None


def test_packages_are_installed_though_a_source_that_has_none_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "E: The repository 'http://ppa.example.org stable Release' does not have a Release file."
    scripts = {
        "apt-get": f"""echo "$*" >>{tmp_path}/calls; case "$*" in *update) echo "{said}"; exit 100 ;; esac""",
        "dpkg": "true",
        "dpkg-query": "true",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert install_packages(Deploy(name="chat", domain="ws.a.org"), "", Report())
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith("nginx openssl python3-venv")
    assert f"apt-get update failed, so its lists may be old: {said[3:]}" in capsys.readouterr().err
