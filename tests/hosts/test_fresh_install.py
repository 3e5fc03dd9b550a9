"""From a host as its provider hands it over to a service that clients reach."""

import pytest

from tests.hosts.console import DOMAIN, NAME, Console

SERVERS = ("uvicorn", "gunicorn", "standalone")
_PAIR = f"""
cd /root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=x \
    -addext subjectAltName=DNS:{DOMAIN} -keyout key.pem -out file.pem
chmod 644 key.pem
"""
MANAGERS = ("systemd", "supervisor")


def test_make_install_is_all_that_a_fresh_host_needs(fresh: Console) -> None:
    fresh.configure()
    said = fresh.run("make", "install")
    assert f"Generation 1 of {NAME} runs" in said
    assert fresh.routes()
    assert "Nothing to do" in fresh.run("make", "install")
    fresh.host.reboot()
    assert fresh.comes_to_route()
    assert f"{NAME}, generation 1" in fresh.run("make", "status")
    fresh.run("make", "uninstall")
    assert fresh.current() == ""


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("server", SERVERS)
def test_every_server_runs_under_every_manager_and_survives_a_reboot(empty: Console, server: str, manager: str) -> None:
    empty.install(server=server, manager=manager, log={"level": "info"})
    assert empty.routes()
    assert "connected uuid=" in empty.wsbundle("logs")
    assert f"{server} under {manager}" in empty.status()
    empty.host.reboot()
    assert empty.comes_to_route()
    empty.status()


def test_what_is_warned_about_is_told_once_though_packages_came_between(empty: Console) -> None:
    empty.run("apt-get", "-q", "-y", "remove", "supervisor", DEBIAN_FRONTEND="noninteractive")
    empty.run("sh", "-e", "-c", _PAIR)
    certificate = {"file": "/root/file.pem", "key": "/root/key.pem"}
    said = empty.install(manager="supervisor", tls="files", certificate=certificate)
    for warning in ("is signed by itself", "is open to every user", "does not lead to this host"):
        assert said.count(warning) == 1, said


def test_the_service_may_be_behind_a_unix_socket(empty: Console) -> None:
    empty.install(socket=f"/run/{NAME}/ws.sock")
    assert empty.routes()
    assert "8765" not in empty.run("ss", "-Hltn")
    empty.host.reboot()
    assert empty.comes_to_route()
