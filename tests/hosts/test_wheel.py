"""A host that has no checkout: the wheel in an environment of root's, and all that an operator does with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import running
from tests.hosts.console import DOMAIN, NAME, ROOT, Console

WSBUNDLE = "/usr/local/lib/wsbundle/bin/wsbundle"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w"]
    subprocess.run([*pip, directory, ROOT], check=True, capture_output=True)
    (made,) = directory.glob("*.whl")
    return made


@pytest.fixture
def without_checkout(prepared: tuple[Path, ...], wheel: Path) -> Iterator[Console]:
    """A host that has the wheel installed, and no clone."""
    with running(*prepared) as console:
        host = console.host
        host.run("rm", "-rf", console.checkout)
        host.push([wheel], "/root")
        host.run("python3", "-m", "venv", "/usr/local/lib/wsbundle")
        host.run("/usr/local/lib/wsbundle/bin/pip", "install", "--quiet", f"/root/{wheel.name}")
        yield console


def test_a_host_is_installed_changed_and_left_from_the_wheel(without_checkout: Console) -> None:
    host = without_checkout.host

    def typed(*words: str, code: int = 0) -> str:
        done = host.run(WSBUNDLE, *words, check=False)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    typed("init", DOMAIN)
    assert f"Generation 1 of {NAME} runs" in typed("install", "--set", "auth=none")
    assert without_checkout.routes()
    versions = host.run("sh", "-c", f"ls /opt/{NAME}/current/venv/lib/python3*/site-packages").stdout
    locked = (ROOT / "requirements/service.txt").read_text()
    (uvicorn,) = (line for line in versions.split() if line.startswith("uvicorn-") and line.endswith(".dist-info"))
    assert f"uvicorn=={uvicorn.removeprefix('uvicorn-').removesuffix('.dist-info')} " in locked
    assert f"Nothing to do: generation 1 of {NAME} is current and runs." in typed("install")
    assert "Nothing to do" in typed("plan")

    # What would stop an installation is told by plan as well.
    host.run("sh", "-c", "echo >>/etc/nginx/sites-available/other")
    said = typed("plan", "--set", "name=other", "--set", "domain=other.mycompany.org", code=1)
    assert "/etc/nginx/sites-available/other is there, and is not ours" in said
    assert "port 8765 on 127.0.0.1 is taken" in said
    assert "+ /etc/systemd/system/other.service" in said
    file = f"/etc/{NAME}/.env"
    host.run("sh", "-c", f"cat {file} >/root/kept; echo X=y >>{file}")
    assert f"{file}: was edited" in typed("plan", code=1)
    host.run("sh", "-c", f"cat /root/kept >{file}")

    # With tokens: the keys are made, and used, by the service's own module.
    said = typed("install", "--set", "auth=token")
    assert f"Generation 2 of {NAME} runs" in said
    assert f"sudo {WSBUNDLE} token UUID" in said
    assert typed("token", "alice", "--set", "auth=token").count(".") >= 2
    assert "  1  " in typed("history")
    typed("rollback")
    assert without_checkout.routes()
    typed("uninstall", "--purge")
    assert not (host.root / f"opt/{NAME}").exists()
