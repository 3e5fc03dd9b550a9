"""Another program that uses apt or dpkg is waited for. Real apt-get and dpkg, with directories of their own."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

import pytest

from generator.config.schema import Deploy, Nginx
from generator.host import packages, programs
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


def test_the_archive_is_reached_through_the_proxy_that_the_environment_names(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "etc/sources.list").write_text("deb [trusted=yes] http://archive.example/ stable main\n")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    outcome = patiently(Report(), *command(root, "apt-get", ("-o", "Acquire::Retries=0", "update")))
    assert "connect to 127.0.0.1:9" in outcome.output


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


def stand_in(directory: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str]) -> None:
    """Let these run in place of the programs of their names."""
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{directory}:{os.environ['PATH']}")


def test_packages_are_installed_though_a_source_that_has_none_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "E: The repository 'http://ppa.example.org stable Release' does not have a Release file."
    update = f"""echo "$*" >>{tmp_path}/calls; case "$*" in *update) echo "{said}"; exit 100 ;; esac"""
    stand_in(tmp_path, monkeypatch, {"apt-get": update, "dpkg": "true", "dpkg-query": "true"})
    assert install_packages(Deploy(name="chat", domain="ws.a.org"), "", Report())
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith("nginx openssl python3-venv")
    assert f"apt-get update failed, so its lists may be old: {said[3:]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listen", "is_stopped"), [(("0.0.0.0", "::"), False), (("0.0.0.0",), False), (("::", "203.0.113.5"), True)]
)
def test_an_nginx_that_has_just_come_makes_way_for_one_address_alone(
    listen: tuple[str, ...], is_stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    log = f'echo "$*" >>{calls}'
    stand_in(tmp_path, monkeypatch, {"apt-get": "true", "dpkg": "true", "dpkg-query": "true", "systemctl": log})
    deploy = Deploy(name="chat", domain="ws.a.org", nginx=Nginx(listen=listen))
    assert install_packages(deploy, "", Report(json=True))
    assert calls.read_text() == "stop nginx.service\n" * is_stopped


@pytest.mark.parametrize("is_theirs", [False, True])
def test_a_service_that_the_operator_has_of_an_engines_name_is_not_disabled(
    is_theirs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    log = f'echo "$*" >>{calls}'
    stand_in(tmp_path, monkeypatch, {"apt-get": "true", "dpkg": "true", "dpkg-query": "true", "systemctl": log})
    monkeypatch.setattr(packages, "_OWN_UNITS", tmp_path)
    if is_theirs:
        (tmp_path / "valkey-server.service").touch()
    assert install_packages(Deploy(name="chat", domain="ws.a.org"), "valkey", Report(json=True))
    unit = "valkey-server.service"
    ours = [f"mask --runtime {unit}", f"disable {unit}", f"unmask --runtime {unit}"]
    assert calls.read_text().splitlines() == ([] if is_theirs else ours)
