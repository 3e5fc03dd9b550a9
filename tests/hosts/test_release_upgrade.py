"""Debian 12 becomes 13 under a deployment: Python 3.11 makes way for 3.13, and `make install` alone brings it back."""

import pytest

from tests.hosts import driver
from tests.hosts.console import NAME, Console

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold")


def upgrade(console: Console) -> None:
    """As the release notes of Debian say, without a question."""
    sources = "".join(f"deb {uri} {release} main\n" for uri, release in driver._archives("trixie"))
    console.run("sh", "-c", "rm -rf /etc/apt/sources.list.d")
    console.write("/etc/apt/sources.list", sources)
    console.run(*APT, "update")
    console.host.run(*APT, "full-upgrade", timeout_s=1800)


def test_it_serves_on_says_so_and_is_brought_back_by_make_install(installed: Console, suite: str) -> None:
    if suite != "bookworm":
        pytest.skip("there is nothing to upgrade to")
    upgrade(installed)
    assert "3.13" in installed.run("python3", "--version")
    assert installed.routes()
    said = installed.wsbundle("status", code=1)
    assert "was not made for this Python, 3.13" in said
    assert "`make check`" in said
    installed.host.reboot()
    assert installed.comes_to_route()  # by Python 3.11, which apt keeps until it is asked to remove what nobody needs
    said = installed.run("make", "status", check=False)
    assert "Setting up .venv (again: it was made for Python 3.11, and this is Python 3.13)" in said
    assert "made for Python 3.11, this host has 3.13: run `.venv/bin/wsbundle install`" in said
    installed.status(code=1)
    installed.run(*APT, "autoremove")
    installed.run("systemctl", "restart", f"{NAME}.service", check=False)
    assert "is gone: install again" in installed.run("journalctl", "-u", f"{NAME}.service", "-n", "20")
    installed.run("make", "install")
    assert installed.routes()
    installed.status()
    installed.host.reboot()
    assert installed.comes_to_route()
    assert "cannot run here any more (made for Python 3.11" in installed.wsbundle("rollback", "1", code=1)
