"""A default server of ours and Debian's own default site: it makes way, and comes back as it was."""

import json
import re
from typing import Any

from tests.hosts.console import Console
from tests.hosts.test_off_the_host import rest

SITE = "/etc/nginx/sites-enabled/default"
ALONE: dict[str, Any] = {"nginx": {"default_server": True}}
_GET = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1")
connection.request("GET", "/")
try:
    print(connection.getresponse().read().decode())
except http.client.RemoteDisconnected:
    print("no answer")
"""


def answer(console: Console) -> str:
    """What someone gets who names no site of this host."""
    return console.run("python3", "-c", _GET)


def test_it_makes_way_and_comes_back_at_the_end(empty: Console) -> None:
    before = rest(empty, "/run")
    empty.install(**ALONE)
    assert empty.routes()
    assert answer(empty) == "no answer\n"
    empty.status()
    assert "Nothing to do" in empty.install(**ALONE)
    empty.host.reboot()
    assert empty.comes_to_route()
    empty.wsbundle("uninstall", "--purge")
    assert rest(empty, "/run") == before
    assert "Welcome to nginx" in answer(empty)


def test_plan_shows_both_ways_and_rollback_goes_back(installed: Console) -> None:
    installed.configure(**ALONE)
    assert f"takes nginx's default site away: {SITE}" in installed.wsbundle("plan", code=3)
    installed.install(**ALONE)
    assert not json.loads(installed.wsbundle("plan", "--format", "json"))["files"]
    installed.configure()
    assert f"brings nginx's default site back: {SITE}" in installed.wsbundle("plan", code=3)
    installed.wsbundle("rollback")
    assert installed.routes()
    assert "Welcome to nginx" in answer(installed)
    assert installed.run("readlink", SITE) == "/etc/nginx/sites-available/default\n"


def test_an_installation_that_fails_brings_it_back(installed: Console) -> None:
    # Preflight would name these; a panel may write them while an installation runs.
    shown = installed.run("ip", "-brief", "-4", "address", "show", "scope", "global")
    for address in re.findall(r"([\d.]+)/", shown):
        foreign = f"server {{ listen {address}:80; server_name ws.example.com; return 404; }}\n"
        installed.write(f"/etc/nginx/conf.d/000-{address}.conf", foreign)
    installed.run("sed", "-i", "s/yield from neighbours.faults.*/pass/", "generator/host/obstacles.py")
    installed.run("sh", "-c", "sed -i 's/^_PATIENCE_S = .*/_PATIENCE_S = 2.0/' generator/host/probe.py")
    said = installed.install(code=1, **ALONE)
    assert "Generation 1 is back, and does not answer" in said  # the foreign server is still in its way
    assert "Undone: generation 1 is current again." in said
    assert installed.run("readlink", SITE) == "/etc/nginx/sites-available/default\n"


def test_what_the_operator_put_there_meanwhile_is_his(installed: Console) -> None:
    installed.install(**ALONE)
    installed.write(SITE, "server { listen 81; }\n")
    assert f"{SITE}: is there again" in installed.status(code=4)
    assert f"{SITE} is not Debian's" in installed.install("--overwrite", code=1, port=9000, **ALONE)
    installed.wsbundle("uninstall")
    assert installed.run("cat", SITE) == "server { listen 81; }\n"


def test_one_that_was_edited_stands_in_the_way(installed: Console) -> None:
    installed.run("sh", "-c", "echo '# mine' >>/etc/nginx/sites-available/default")
    assert f"{SITE} is not Debian's any more" in installed.install(code=1, **ALONE)
    assert "# mine" in installed.run("cat", SITE)
    installed.install(port=9000)
    assert installed.routes()
