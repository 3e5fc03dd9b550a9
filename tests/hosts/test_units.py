"""Units as systemd wants them: there at boot wherever /opt is, and enabled, disabled and masked as any other."""

from typing import Any

import pytest

from tests.hosts.console import NAME, Console
from tests.hosts.older_release import as_an_older_release_installed_it
from tests.hosts.test_ended_at_every_step import BY_SUPERVISOR, leaves_nothing_behind
from tests.hosts.test_faults import DOES_NOT_START

SERVICE, SOCKET = UNITS = (f"{NAME}.service", f"{NAME}.socket")
DIRECTORY = "/etc/systemd/system"
# A disk that appears after nothing waits for it any more; a bind mount, since containers mount no devices.
LATE = "[Unit]\nDefaultDependencies=no\nBefore=opt.mount\n[Service]\nType=oneshot\nExecStart=/bin/sleep 4\n"
LATE_OPTIONS = "nofail,x-systemd.requires=disk.service,x-systemd.after=disk.service"


def mount_opt(console: Console, options: str) -> None:
    """Let /opt be a file system of its own from the next boot on, with nothing below it until it is mounted."""
    console.write(f"{DIRECTORY}/disk.service", LATE)
    console.write("/etc/fstab", f"/srv/opt /opt none bind,{options} 0 0\n")
    console.run("sh", "-c", "mkdir /srv/opt && cp -a /opt/. /srv/opt")
    console.run("systemctl", "stop", "nginx.service", "supervisor.service", *UNITS, check=False)
    console.run("rm", "-rf", f"/opt/{NAME}")


@pytest.mark.parametrize(
    ("settings", "options"),
    [({}, "defaults"), ({"workers": 2}, LATE_OPTIONS), (BY_SUPERVISOR, LATE_OPTIONS)],
    ids=["a file system of its own", "mounted late", "mounted late, under supervisor"],
)
def test_it_serves_after_every_boot_whatever_file_system_opt_is_on(
    installed: Console, settings: dict[str, Any], options: str
) -> None:
    installed.install(**settings)
    mount_opt(installed, options)
    installed.host.reboot()
    assert "/opt" in installed.run("findmnt", "--noheadings", "--output=TARGET", "/opt")
    assert installed.comes_to_route()
    assert installed.run("systemctl", "--failed", "--no-legend") == ""
    installed.status()
    assert "Nothing to do" in installed.install(**settings)


def test_what_is_disabled_does_not_start_and_what_is_enabled_does(installed: Console) -> None:
    listing = installed.listing()
    installed.run("systemctl", "disable", NAME)
    assert f"{SERVICE} is disabled, and does not start at boot" in installed.status(code=4)
    assert f"{SOCKET} is disabled" in installed.install(code=1)
    installed.host.reboot()
    assert not any(map(installed.is_active, UNITS))
    installed.run("systemctl", "enable", "--now", NAME)
    assert installed.routes()
    installed.status()
    installed.run("systemctl", "reenable", NAME)
    assert {line for line in installed.listing() if DIRECTORY in line} == {
        line for line in listing if DIRECTORY in line
    }
    installed.host.reboot()
    assert installed.routes()
    installed.run("systemctl", "disable", "--now", NAME)
    installed.install("--overwrite")
    assert installed.routes()
    installed.status()


def test_what_is_masked_is_told_and_brought_back(installed: Console) -> None:
    # systemd masks nothing for which there is a file in /etc; who wants to moves that away.
    assert "already exists" in installed.run("systemctl", "mask", SERVICE, check=False)
    installed.status()
    installed.run("sh", "-c", f"mv {DIRECTORY}/{SERVICE} /root && systemctl mask --now {SERVICE}")
    assert f"{DIRECTORY}/{SERVICE}: is masked: systemd does not start it" in installed.wsbundle("status", code=1)
    assert "is masked" in installed.install(code=1)
    installed.install("--overwrite")
    assert installed.routes()
    installed.status()


def test_a_unit_that_stays_as_it_is_keeps_its_time_and_systemd_asks_for_no_reload(installed: Console) -> None:
    shown = ("stat", "--format=%Y %i", f"{DIRECTORY}/{SERVICE}", f"{DIRECTORY}/nginx.service.d/{NAME}.conf")
    before = installed.run(*shown)
    installed.install(port=9000)
    installed.install("--overwrite", port=9001)
    assert installed.run(*shown) == before
    for unit in (*UNITS, "nginx.service", "multi-user.target"):
        asks = installed.run("systemctl", "show", "--property=NeedDaemonReload", unit)
        assert asks.strip().endswith("=no"), unit


def in_etc(console: Console) -> set[str]:
    """Without the links that enable units: they come back as systemctl makes them, absolute."""
    return {line for line in console.listing() if line.startswith("/etc") and ".wants/" not in line}


def test_links_of_an_older_release_become_files_and_come_back_when_that_fails(installed: Console) -> None:
    as_an_older_release_installed_it(installed)
    installed.status()
    listing = in_etc(installed)
    installed.run("sh", "-c", f'echo "{DOES_NOT_START}" >>service/process/listen.py')
    assert "generation 1 runs again" in installed.install(port=9000, code=1)
    assert in_etc(installed) == listing
    installed.run("sed", "-i", "/broken code/d", "service/process/listen.py")
    installed.install()
    assert installed.run("find", DIRECTORY, "-maxdepth", "1", "-type", "l", "-name", f"{NAME}*") == ""
    assert installed.run("cmp", f"{DIRECTORY}/{SERVICE}", f"/opt/{NAME}/current{DIRECTORY}/{SERVICE}") == ""
    installed.wsbundle("rollback")
    assert installed.current() == "1"
    assert installed.run("find", DIRECTORY, "-maxdepth", "1", "-type", "l", "-name", f"{NAME}*") == ""
    assert installed.routes()
    installed.configure()
    installed.status()
    leaves_nothing_behind(installed)
