"""A new machine that cloud-init sets up from the user data of `wsbundle bundle --cloud-init`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import driver
from tests.hosts.console import DOMAIN, NAME, ROOT, Console
from tests.hosts.driver import Host

SEED = "var/lib/cloud/seed/nocloud"
FIRST_BOOT = f"/usr/local/src/{NAME}/first-boot.py"
SERVER = """[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/archives 8000
"""
# The driver has set up the network, and a root file system of mmdebstrap has no locales and no ssh-keygen.
OF_THE_IMAGE = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\nssh_genkeytypes: []\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the archive `b c.tar.gz` for Debian 12, 13 and Ubuntu 26.04, and its `user-data`."""
    directory = tmp_path_factory.mktemp("cloud")
    pythons = ("--python", "3.11", "--python", "3.13", "--python", "3.14")
    command = [sys.executable, "-m", "generator", "bundle", *pythons, "--set", f"domain={DOMAIN}"]
    command += ["--cloud-init", "http://127.0.0.1:8000/", "-o", str(directory / "b c.tar.gz")]
    with (directory / "user-data").open("w") as user_data:
        subprocess.run(command, cwd=ROOT, check=True, stdout=user_data)
    return directory


@pytest.fixture
def machine(suite: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """As a provider makes it: with cloud-init and a NoCloud seed, never booted, and without any package of ours."""
    monkeypatch.setattr(driver, "BOOT_S", 900.0)  # it is up when cloud-init has ended
    host = Host([driver.base(suite, "cloud-init")])
    try:
        files = {f"{SEED}/meta-data": "instance-id: one\nlocal-hostname: fresh\n"}
        files |= {f"{SEED}/user-data": (made / "user-data").read_text()}
        files |= {"etc/cloud/cloud.cfg.d/99-image.cfg": OF_THE_IMAGE, "etc/systemd/system/archives.service": SERVER}
        for path, text in files.items():
            (host.root / path).parent.mkdir(parents=True, exist_ok=True)
            (host.root / path).write_text(text)
        wanted = host.root / "etc/systemd/system/multi-user.target.wants/archives.service"
        wanted.symlink_to("/etc/systemd/system/archives.service")
        host.push([made / "b c.tar.gz"], "/srv/archives")
        yield host
    finally:
        host.destroy()


def status_of(said: str) -> str:
    return "".join(re.findall(r"^\.*status: (\w+)", said, re.MULTILINE)[-1:])


def test_an_empty_machine_becomes_a_running_center_and_says_so_on_its_console(machine: Host) -> None:
    machine.boot()
    checked = machine.run("cloud-init", "schema", "--config-file", f"/{SEED}/user-data").stdout
    assert re.search(r"\bValid ", checked), checked
    ended = machine.run("cloud-init", "status", "--wait", "--long", check=False)
    console = machine.console.read_text(errors="replace")
    assert (ended.returncode, status_of(ended.stdout)) == (0, "done"), f"{ended.stdout}\n{console}"
    assert Console(machine).comes_to_route()
    for said in ("s  fetch the archive", "s  install the service", f"Generation 1 of {NAME} runs"):
        assert said in console
    # The script can be run again, and a reboot runs nothing.
    again = machine.run("python3", "-I", FIRST_BOOT).stdout
    assert again.splitlines()[-1] == f"Nothing to do: generation 1 of {NAME} is current and runs."
    machine.reboot()
    assert Console(machine).comes_to_route()
    assert status_of(machine.run("cloud-init", "status", "--wait").stdout) == "done"


def test_a_machine_that_could_not_be_set_up_is_in_error_and_says_why(machine: Host) -> None:
    with (machine.root / "srv/archives/b c.tar.gz").open("ab") as archive:
        archive.write(b"\0")
    machine.boot()
    ended = machine.run("cloud-init", "status", "--wait", "--long", check=False)
    assert (ended.returncode, status_of(ended.stdout)) == (1, "error"), ended.stdout
    assert "wsbundle: this machine is not set up: what the URL leads to is not the archive" in (
        machine.console.read_text(errors="replace")
    )
    assert not list((machine.root / "opt").iterdir())
