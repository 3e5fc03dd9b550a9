"""What stands in the way is told before anything changes, all of it at once."""

import re
from typing import Any

import pytest

from tests.hosts.console import CLONE, NAME, Console

SITE = f"/etc/nginx/sites-available/{NAME}"
LISTENER = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 8765)); s.listen(); time.sleep(600)"


def unchanged(console: Console) -> set[str]:
    return {line for line in console.listing() if "holder" not in line and "/run/" not in line}


def test_every_problem_is_told_at_once_and_nothing_changes(empty: Console) -> None:
    empty.write("/etc/systemd/system/holder.service", f'[Service]\nExecStart=/usr/bin/python3 -c "{LISTENER}"\n')
    empty.run("systemctl", "start", "holder")
    empty.write("/etc/nginx/conf.d/broken.conf", "nonsense;\n")
    empty.write(SITE, "# mine\n")
    empty.run("sed", "-i", "--follow-symlinks", "s/^VERSION_ID=.*/VERSION_ID=8/", "/etc/os-release")
    system = empty.run("sh", "-c", ". /etc/os-release && echo $ID").strip()
    empty.run("mount", "-t", "tmpfs", "-o", "size=10M,nr_inodes=100", "tmpfs", "/opt")
    empty.run("mount", "--bind", "/etc", "/etc")
    empty.run("mount", "-o", "remount,bind,ro", "/etc")
    before = unchanged(empty)
    said = empty.install(code=1)
    for finding in (
        f"this is {system} 8",
        "/opt has 10 MiB free",
        "the file system of /opt has 99 inodes left",
        "/etc is mounted read-only",
        "nginx is broken already",
        "broken.conf:1",
        "port 8765 on 127.0.0.1 is taken by python3",
        f"{SITE} is there, and is not ours",
        "does not lead to this host",
        "Nothing was changed.",
    ):
        assert finding in said, finding
    assert unchanged(empty) == before


def test_a_host_that_would_not_read_what_we_write_is_told_so(empty: Console) -> None:
    empty.run("useradd", "--system", "--gid", "users", "notify")
    for directory in ("sites-enabled", "modules-enabled"):
        empty.run("sed", "-i", f"/{directory}/d", "/etc/nginx/nginx.conf")
    said = empty.install(code=1, user="notify")
    for finding in (
        "write `include /etc/nginx/sites-enabled/*;` into /etc/nginx/nginx.conf",
        "write `include /etc/nginx/modules-enabled/*.conf;` into /etc/nginx/nginx.conf",
        "the user notify has the group users",
    ):
        assert finding in said, finding


def test_an_nginx_that_takes_too_few_connections_is_told_and_the_mend_mends_it(empty: Console) -> None:
    wanted: dict[str, Any] = {"limits": {"connections": 20000}}
    said = empty.install(**wanted)
    (enough,) = re.findall(r"set worker_connections to at least (\d+) in /etc/nginx/nginx.conf", said)
    empty.run("sed", "-i", f"s/worker_connections .*;/worker_connections {enough};/", "/etc/nginx/nginx.conf")
    assert "worker_connections" not in empty.install(port=9000, **wanted)


def test_who_is_not_root_is_told_so(empty: Console) -> None:
    empty.configure()
    empty.run("chmod", "755", empty.host.home, empty.checkout)
    for word in ("install", "rollback", "uninstall"):
        done = empty.host.run("runuser", "-u", "nobody", "--", ".venv/bin/wsbundle", word, check=False, directory=CLONE)
        assert done.returncode == 1
        assert "you are not root" in done.stdout
        assert "Traceback" not in done.stdout


def test_a_port_is_named_with_the_socket_unit_that_holds_it(installed: Console) -> None:
    said = installed.install(name="second", domain="second.example.com", code=1)
    assert f"{NAME}.socket" in said or "is taken by" in said
    assert installed.routes()


@pytest.mark.parametrize(
    ("start", "fix"),
    [
        ("nginx", "nginx.service has not started that, and cannot reload it: stop it, then `systemctl start nginx`"),
        ("systemd-run --unit=other --service-type=forking nginx", "`systemctl disable --now other.service`"),
    ],
)
def test_an_nginx_that_systemd_does_not_reload_is_told(installed: Console, start: str, fix: str) -> None:
    installed.install(ping={"interval": 40})  # so that there is something to go back to
    installed.configure(ping={"interval": 50})
    installed.run("sh", "-c", f"systemctl stop nginx; {start}")
    before = installed.main_pids()
    for words in ("plan", "install", "rollback"):
        said = installed.wsbundle(words, code=1)
        assert "port 80 on 0.0.0.0 is taken by nginx (process " in said
        assert fix in said
    assert installed.main_pids() == before
    assert installed.routes()


def test_a_name_that_a_unit_of_the_system_has_is_refused(empty: Console) -> None:
    empty.write("/usr/lib/systemd/system/other.service", "[Service]\nExecStart=/bin/true\n")
    assert "system/other.service is there, and is not ours" in empty.install(name="other", code=1)


def test_an_address_of_another_host_is_refused(empty: Console) -> None:
    assert "192.0.2.7 is not an address of this host" in empty.install(
        host="192.0.2.7", expose=True, nginx={"trusted_proxies": ["192.0.2.8"]}, code=1
    )


def test_without_a_network_packages_cannot_come(fresh: Console) -> None:
    fresh.configure()
    fresh.run("sh", "generator/prepare.sh")
    fresh.run("make", "check")
    fresh.host.disconnect()
    fresh.run("ip", "route", "flush", "default", check=False)
    fresh.run("ip", "link", "del", "tap0", check=False)
    before = unchanged(fresh)
    assert "there is no network, and nginx must still be installed" in fresh.install(code=1)
    assert unchanged(fresh) == before


def test_a_clock_that_is_behind_is_told(empty: Console) -> None:
    empty.run("touch", "-d", "+2 days", "pyproject.toml")
    empty.run("touch", "-d", "+3 days", ".venv/ready")
    assert "the clock is at least 48 hours behind" in empty.install()


@pytest.mark.parametrize("path", [f"/var/lib/{NAME}", f"/etc/{NAME}", f"/opt/{NAME}", "/opt"])
def test_a_directory_that_has_become_a_link(installed: Console, path: str) -> None:
    installed.configure()
    installed.run("sh", "-c", f"mv {path} /home/moved && ln -s /home/moved {path}")
    if path != f"/etc/{NAME}":  # the service would not start again
        for words in ("status", "plan", "install"):
            assert f"{path} is a link; put the directory itself there" in installed.wsbundle(words, code=1)
    said = installed.install(port=9000, code=1)
    assert f"{path} is a link; put the directory itself there" in said
    assert "Nothing was changed." in said
    assert installed.current() == "1"
    assert installed.routes()
