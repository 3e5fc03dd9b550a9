"""Hosts for the tests. The layers from bottom to top:

bare       Debian as installed, and make                                         cached from run to run
prepared   a clone with its virtual environment, the packages, pip's cache       cached until requirements change
installed  the default deployment, installed from this working tree              once per run
"""

import atexit
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosts import driver
from tests.hosts.console import CLONE, NAME, ROOT, Console
from tests.hosts.driver import CACHE, Host

SUITES = ("bookworm", "trixie", "resolute")
_PACKAGES = ("make", "python3-venv", "nginx", "supervisor", "logrotate", "openssl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("host")


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """A release of Debian, or Ubuntu 26.04 as the driver makes it."""
    if reason := driver.why_not():
        pytest.skip(reason)
    CACHE.mkdir(parents=True, exist_ok=True)
    driver.sweep()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then every host goes away
    return str(request.param)


@contextmanager
def running(*layers: Path) -> Iterator[Console]:
    """A host on these layers, up; gone afterwards."""
    host = Host(layers)
    atexit.register(host.destroy)
    try:
        host.boot()
        yield Console(host)
    finally:
        host.destroy()
        atexit.unregister(host.destroy)


@pytest.fixture(scope="session")
def bare(suite: str) -> tuple[Path, ...]:
    return (driver.base(suite, "make"),)


@pytest.fixture(scope="session")
def prepared(suite: str, bare: tuple[Path, ...]) -> tuple[Path, ...]:
    made_from = ("requirements/generator.txt", "requirements/service.txt", "pyproject.toml", "generator/environment.py")
    texts = [(ROOT / path).read_bytes() for path in made_from]
    key = hashlib.sha256(b"".join([bare[0].name.encode(), *texts])).hexdigest()
    target = CACHE / f"prepared-{suite}-{key[:8]}"
    with driver.taking_turns(suite):
        if not target.exists():
            _prepare(bare, target)
    return (target, *bare)


def _prepare(bare: tuple[Path, ...], target: Path) -> None:
    with running(*bare) as console:
        console.clone()
        console.run("apt-get", "-q", "update")
        install = ("apt-get", "-q", "-y", "install", "--no-install-recommends", *_PACKAGES)
        console.run(*install, DEBIAN_FRONTEND="noninteractive")
        console.run("make", "check")
        console.install()  # for pip's cache
        console.wsbundle("uninstall", "--purge")
        console.host.shut_down()
        console.host.upper.rename(target)


@pytest.fixture(scope="session")
def installed_layers(prepared: tuple[Path, ...], suite: str) -> Iterator[tuple[Path, ...]]:
    target = CACHE / f"layer-{os.getpid()}-{suite}"
    with running(*prepared) as console:
        console.clone()
        console.install()
        console.host.shut_down()
        console.host.upper.rename(target)
    yield (target, *prepared)
    shutil.rmtree(target)


@pytest.fixture(scope="session")
def warm_layers(
    prepared: tuple[Path, ...], installed_layers: tuple[Path, ...], suite: str
) -> Iterator[tuple[Path, ...]]:
    """Prepared, and the runtime is there: what a first installation that failed leaves behind."""
    target = CACHE / f"layer-{os.getpid()}-warm{suite}"
    target.mkdir()
    home = "home/ubuntu" if suite == "resolute" else "root"
    paths = (f"opt/{NAME}/runtimes", f"{home}/{CLONE}")
    copy = ("cp", "--archive", "--no-preserve=xattr", "--parents", *paths, target)
    subprocess.run(copy, cwd=installed_layers[0], check=True)
    yield (target, *prepared)
    shutil.rmtree(target)


@pytest.fixture
def fresh(bare: tuple[Path, ...]) -> Iterator[Console]:
    """A host as a provider hands it over, with a clone and with make."""
    with running(*bare) as console:
        console.clone()
        yield console


@pytest.fixture
def empty(warm_layers: tuple[Path, ...]) -> Iterator[Console]:
    """A host without the deployment; its packages are there, so that an installation takes a few seconds."""
    with running(*warm_layers) as console:
        yield console


@pytest.fixture
def installed(installed_layers: tuple[Path, ...]) -> Iterator[Console]:
    """A host that runs the default deployment: uvicorn under systemd on port 8765, generation 1."""
    with running(*installed_layers) as console:
        yield console
