"""A host that was set up by hand is taken over: clients reconnect and notice nothing else, and it can be undone."""

import asyncio
import json

import pytest

from tests.hosts import by_hand
from tests.hosts.by_hand import AWAY, FILE, NEW, OLD, SITE, UNIT, files, new_runs, old_runs, set_up
from tests.hosts.console import Console
from tests.hosts.talkers import talk
from tests.hosts.test_ended_at_every_step import ENDING, await_guardian, ended_at, leaves_nothing_behind, stopped_at


def take_over(console: Console, code: int = 0) -> str:
    return console.wsbundle("import", "--takeover", "-o", FILE, code=code)


async def while_clients_talk(console: Console, *words: str) -> str:
    async with talk(console):
        return await asyncio.to_thread(console.wsbundle, *words)


@pytest.mark.parametrize("sample", ["guide-uvicorn", "guide-supervisor"])
def test_clients_notice_only_that_they_reconnect(empty: Console, sample: str) -> None:
    set_up(empty, sample)
    before = files(empty)
    said = asyncio.run(while_clients_talk(empty, "import", "--takeover", "-o", FILE))
    assert f"{SITE}, kept in {AWAY}" in said
    assert not old_runs(empty)
    assert new_runs(empty)
    assert files(empty) == ""
    assert "Nothing to do" in empty.wsbundle("install", "-f", FILE)
    empty.wsbundle("check", "-f", FILE)
    empty.host.reboot()
    assert empty.comes_to_route()
    assert not old_runs(empty)
    said = asyncio.run(while_clients_talk(empty, "rollback", "-f", FILE))
    assert "serves again" in said
    assert old_runs(empty)
    assert not new_runs(empty)
    assert files(empty) == before
    empty.host.reboot()
    assert empty.comes_to_route()
    assert old_runs(empty)


def test_what_was_replaced_and_is_there_again_is_told(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    take_over(empty)
    empty.run("cp", "-a", f"{AWAY}{UNIT}", UNIT)
    assert f"{UNIT} is there again" in empty.wsbundle("status", "-f", FILE, code=1)
    assert f"{UNIT} is there again" in empty.wsbundle("plan", "-f", FILE, code=3)
    empty.wsbundle("install", "-f", FILE)
    empty.wsbundle("status", "-f", FILE)


def test_a_takeover_that_fails_leaves_the_old_service_and_its_clients_alone(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    before = files(empty)
    # What the new service does not survive, and nothing of the old one knows.
    empty.write(f"/etc/systemd/system/{NEW}.service.d/bad.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    with empty.client() as client:
        said = take_over(empty, code=1)
        assert client.ping().wait(10)
    assert "Undone: nothing is installed, as before." in said
    assert files(empty) == before
    assert old_runs(empty)
    assert empty.routes()
    assert empty.run("sh", "-c", f"find {AWAY} -type f 2>/dev/null || true") == ""


def test_a_unit_that_is_linked_from_opt_and_a_site_that_includes_a_file_are_taken_over(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    linked = f"/opt/theirs/{OLD}.service"
    empty.write("/etc/nginx/snippets/proxy.conf", "proxy_http_version 1.1;\n")
    site = empty.run("cat", SITE)
    assert "proxy_http_version                 1.1;" in site
    included = site.replace("proxy_http_version                 1.1;", "include snippets/proxy.conf;")
    empty.write(f"/etc/nginx/sites-available/{OLD}", included)
    empty.run("sh", "-ec", f"systemctl disable {OLD}; mkdir /opt/theirs; mv {UNIT} {linked}; systemctl enable {linked}")
    empty.run("sh", "-ec", f"systemctl restart {OLD}; nginx -t -q; systemctl reload nginx")
    before = files(empty)
    said = take_over(empty)
    assert "/etc/nginx/snippets/proxy.conf:1: proxy_http_version 1.1;: replaced" in said
    assert not old_runs(empty)
    assert new_runs(empty)
    empty.wsbundle("rollback", "-f", FILE)
    assert old_runs(empty)
    assert files(empty) == before
    empty.host.reboot()
    assert empty.comes_to_route()
    assert old_runs(empty)


def test_one_that_cannot_be_stopped_goes_on(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    before = files(empty)
    empty.write(f"/etc/systemd/system/{OLD}.service.d/stay.conf", "[Unit]\nRefuseManualStop=yes\n")
    empty.run("systemctl", "daemon-reload")
    said = take_over(empty, code=1)
    assert "Undone" in said
    assert files(empty) == before
    assert old_runs(empty)
    assert not new_runs(empty)
    assert empty.routes()


def test_one_that_is_killed_is_undone_or_completed(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    before = files(empty)
    empty.host.push([ENDING], "/root")
    words = ("import", "--takeover", "-o", FILE)
    # At the last of these steps it has been proven, and is recorded as healthy.
    for step in (f"{AWAY}{SITE}", "stop --no-block", f"{AWAY}{UNIT}", f"os.remove /opt/{NEW}/pending.json"):
        empty.run("rm", "-f", FILE)
        name = ended_at(empty, step, *words)
        await_guardian(empty)
        assert name is not None
        assert (files(empty), old_runs(empty), new_runs(empty)) == (before, True, False), name
        assert empty.routes()
        assert empty.run("ls", f"/opt/{NEW}/generations") == "", name
        leaves_nothing_behind(empty)
    # Its guardian is killed as well, with half of the old service put away; and the next run begins with undoing it.
    empty.run("rm", "-f", FILE)
    assert ended_at(empty, f"{AWAY}{UNIT}", *words, by="all") is not None
    assert empty.routes()
    empty.wsbundle("install", "-f", FILE)
    assert (files(empty), old_runs(empty)) == ("", False)
    assert empty.routes()
    assert ended_at(empty, f"os.rename {UNIT}", "rollback", "-f", FILE, by="all") is not None
    empty.host.reboot()
    assert empty.comes_to_route()
    empty.wsbundle("rollback", "-f", FILE)
    assert (files(empty), old_runs(empty), new_runs(empty)) == (before, True, False)
    assert empty.comes_to_route()


def test_a_host_whose_power_is_cut_serves_after_it_has_booted(empty: Console) -> None:
    set_up(empty, "guide-uvicorn")
    empty.host.push([ENDING], "/root")
    for step in (f"{AWAY}{SITE}", f"{AWAY}{UNIT}"):
        empty.run("rm", "-f", FILE)
        with stopped_at(empty, step, "import", "--takeover", "-o", FILE) as name:
            assert name is not None
            empty.host.cut_power()
        empty.host.boot()
        assert empty.comes_to_route()
        empty.wsbundle("install", "-f", FILE)
        assert (files(empty), old_runs(empty), new_runs(empty)) == ("", False, True)
        empty.wsbundle("rollback", "-f", FILE)
        assert empty.comes_to_route()


def test_import_only_looks_and_a_later_installation_takes_over(empty: Console) -> None:
    set_up(empty, "guide-gunicorn")
    listing = empty.listing()
    facts = json.loads(empty.wsbundle("import", "--format", "json", "-o", FILE))
    assert empty.listing() == listing
    assert facts["settings"]["replaces"] == [UNIT, SITE]
    assert facts["settings"]["server"] == "gunicorn"
    assert {line["file"] for line in facts["lines"]} == {UNIT, SITE, f"{by_hand.PROJECT}/gunicorn.conf.py"}
    empty.wsbundle("check", "-f", FILE)
    said = empty.wsbundle("plan", "-f", FILE, code=3)
    assert f"retires {UNIT}, and keeps it in {AWAY}" in said
    empty.wsbundle("install", "-f", FILE)
    assert not old_runs(empty)
    assert empty.routes()
    said = empty.wsbundle("uninstall", "--purge", "-f", FILE)
    assert f"What was set up by hand is kept in {AWAY}" in said
    command = next(line for line in said.splitlines() if "cp -a" in line)
    empty.run("sh", "-c", command)
    assert empty.comes_to_route()
