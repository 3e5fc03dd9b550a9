"""A second installation, a changed setting, another server: what is needed happens, and nothing else."""

import json
from typing import Any

import pytest

from tests.hosts.console import DOMAIN, NAME, Console

UNIT, SOCKET = f"/etc/systemd/system/{NAME}.service", f"/etc/systemd/system/{NAME}.socket"
ENV, SITE = f"/etc/{NAME}/.env", f"/etc/nginx/sites-available/{NAME}"
PROGRAM = f"/etc/supervisor/conf.d/{NAME}.conf"
RECORD = f"/var/lib/wsbundle.d/{NAME}.json"


def planned(console: Console, **settings: object) -> dict[str, Any]:
    """What `plan` says as JSON; it must find that there is something to do."""
    console.configure(**settings)
    facts: dict[str, Any] = json.loads(console.wsbundle("plan", "--format", "json", code=3))
    return facts


def test_a_second_installation_changes_nothing_restarts_nothing_and_takes_a_second(installed: Console) -> None:
    before, listing = installed.main_pids(), installed.listing()
    with installed.client() as client:
        installed.configure()
        said = installed.run("bash", "-c", "TIMEFORMAT='%U %S'; time .venv/bin/wsbundle install")
        assert "Nothing to do" in said
        assert sum(map(float, said.split()[-2:])) < 2  # of CPU: whatever else this machine does
        assert client.ping().wait(5)
    assert installed.main_pids() == before
    assert installed.listing() == listing


def test_a_second_installation_says_that_no_client_gets_through_and_why(installed: Console) -> None:
    conf = "/etc/nginx/nginx.conf"

    def refused() -> str:
        said = installed.wsbundle("plan", code=1)
        assert "no client gets through: " in said
        assert "Nothing to do" not in said
        return installed.wsbundle("install", code=1)

    installed.configure()
    installed.run("sed", "-i", "s/^user .*/user games;/", conf)
    installed.run("systemctl", "restart", "nginx")
    said = refused()
    assert "nginx runs as games, and only the group www-data may connect to the service" in said
    assert "server rejected WebSocket connection: HTTP 502" in said
    installed.run("sh", "-c", "usermod -aG www-data games && systemctl reload nginx")
    assert installed.comes_to_route()
    assert "Nothing to do" in installed.wsbundle("install")
    installed.run("sed", "-i", "/sites-enabled/d", conf)
    installed.run("systemctl", "restart", "nginx")
    assert "write `include /etc/nginx/sites-enabled/*;` into /etc/nginx/nginx.conf" in refused()


def test_another_port_changes_the_files_that_name_it_and_restarts_what_reads_them(installed: Console) -> None:
    before = installed.main_pids()
    facts = planned(installed, port=9000)
    assert {file["what"] for file in facts["files"]} == {ENV, SOCKET}
    assert not facts["disconnects"]
    installed.install(port=9000)
    assert installed.routes()
    after = installed.main_pids()
    assert after[f"{NAME}.service"] != before[f"{NAME}.service"]
    assert after["nginx.service"] == before["nginx.service"]
    assert after["nginx workers"] == before["nginx workers"]
    assert "9000" in installed.run("ss", "-Hltn")
    assert "8765" not in installed.run("ss", "-Hltn")


def test_another_ping_interval_restarts_the_service_and_lets_its_socket_stand(installed: Console) -> None:
    since = installed.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", f"{NAME}.socket")
    facts = planned(installed, ping={"interval": 20, "timeout": 10})
    assert {file["what"] for file in facts["files"]} == {ENV, SITE}
    installed.install(ping={"interval": 20, "timeout": 10})
    assert installed.routes()
    assert installed.run("systemctl", "show", "--property=NeedDaemonReload", f"{NAME}.service").strip().endswith("=no")
    assert since == installed.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", f"{NAME}.socket")


def test_a_setting_of_nginx_alone_disconnects_nobody(installed: Console) -> None:
    before = installed.main_pids()
    with installed.client() as client:
        installed.install(nginx={"health_from": ["127.0.0.1"]})
        assert client.ping().wait(5)
    assert installed.main_pids()[f"{NAME}.service"] == before[f"{NAME}.service"]


def test_another_manager_takes_over_and_the_old_one_is_gone(installed: Console) -> None:
    waits = ("systemctl", "show", "--value", "--property=TimeoutStopUSec", "supervisor.service")
    of_itself = installed.run(*waits)
    installed.install(manager="supervisor", server="gunicorn")
    assert installed.routes()
    assert installed.run(*waits).strip() == "infinity"
    assert not installed.is_active(f"{NAME}.service")
    assert not installed.is_active(f"{NAME}.socket")
    assert "could not be found" in installed.run("systemctl", "status", f"{NAME}.service", check=False)
    installed.host.reboot()
    assert installed.comes_to_route()
    installed.install(server="standalone")
    assert installed.routes()
    assert installed.run(*waits) == of_itself
    assert "no such" in installed.run("supervisorctl", "status", NAME, check=False)
    assert installed.run("sh", "-c", f"ls {PROGRAM} /etc/logrotate.d/{NAME} 2>/dev/null || true") == ""


def test_what_was_stopped_by_hand_is_started_again(installed: Console) -> None:
    installed.install(port=9000)
    installed.run("systemctl", "stop", "nginx.service", f"{NAME}.socket", f"{NAME}.service")
    installed.status(code=1)
    said = planned(installed, port=9000)
    assert said["effects"][0] == f"starts and reloads everything again: nginx does not run, {NAME} does not run"
    assert said["counts"] == {"add": 0, "change": 0, "remove": 0}
    installed.install(port=9000)
    assert installed.routes()
    # What was put right is no generation to go back to: there is one of port 8765, and one of port 9000.
    assert len(json.loads(installed.wsbundle("history", "--format", "json"))["generations"]) == 2
    # Beside a change that nginx does not need to know of, and on the way back.
    installed.run("systemctl", "stop", "nginx.service")
    installed.install(port=9000, ping={"interval": 30})
    assert installed.routes()
    installed.run("systemctl", "stop", "nginx.service")
    installed.wsbundle("rollback")
    assert installed.routes()
    installed.install(manager="supervisor")
    installed.run("systemctl", "stop", "supervisor")
    installed.status(code=1)
    installed.install(manager="supervisor")
    assert installed.routes()


def test_plan_shows_the_difference_its_effects_and_how_many_connections_end(installed: Console) -> None:
    assert "Nothing to do" in installed.wsbundle("plan")
    with installed.client():
        installed.configure(port=9000, env={"KEY": "a text that may be secret"})
        said = installed.wsbundle("plan", code=3)
    assert "-ListenStream=127.0.0.1:8765" in said
    assert "+ListenStream=127.0.0.1:9000" in said
    assert "0 of 1 live connections end with it." in said
    assert "+KEY=(hidden)" in said
    assert "secret" not in said
    assert "make: ***" not in installed.run("make", "plan")


def test_owner_group_and_mode_are_as_installed_or_told_and_put_right(installed: Console) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"user": "another"},
        {"manager": "supervisor", "server": "gunicorn"},
        {"nginx": {"default_server": True}},
    )
    for settings in changes:
        installed.install(**settings)
        assert "instead of" not in installed.status()
    installed.wsbundle("rollback")
    assert "instead of" not in installed.status()
    installed.install()
    installed.run("sh", "-c", f"chown games {ENV}; chmod 600 {UNIT}; chown games:games {SOCKET} {SITE}")
    expected = [
        f"{ENV}: has owner games instead of root\n",
        f"{UNIT}: has mode 0600 instead of 0644\n",
        *(f"{path}: has owner games instead of root, has group games instead of root\n" for path in (SOCKET, SITE)),
    ]
    said = (installed.status(code=4), installed.wsbundle("plan", code=1), installed.wsbundle("install", code=1))
    for each in said:
        assert [line for line in expected if line not in each] == []
    installed.wsbundle("install", "--overwrite")
    assert "instead of" not in installed.status()
    assert installed.run("stat", "-Lc", "%U:%G %a", UNIT, SOCKET, SITE, ENV).split("\n")[:4] == [
        *["root:root 644"] * 3,
        f"root:{NAME} 640",
    ]
    assert installed.run("sh", "-c", f"ls /opt/{NAME}/edited 2>/dev/null || true") == ""  # nothing was edited
    assert installed.routes()


@pytest.mark.parametrize(
    ("text", "why"),
    [("", f"{RECORD} is damaged"), ("{}", f"/opt/{NAME} is there, and is not ours")],
    ids=["damaged", "empty"],
)
def test_plan_says_what_install_says_of_a_record_that_is_wrong(installed: Console, text: str, why: str) -> None:
    installed.configure()
    installed.write(RECORD, text)
    for word in ("plan", "install"):
        said = installed.wsbundle(word, code=1)
        assert why in said, said
        assert "Nothing to do" not in said


def test_plan_on_a_host_without_it_names_every_file_and_all_else_that_is_made(fresh: Console) -> None:
    fresh.configure()
    fresh.run("sh", "generator/prepare.sh")
    said = fresh.run("make", "plan")
    for line in (f"+ {UNIT}", "+ nginx", f"+ {NAME}", f"+ /etc/{NAME}/keys.json", "starts the service"):
        assert f"  {line}\n" in said, said
    assert len(said.splitlines()) < 50, said
    facts = json.loads(fresh.wsbundle("plan", "--format", "json", code=3))
    assert f"Plan: {facts['counts']['add']} to add, 0 to change, 0 to remove." in said
    assert not facts["disconnects"]


def test_a_rollback_takes_neither_a_name_nor_a_port_that_another_deployment_has_by_now(installed: Console) -> None:
    moved: dict[str, Any] = {"domain": "moved.example.com", "port": 9000}
    installed.install(**moved)
    installed.install(name="yonder")  # nginx reads our site first, which would get all its clients
    before = installed.main_pids()
    installed.configure(**moved)
    said = installed.wsbundle("rollback", code=1)
    assert f"/etc/nginx/sites-enabled/yonder:43 is {DOMAIN} too, and nginx would ignore one of the two" in said
    assert "port 8765 on 127.0.0.1 is taken by yonder.socket" in said
    assert "Nothing was changed." in said
    assert installed.main_pids() == before
    assert installed.current() == "2"
    assert installed.routes()
    installed.wsbundle("uninstall", "--set", "name=yonder")
    installed.wsbundle("rollback")
    assert installed.routes()


def test_history_grows_to_five_and_rollback_goes_back_to_any_of_them(installed: Console) -> None:
    for port in range(9001, 9007):
        installed.install(port=port)
    kept = json.loads(installed.wsbundle("history", "--format", "json"))
    assert [each["number"] for each in kept["generations"]] == [3, 4, 5, 6, 7]
    assert kept["current"] == 7
    installed.wsbundle("rollback")
    assert "9005" in installed.run("ss", "-Hltn")
    installed.wsbundle("rollback", "3")
    assert installed.routes()
    assert "9002" in installed.run("ss", "-Hltn")
    assert "no such generation" in installed.wsbundle("rollback", "1", code=1)


def test_every_command_speaks_json(installed: Console) -> None:
    installed.configure(port=9000)
    for word in ("install", "install", "status", "history", "rollback", "uninstall"):
        facts = json.loads(installed.wsbundle(word, "--format", "json"))
        assert facts["exit_code"] == 0, word


def test_two_deployments_share_a_host_and_one_leaves_without_the_other(installed: Console) -> None:
    other: dict[str, Any] = {
        "name": "second",
        "domain": "second.example.com",
        "port": 9100,
        "limits": {"connections": 3000},
    }
    before = installed.listing()
    installed.install(**other)
    assert installed.routes()
    assert installed.routes("second.example.com")
    shared = "/etc/nginx/modules-enabled/90-wsbundle.conf"
    assert "second" in installed.run("readlink", shared)
    installed.wsbundle("uninstall")
    assert installed.routes()
    assert NAME in installed.run("readlink", shared)
    gone = {line for line in before ^ installed.listing() if "second" not in line and "/etc/" in line}
    assert all(line.startswith(("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")) for line in gone)
    installed.install(**other)
    installed.configure()
    installed.wsbundle("uninstall")
    assert installed.routes("second.example.com")
    assert DOMAIN not in installed.run("nginx", "-T")
