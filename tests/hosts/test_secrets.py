"""Who can read, write and run what."""

import re

import pytest

from tests.hosts.console import NAME, Console

SECRET = "a secret of 1f0c9a7e"


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_the_service_owns_nothing_that_it_runs_and_writes_only_its_state(empty: Console, manager: str) -> None:
    empty.install(manager=manager, env={"SECRET": SECRET})
    look = (
        "runuser",
        "-u",
        NAME,
        "--",
        "find",
        "/etc",
        "/opt",
        "/usr",
        "/var",
        "-xdev",
        "-writable",
        "!",
        "-type",
        "l",
    )
    found = {path for path in empty.run(*look, check=False).splitlines() if path.startswith("/")}
    assert {path for path in found if not path.startswith(("find:", "/var/tmp", "/var/lock", "/var/crash"))} == {
        f"/var/lib/{NAME}"
    }
    assert empty.run("find", "/", "-xdev", "-user", NAME, "!", "-path", "/proc/*").splitlines() == [f"/var/lib/{NAME}"]
    assert not empty.run("find", f"/opt/{NAME}", "-perm", "/022", "!", "-type", "l")
    compiled = empty.run("sh", "-c", f"find /opt/{NAME}/current/service/ -name '*.pyc' | wc -l")
    assert int(compiled) == int(empty.run("sh", "-c", f"find /opt/{NAME}/current/service/ -name '*.py' | wc -l"))


def test_what_env_holds_is_told_to_nobody(empty: Console) -> None:
    said = empty.install(env={"SECRET": SECRET})
    said += empty.status() + empty.wsbundle("history") + empty.wsbundle("plan")
    empty.run("sh", "-c", f"echo X=y >>/etc/{NAME}/.env")
    said += empty.status(code=4)
    empty.configure(env={"SECRET": f"not {SECRET}"})
    said += empty.wsbundle("plan", code=1) + empty.wsbundle("install", "--overwrite")
    said += empty.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    said += empty.run("journalctl", "--no-pager")
    assert SECRET not in said
    readable = empty.run("grep", "-rl", SECRET, "/etc/", "/opt/", "/run/", "/var/", check=False).splitlines()
    assert readable
    for path in readable:
        asked = empty.run("runuser", "-u", "nobody", "--", "head", "-c1", path, check=False)
        assert "Permission denied" in asked, path


def test_every_installed_file_has_the_mode_that_the_manifest_says(installed: Console) -> None:
    listed = installed.run("cat", f"/opt/{NAME}/current/manifest.json")
    modes = dict(re.findall(r'"path": "([^"]+)",\s+"installed": \w+,\s+"mode": "(\d+)"', listed))
    assert modes
    for path, mode in modes.items():
        assert installed.run("stat", "--format=%04a %U", f"/opt/{NAME}/current/{path}").split() == [mode, "root"], path
