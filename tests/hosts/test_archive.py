"""`wsbundle bundle` here, `sh install` on a host that no network leads out of."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import running
from tests.hosts.console import DOMAIN, NAME, ROOT, Console

Installer = Callable[..., str]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the default deployment, for Debian 12, 13 and Ubuntu 26.04, with uv."""
    file = tmp_path_factory.mktemp("bundle") / "bundle.tar.gz"
    pythons = ("--python", "3.11", "--python", "3.13", "--python", "3.14")
    command = [sys.executable, "-m", "generator", "bundle", "--uv", *pythons, "-o", str(file)]
    command += ["--set", f"domain={DOMAIN}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return file


@pytest.fixture
def offline(prepared: tuple[Path, ...], bundle: Path) -> Iterator[Console]:
    """A host that has the Debian packages, the archive, and no network; nothing that pip has kept."""
    with running(*prepared) as console:
        console.run("rm", "-rf", "/root/.cache")
        console.host.push([bundle], console.host.home)
        console.host.disconnect()
        yield console


@pytest.fixture
def install(offline: Console) -> Installer:
    """What the installer says, with an exit code; the archive is unpacked where it is not yet."""

    def run(*words: str, code: int = 0, spoil: str = ":") -> str:
        script = f"[ -d {NAME}-* ] || tar xzf bundle.tar.gz; cd {NAME}-*; {spoil}; sh install {' '.join(words)}"
        done = offline.host.run("sh", "-c", script, check=False)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    return run


def test_the_archive_installs_without_a_network_and_again_does_nothing(offline: Console, install: Installer) -> None:
    assert not offline.run("ip", "route", "show", "default").strip()
    assert f"Generation 1 of {NAME} runs" in install()
    assert offline.routes()
    installers = offline.run("sh", "-c", f"cat /opt/{NAME}/runtimes/*/venv/lib/*/site-packages/*.dist-info/INSTALLER")
    assert installers.replace("uv", "").strip() == ""
    before = offline.main_pids()
    assert f"Nothing to do: generation 1 of {NAME} is current and runs." in install()
    assert offline.main_pids() == before
    health = f"http://{DOMAIN}/health"
    asked = f"import urllib.request as r; print(r.urlopen(r.Request({health!r})).read())"
    offline.write("/etc/hosts", f"127.0.0.1 localhost {DOMAIN}\n")
    assert "healthy" in offline.run("python3", "-c", asked)
    offline.host.reboot()
    assert offline.routes()


def test_an_installation_from_the_archive_can_be_changed_and_removed(offline: Console, install: Installer) -> None:
    install("--set", "server=gunicorn", "--set", "manager=supervisor")
    assert offline.routes()
    assert f"Generation 2 of {NAME} runs" in install("--set", "port=9000")
    assert offline.routes()
    offline.host.run("sh", "-c", f"cd {NAME}-* && .venv/bin/wsbundle uninstall --purge")
    assert offline.current() == ""


def unchanged(console: Console) -> set[str]:
    return {line for line in console.listing() if "/run/" not in line}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("echo >>service/core/hub.py; rm wheels/uvloop-*", "wsbundle: this archive is damaged"),
        (
            "echo 3.9 x86_64 >wheels/targets; sed -i /targets/d SHA256SUMS; sha256sum wheels/targets >>SHA256SUMS",
            "wsbundle: this archive has wheels for",
        ),
    ],
    ids=["damaged", "another Python"],
)
def test_what_cannot_be_installed_is_told_before_anything_changes(
    offline: Console, install: Installer, spoil: str, said: str
) -> None:
    before = unchanged(offline)
    told = install(code=1, spoil=spoil)
    assert said in told
    assert "Nothing was changed." in told
    assert unchanged(offline) == before
