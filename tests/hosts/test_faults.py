"""Whatever fails on the way, the previous generation serves, and the next run succeeds."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.console import CLONE, NAME, Console
from tests.hosts.test_ended_at_every_step import BY_SUPERVISOR, ended_at, leaves_nothing_behind, stopped_at

_ENDING = Path(__file__).with_name("ended_at.py")
SITE = f"/etc/nginx/sites-available/{NAME}"
# It also changes what nginx reads, which does not use the port.
OTHER_PORT: dict[str, Any] = {"port": 9000, "ping": {"interval": 50}}
SWITCHING = ("pending.json", "/current", "systemctl restart", "nginx.service")  # parts of the names of steps


def nothing_happened(console: Console) -> None:
    """Generation 1 serves as before, and a later attempt succeeds."""
    assert console.current() == "1"
    assert console.routes()
    console.configure()
    console.status()
    leaves_nothing_behind(console)


def a_later_attempt_succeeds(console: Console) -> None:
    console.install(**OTHER_PORT)
    assert console.routes()
    console.status()
    leaves_nothing_behind(console)


def test_a_full_disk(installed: Console) -> None:
    installed.run("sh", "-c", "cp -a /opt /tmp/opt && mount -t tmpfs -o size=340M tmpfs /opt && cp -a /tmp/opt/. /opt")
    installed.run("sh", "-c", "echo '#' >>service/core/hub.py")
    installed.run(
        "sed",
        "-i",
        "s/^NEEDED, .*/NEEDED = NEEDED_FOR_A_CHANGE = NEEDED_BY_SYSTEMD = (0, 0)/",
        "generator/host/obstacles.py",
    )
    installed.run("sh", "-c", "head -c 1G /dev/zero >/opt/filler; test -s /opt/filler")
    assert "No space left" in installed.install(code=1, **OTHER_PORT)
    nothing_happened(installed)
    installed.run("rm", "/opt/filler")
    a_later_attempt_succeeds(installed)


def test_apt_fails(fresh: Console) -> None:
    fresh.configure()
    fresh.run("sh", "generator/prepare.sh")
    fresh.run("make", "check")
    fresh.run("sh", "-c", "mv /etc/apt/sources.list.d /etc/apt/kept; apt-get update")
    said = fresh.install(code=1)
    assert "apt-get" in said
    assert "The deployment was not touched." in said
    assert fresh.run("ls", "/opt") == ""


def test_pip_fails(installed: Console) -> None:
    installed.run("sh", "-c", "echo '#' >>service/core/hub.py; rm -rf /root/.cache/pip")
    installed.write("/etc/pip.conf", "[global]\nindex-url = http://127.0.0.1:9/\nretries = 0\n")
    said = installed.install(code=1, **OTHER_PORT)
    assert "pip install failed" in said
    nothing_happened(installed)


def test_pip_fails_at_the_first_installation(empty: Console) -> None:
    empty.run("rm", "-rf", f"/opt/{NAME}", "/root/.cache/pip")
    empty.write("/etc/pip.conf", "[global]\nindex-url = http://127.0.0.1:9/\nretries = 0\n")
    assert "pip install failed" in empty.install(code=1)
    assert empty.run("ls", "-A", "/opt") == ""


def test_a_foreign_site_that_breaks_nginx_meanwhile(installed: Console) -> None:
    foreign = "echo 'nonsense;' >/etc/nginx/conf.d/foreign.conf"
    meanwhile(installed, "systemctl", f'case "$*" in *daemon-reload*) {foreign};; esac')
    said = installed.install(code=1, **OTHER_PORT)
    assert "nginx -t failed" in said
    assert installed.routes()
    installed.run("rm", "/etc/nginx/conf.d/foreign.conf", "/usr/local/sbin/systemctl")
    a_later_attempt_succeeds(installed)


def meanwhile(console: Console, program: str, act: str) -> None:
    """Let something happen on the host when a program is started."""
    console.write(f"/usr/local/sbin/{program}", f'#!/bin/sh\n{act}\nexec /usr/bin/{program} "$@"\n')
    console.run("chmod", "755", f"/usr/local/sbin/{program}")


# With the settings of a deployment the service ends when it starts, and without them it can be imported.
DOES_NOT_START = "import os; 'WEBSOCKET_PORT' in os.environ and exit('broken code')"


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_a_service_that_does_not_start(installed: Console, manager: str) -> None:
    installed.run("sh", "-c", f'echo "{DOES_NOT_START}" >>service/settings.py')
    installed.host.run("sed", "-i", "/broken code/d", "service/settings.py", directory=CLONE)
    installed.run("sh", "-c", f'echo "{DOES_NOT_START}" >>service/process/listen.py')
    said = installed.install(code=1, manager=manager, server="uvicorn", **OTHER_PORT)
    assert "does not work" in said
    assert "generation 1 runs again" in said
    nothing_happened(installed)
    installed.run("sed", "-i", "/broken code/d", "service/process/listen.py")
    a_later_attempt_succeeds(installed)


def test_a_first_installation_whose_service_does_not_start_leaves_no_service(empty: Console) -> None:
    empty.run("sh", "-c", f'echo "{DOES_NOT_START}" >>service/process/listen.py')
    said = empty.install(code=1)
    assert "nothing is installed, as before" in said
    assert empty.run("systemctl", "--failed", "--no-legend") == ""
    assert empty.run("find", "/etc", "-name", f"{NAME}*") == ""
    empty.run("sed", "-i", "/broken code/d", "service/process/listen.py")
    empty.install()
    assert empty.routes()


def test_a_drop_in_of_the_operator_that_keeps_the_service_from_starting_is_named(installed: Console) -> None:
    drop_in = f"/etc/systemd/system/{NAME}.service.d/own.conf"
    installed.write(drop_in, "[Service]\nExecStartPre=/bin/false\n")
    said = installed.install(code=1, **OTHER_PORT)
    assert f"{NAME}.service is changed by {drop_in}, which is not ours" in said
    installed.run("rm", drop_in)
    a_later_attempt_succeeds(installed)


@pytest.mark.parametrize("module", ["fast/runner.py", "server.py"])
def test_a_service_that_cannot_be_imported_is_never_started(installed: Console, module: str) -> None:
    before = installed.main_pids()
    installed.run("sh", "-c", f"echo 'import nothing_at_all' >>service/{module}")
    said = installed.install(code=1)
    assert "importing it failed: ModuleNotFoundError: No module named 'nothing_at_all'\n" in said
    assert "The deployment was not touched." in said
    assert installed.main_pids() == before
    nothing_happened(installed)
    installed.run("sed", "-i", "/nothing_at_all/d", f"service/{module}")
    a_later_attempt_succeeds(installed)


def test_a_rollback_restarts_nothing_where_nginx_could_not_follow(installed: Console) -> None:
    installed.install(**OTHER_PORT)
    before = installed.main_pids()
    installed.write("/etc/nginx/conf.d/foreign.conf", "nonsense;\n")
    said = installed.wsbundle("rollback", code=1)
    assert "/etc/nginx/conf.d/foreign.conf:1; fix that file first. Nothing was changed." in said
    assert installed.main_pids() == before
    installed.run("rm", "/etc/nginx/conf.d/foreign.conf")
    installed.configure(**OTHER_PORT)
    assert "unfinished" not in installed.status()
    installed.wsbundle("rollback")
    assert installed.routes()


def test_a_rollback_does_not_take_nginx_to_a_port_that_another_program_has_by_now(installed: Console) -> None:
    installed.install(nginx={"http_port": 8088})
    installed.install(**OTHER_PORT)
    server = ("systemd-run", "--unit=other", "python3", "-m", "http.server", "8088")
    installed.run("sh", "-c", f"{' '.join(server)}; until ss -ltn | grep -q :8088; do sleep 0.1; done")
    before = installed.main_pids()
    said = installed.wsbundle("rollback", code=1)
    assert "port 8088 on 0.0.0.0 is taken by python3" in said
    assert "Nothing was changed." in said
    assert installed.main_pids() == before
    installed.run("systemctl", "stop", "other")
    installed.wsbundle("rollback")


def test_a_rollback_stops_nothing_where_the_service_could_not_start_again(installed: Console) -> None:
    keys = "/etc/keys.json"
    installed.run(".venv/bin/wsbundle", "token", "--keys", keys, "--new-key")
    fix = f"chgrp {NAME} {keys}; chmod g+r {keys}"
    said = installed.install(auth="token", keys=keys, code=1)
    assert f"the user {NAME} cannot read {keys}; `{fix}`" in said
    assert "Nothing was changed." in said
    installed.run("sh", "-c", fix)
    installed.install(auth="token", keys=keys)
    installed.install(auth="none")
    before = installed.main_pids()
    installed.run("mv", keys, "/etc/keys.away")
    said = installed.wsbundle("rollback", code=1)
    assert f"{keys} is gone, and without that the service does not start; restore it. Nothing was changed." in said
    assert installed.main_pids() == before
    installed.run("mv", "/etc/keys.away", keys)
    installed.wsbundle("rollback")
    installed.status()


def test_a_runtime_that_somebody_has_damaged_is_made_again(installed: Console) -> None:
    installed.run(
        "sh",
        "-c",
        f"rm /opt/{NAME}/runtimes/*/service/core/hub.py; rm -r /opt/{NAME}/runtimes/*/service/core/__pycache__",
    )
    installed.run("systemctl", "restart", NAME, check=False)
    assert "is damaged, and is made again" in installed.install()
    assert installed.routes()


def test_what_the_service_runs_from_is_missed_while_it_still_runs(installed: Console) -> None:
    runtimes = f"/opt/{NAME}/runtimes"
    for command, why in ((f"rm {runtimes}/*/service/core/hub.py", "is damaged"), (f"rm -r {runtimes}", "is gone")):
        installed.run("sh", "-c", command)
        assert re.search(f"WILL NOT SERVE AS NOW\n +{runtimes}/.* {why}", installed.status(code=1))
        assert re.search(
            f"starts and reloads everything again: {runtimes}/.* {why}", installed.wsbundle("plan", code=3)
        )
        installed.install()
        installed.status()
        installed.run("systemctl", "restart", NAME)
        assert installed.routes()


@pytest.mark.parametrize("command", ["chmod -R o-rwx", "chown -R nobody", "chmod 700"])
def test_what_is_closed_or_given_away_is_told_and_put_right(installed: Console, command: str) -> None:
    installed.run("sh", "-c", f"{command} /opt/{NAME}")
    assert f"/opt/{NAME}: is not root's alone to write and everybody's to read" in installed.status(code=4)
    assert "Changed by hand" in installed.install(code=1)
    installed.install("--overwrite")
    installed.status()
    installed.host.reboot()
    assert installed.comes_to_route()


def test_a_switch_that_is_undone_leaves_the_listeners_and_nginx_alone(installed: Console) -> None:
    """Or else clients that wait at a listener would be refused, and others be cut off by nginx minutes later."""
    units = (f"{NAME}.socket", f"{NAME}.nginx.socket")
    show = ("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", *units)
    since, before = installed.run(*show), installed.main_pids()
    installed.run("sh", "-c", f'echo "{DOES_NOT_START}" >>service/process/listen.py')
    assert "generation 1 runs again" in installed.install(code=1)
    after = installed.main_pids()
    assert after[f"{NAME}.service"] != before[f"{NAME}.service"]
    assert after["nginx workers"] == before["nginx workers"]
    assert installed.run(*show) == since
    nothing_happened(installed)


def test_a_health_probe_that_fails(installed: Console) -> None:
    installed.write("/etc/nginx/conf.d/000-foreign.conf", "deny all;\n")
    installed.run("sh", "-c", "sed -i 's/^_PATIENCE_S = .*/_PATIENCE_S = 2.0/' generator/host/probe.py")
    said = installed.install(code=1, **OTHER_PORT)
    assert "403" in said
    installed.run("rm", "/etc/nginx/conf.d/000-foreign.conf")
    installed.run("systemctl", "restart", "nginx")  # a reload would return before it is done
    nothing_happened(installed)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_installer_that_is_told_to_end_takes_back_what_it_did(installed: Console, by: signal.Signals) -> None:
    installed.configure(**OTHER_PORT)
    installed.host.push([_ENDING], "/root")
    for step in ("generations/2", *SWITCHING):
        assert ended_at(installed, step, "install", by=by.name), step
        nothing_happened(installed)
        installed.configure(**OTHER_PORT)
    a_later_attempt_succeeds(installed)


def test_a_change_is_taken_back_when_clients_get_through_again(installed: Console) -> None:
    """supervisor calls running, after three seconds, what has yet to listen."""
    installed.install(**BY_SUPERVISOR)
    installed.run("sed", "-i", "1i import time; time.sleep(6)", f"/opt/{NAME}/current/service/server.py")
    installed.configure(**BY_SUPERVISOR, **OTHER_PORT)
    installed.host.push([_ENDING], "/root")
    assert ended_at(installed, "reload-or-restart nginx", "install", by="all")
    assert "Nothing to do" in installed.install(**BY_SUPERVISOR)
    assert installed.routes()


def test_nobody_reads_what_it_says(installed: Console) -> None:
    installed.configure(**OTHER_PORT)
    installed.run("sh", "-c", ".venv/bin/wsbundle install | grep -m1 'write generation'")
    assert installed.current() == "2"
    assert installed.routes()


def test_two_installers_at_once(installed: Console) -> None:
    installed.configure(**OTHER_PORT)
    command = installed.host.command(".venv/bin/wsbundle", "install", directory=CLONE)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [each.communicate()[0] for each in both]
    assert sorted(each.returncode for each in both) == [0, 1]
    assert "another installation is under way" in "".join(said)
    assert installed.current() == "2"
    assert installed.routes()


@pytest.mark.parametrize("step", SWITCHING)
def test_a_power_cut_while_it_switches(installed: Console, step: str) -> None:
    installed.configure(**OTHER_PORT)
    installed.host.push([_ENDING], "/root")
    with stopped_at(installed, step, "install") as name:
        assert name, "it ended before"
        installed.run("sh", "-c", "kill -CONT $(cat /run/wsbundle.lock)")  # now the step begins
        installed.host.cut_power()
    installed.host.boot()
    assert installed.comes_to_route()
    installed.install()
    assert installed.routes()
    installed.status()
    leaves_nothing_behind(installed)


def test_an_uninstallation_that_cannot_remove_a_file_keeps_what_it_leads_to(installed: Console) -> None:
    """Or else nginx, with every other site, would not start; and the next run would not know what is left."""
    unit = f"/etc/systemd/system/{NAME}.service"
    installed.configure()
    installed.run("mount", "--bind", unit, unit)
    for word in ("uninstall", "uninstall"):
        said = installed.wsbundle(word, code=1)
        assert f"{unit}: Device or resource busy" in said
        assert "is stopped, and not removed" in said
        installed.run("nginx", "-t", "-q")
    installed.run("umount", unit)
    installed.wsbundle("uninstall")
    assert installed.run("find", "/etc", "/opt", "-name", f"{NAME}*", "-type", "f,l") == ""
    installed.install()
    assert installed.routes()


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_what_is_left_when_somebody_has_removed_opt_is_told_and_uninstalled(installed: Console, manager: str) -> None:
    installed.install(manager=manager)
    installed.run("rm", "-r", f"/opt/{NAME}")
    for word in ("status", "plan", "install"):
        assert f"/opt/{NAME} is gone or damaged" in installed.wsbundle(word, code=1)
    installed.wsbundle("uninstall", "--purge")
    assert installed.run("find", "/etc", "/opt", "/var/lib", "-name", f"*{NAME}*") == ""
    of_the_service = f"/opt/[{NAME[0]}]{NAME[1:]}/current"  # not pgrep itself, nor the sudo that runs it
    assert installed.run("pgrep", "-f", of_the_service, check=False) == ""
    installed.run("nginx", "-t", "-q")
    installed.install(manager=manager)
    assert installed.routes()


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_power_is_cut_when_the_units_are_of_one_generation_and_what_they_run_of_another(
    installed: Console, kind: str
) -> None:
    """Neither the old socket, which nginx does not ask any more, nor the old service with the new settings serves."""
    directory = "/etc/systemd/system"
    installed.configure(port=9000, server="gunicorn", workers=2, bus=f"/run/{NAME}/elsewhere")
    installed.host.push([_ENDING], "/root")
    with stopped_at(installed, f"os.rename {directory}/{NAME}.{kind}", "install") as step:
        assert step
        assert installed.current() == "2"
        installed.host.cut_power()
    installed.host.boot()
    assert installed.comes_to_route()
    for unit in (f"{NAME}.service", f"{NAME}.socket"):
        assert installed.run("cmp", f"{directory}/{unit}", f"/opt/{NAME}/current{directory}/{unit}") == ""
    installed.install()
    assert installed.routes()
    installed.status()
    leaves_nothing_behind(installed)
