"""Uninstalling removes what was installed, exactly, and nothing of anybody else's."""

from tests.hosts.console import NAME, Console

USERS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/.pwd.lock", "/etc/subuid", "/etc/subgid")


# supervisor's own, which it makes some time after the host has booted.
DAEMON = "/run/supervisor"


def rest(console: Console, *kept: str) -> set[str]:
    return {line for line in console.listing() if not line.startswith((*USERS, DAEMON, *kept, f"/opt/{NAME}"))}


def test_nothing_of_it_stays_but_data_and_user(empty: Console) -> None:
    before, users = rest(empty), empty.run("getent", "passwd")
    empty.install()
    empty.run("runuser", "-u", NAME, "--", "touch", f"/var/lib/{NAME}/data")
    empty.wsbundle("uninstall")
    assert rest(empty, f"/var/lib/{NAME}", f"/etc/{NAME}", "/var/lib/wsbundle.d") == before
    assert empty.run("ls", f"/etc/{NAME}") == "keys.json\n"
    assert NAME in empty.run("getent", "passwd")
    assert empty.run("ls", f"/var/lib/{NAME}") == "data\n"
    assert empty.run("ls", "/opt") == ""
    assert empty.run("systemctl", "--failed", "--no-legend") == ""
    assert "not installed" in empty.wsbundle("uninstall")
    logs = f"/var/log/nginx/{NAME}_"
    assert empty.run("sh", "-c", f"stat --format='%a %U %G' {logs}*").splitlines() == ["640 www-data adm"] * 2
    empty.run("touch", f"{logs}access.log.1", f"{logs}error.log.2.gz", f"{logs}access.log.mine")
    empty.wsbundle("uninstall", "--purge")
    assert empty.run("sh", "-c", f"ls {logs}*") == f"{logs}access.log.mine\n"
    assert rest(empty) == before
    assert empty.run("getent", "passwd") == users


def test_nothing_of_any_choice_stays(empty: Console) -> None:
    before, users = rest(empty), empty.run("getent", "passwd")
    empty.install(manager="supervisor", server="gunicorn")
    empty.install(socket=f"/run/{NAME}/ws.sock")
    empty.install(socket=f"/run/{NAME}/ws.sock", manager="supervisor")
    empty.wsbundle("uninstall", "--purge")
    assert rest(empty) == before
    assert empty.run("getent", "passwd") == users


def test_a_user_that_was_there_before_stays(empty: Console) -> None:
    empty.run("useradd", "--system", "notify")
    empty.install(user="notify")
    assert empty.routes()
    empty.wsbundle("uninstall", "--purge")
    assert "notify" in empty.run("getent", "passwd")


def test_supervisor_that_was_stopped_is_not_started_to_uninstall(empty: Console) -> None:
    empty.install(manager="supervisor")
    empty.run("systemctl", "stop", "supervisor", "nginx")
    empty.wsbundle("uninstall")
    assert not empty.is_active("supervisor")
    assert not empty.is_active("nginx")
