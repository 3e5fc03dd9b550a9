"""`wsbundle status` fails when clients do not get through, whatever the manager says; and says why."""

import json
import re
import time

import pytest

from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.test_ended_at_every_step import ENDING, stopped_at

ENV = f"/etc/{NAME}/.env"


def test_a_service_that_hangs_does_not_answer(installed: Console) -> None:
    assert "running, uvicorn under systemd" in installed.status()
    began = time.monotonic()
    said = _while_it_hangs(installed)
    assert time.monotonic() - began < 15
    assert "NOT ANSWERING (no answer within 5 s)" in said
    facts = json.loads(_while_it_hangs(installed, "--format", "json"))
    assert (facts["running"], facts["answering"]) == (True, False)


def _while_it_hangs(installed: Console, *options: str) -> str:
    """What `status` says; then it goes on, before its watchdog has had enough."""
    installed.run("systemctl", "kill", "--signal=SIGSTOP", f"{NAME}.service")
    said = installed.wsbundle("status", *options, code=1)
    installed.run("systemctl", "kill", "--signal=SIGCONT", f"{NAME}.service")
    assert "running" in installed.status()
    return said


def test_a_port_that_programs_of_the_host_do_not_find_is_missed(installed: Console) -> None:
    installed.configure()
    own = f"/etc/systemd/system/{NAME}.socket.d/own.conf"
    installed.write(own, "[Socket]\nListenStream=\nListenStream=127.0.0.1:9555\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "restart", f"{NAME}.socket", f"{NAME}.service")
    what = f"nothing listens on 127.0.0.1:8765: {own} changes that, and is not ours; remove it, then `"
    assert what in installed.status(code=1)
    before = installed.main_pids()
    for word in ("plan", "install"):  # which would leave that file as it is
        assert what in installed.wsbundle(word, code=1)
    assert installed.main_pids() == before
    installed.run("rm", own)
    assert "nothing listens on 127.0.0.1:8765" in installed.wsbundle("plan", code=3)
    installed.wsbundle("install")
    installed.status()
    assert "Nothing to do" in installed.wsbundle("install")


def test_a_service_that_is_down_and_was_edited_is_down_above_all(installed: Console) -> None:
    installed.run("sh", "-c", f"echo >>{ENV}")
    assert f"{ENV}: was edited" in installed.status(code=4)
    installed.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    said = installed.status(code=1)
    assert "NOT RUNNING" in said
    assert f"{ENV}: was edited" in said


def test_an_installation_that_is_under_way_is_not_one_that_was_cut_short(installed: Console) -> None:
    installed.host.push([ENDING], "/root")
    installed.configure(port=9000)
    with stopped_at(installed, 12, "install") as step:
        assert step is not None
        said = installed.wsbundle("status")
        assert "an installation is under way" in said
        assert "cut short" not in said
        assert "an installation is under way" in installed.wsbundle("plan", code=1)
        done = installed.host.run("runuser", "-u", "nobody", "--", "cat", "/proc/locks", check=False)
        assert "FLOCK" in done.stdout


def test_what_would_not_survive_a_boot_is_told_while_it_still_runs(installed: Console) -> None:
    installed.configure()
    foreign = "/etc/nginx/conf.d/foreign.conf"
    for command, undo, why in (
        (f"echo 'nonsense;' >{foreign}", f"rm {foreign}", f"in {foreign}:1; fix that file first"),
        ("systemctl mask nginx", "systemctl unmask nginx", "systemctl unmask nginx.service"),
        (
            "cd /etc/nginx && cp nginx.conf kept && sed -i /sites-enabled/d nginx.conf",
            "cd /etc/nginx && mv kept nginx.conf",
            "write `include /etc/nginx/sites-enabled/*;` into /etc/nginx/nginx.conf",
        ),
        (
            "cd /etc/nginx && cp nginx.conf kept && sed -i 's#sites-enabled/.;#sites-enabled/*.conf;#' nginx.conf",
            "cd /etc/nginx && mv kept nginx.conf",
            "write `include /etc/nginx/sites-enabled/*;` into /etc/nginx/nginx.conf",
        ),
    ):
        installed.run("sh", "-c", command)
        said = installed.status(code=1)
        assert "next start:   WILL NOT SERVE AS NOW" in said
        assert why in said
        assert why in installed.wsbundle("plan", code=1)
        assert why in installed.wsbundle("install", code=1)
        installed.run("sh", "-c", undo)
        installed.status()
    assert "Nothing to do" in installed.wsbundle("install")
    installed.run("systemctl", "disable", "nginx")
    for words in (("status",), ("plan",), ("install",), ("install", "--set", "ping.interval=50")):
        assert "nginx.service is disabled, so that no client gets through" in installed.wsbundle(*words)[:200_000]


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_what_the_service_needs_to_start_again_is_missed_while_it_runs(installed: Console, manager: str) -> None:
    installed.install(auth="token", manager=manager)
    keys = f"/etc/{NAME}/keys.json"
    for command, why in (
        (f"userdel --force {NAME}; ! id {NAME}", f"the service's user {NAME} does not exist any more"),
        (f"rm {keys}", f"{keys} is gone: restore it, from a backup or another host"),
        (f"chmod 600 {keys}", f"the user {NAME} cannot read {keys}"),
        (f"chmod 700 /etc/{NAME}", f"the user {NAME} cannot read {keys}"),
    ):
        installed.run("sh", "-c", command)
        assert why in installed.status(code=1)
        assert re.search(f"starts and reloads everything again: .*{why}", installed.wsbundle("plan", code=3))
        assert "runs: ws://" in installed.wsbundle("install")
        installed.status()
    installed.run("userdel", "--force", NAME, check=False)
    installed.wsbundle("rollback", "1")
    assert installed.routes()
    installed.status()


def test_a_group_of_the_service_that_has_another_name_by_now_is_told(installed: Console) -> None:
    installed.configure()
    installed.run("groupmod", "--new-name", "renamed", NAME)
    fix = f"groupadd {NAME}; usermod --gid {NAME} {NAME}"
    for word in ("status", "plan", "install"):
        assert f"the user {NAME} has the group renamed" in (said := installed.wsbundle(word, code=1))
        assert fix in said
    installed.run("sh", "-c", fix)
    installed.wsbundle("install", "--overwrite")
    installed.run("systemctl", "restart", NAME)
    installed.status()


def test_an_nginx_that_could_not_reach_the_service_after_its_next_start_is_told(installed: Console) -> None:
    installed.configure()
    installed.run("useradd", "--system", "other")
    installed.run("sed", "-i", "s/^user .*/user other;/", "/etc/nginx/nginx.conf")
    for words in (("status",), ("plan",), ("install",)):
        assert "usermod -aG www-data other" in installed.wsbundle(*words, code=1)
    installed.run("usermod", "-aG", "www-data", "other")
    installed.status()


def test_a_site_that_would_get_the_clients_of_ours_is_told(installed: Console) -> None:
    installed.configure()
    other = f"server {{ listen 80; listen [::]:80; server_name {DOMAIN}; return 200; }}\n"
    installed.write("/etc/nginx/sites-enabled/zzz", other)
    installed.status()
    installed.write("/etc/nginx/sites-enabled/aaa", other)
    assert f"/etc/nginx/sites-enabled/aaa:1 is {DOMAIN} too" in installed.status(code=1)
    installed.run("systemctl", "restart", "nginx")
    assert "NOT ANSWERING" in installed.status(code=1)


def test_a_site_that_would_have_the_address_of_clients_for_itself_is_told(installed: Console) -> None:
    installed.configure()
    address = installed.host.address
    installed.write("/etc/hosts", f"127.0.0.1 localhost fresh\n{address} {DOMAIN}\n")
    installed.write("/etc/nginx/sites-enabled/zzz", f"server {{ listen {address}:80; return 200; }}\n")
    for words in (("status",), ("plan",), ("install",)):
        said = installed.wsbundle(*words, code=1)
        assert f"/etc/nginx/sites-enabled/zzz:1 has {address} port 80 for itself" in said
    installed.install(nginx={"listen": ["0.0.0.0", "::", address]})
    installed.status()
    installed.run("systemctl", "restart", "nginx")
    installed.status()


def test_what_plan_would_add_is_added(installed: Console) -> None:
    installed.configure()
    before = installed.main_pids()
    installed.run("sh", "-c", f"rm /etc/{NAME}/keys.json; dpkg --force-depends --purge logrotate openssl")
    for added in (f"+ /etc/{NAME}/keys.json", "+ openssl"):
        assert added in installed.wsbundle("plan", code=3)
    installed.run("apt-get", "-q", "update")
    installed.wsbundle("install")
    assert "Nothing to do" in installed.wsbundle("plan")
    assert "Nothing to do" in installed.wsbundle("install")
    assert installed.main_pids() == before


def test_sockets_that_are_gone_are_made_again(installed: Console) -> None:
    installed.configure()
    installed.run("sh", "-c", f"rm -r /run/{NAME}")
    assert "NOT ANSWERING" in installed.status(code=1)
    assert f"/run/{NAME}/ws.sock is gone" in installed.wsbundle("plan", code=3)
    installed.wsbundle("install")
    assert installed.routes()
    installed.status()
