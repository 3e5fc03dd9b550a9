"""What people do to a host by hand is noticed, and is theirs until they say otherwise."""

import pytest

from tests.hosts.console import NAME, Console

UNIT = f"/etc/systemd/system/{NAME}.service"
SITE = f"/etc/nginx/sites-available/{NAME}"
ENV = f"/etc/{NAME}/.env"
SECRET = "EDITED='a secret'"


def through_the_link(console: Console, path: str, line: str) -> None:
    console.run("sh", "-c", 'echo "$1" >>"$2"', "sh", line, path)


def by_a_file_of_its_own(console: Console, path: str, line: str) -> None:
    """As editors save: a new file takes the name."""
    console.run("sh", "-c", 'cp "$2" /tmp/new && echo "$1" >>/tmp/new && mv /tmp/new "$2"', "sh", line, path)


@pytest.mark.parametrize("edit", [through_the_link, by_a_file_of_its_own])
@pytest.mark.parametrize("path", [UNIT, SITE, ENV])
def test_an_edit_is_shown_refused_and_overwritten_on_demand_with_a_copy(installed: Console, path: str, edit) -> None:  # type: ignore[no-untyped-def]
    line = SECRET if path == ENV else "# edited"
    edit(installed, path, line)
    said = installed.status(code=4)
    assert path in said
    assert ("+# edited" in said) == (path != ENV)
    refused = installed.install(port=9000, code=1)
    assert "--overwrite" in refused
    assert line in installed.run("cat", path)
    said += refused + installed.install("--overwrite", port=9000)
    assert installed.routes()
    assert line not in installed.run("cat", path)
    copies = installed.run("grep", "-rl", line, f"/opt/{NAME}/edited")
    assert path in copies
    assert "a secret" not in said
    installed.status()


def test_an_edit_survives_an_installation_that_overwrites_it_and_fails(installed: Console) -> None:
    through_the_link(installed, SITE, "# one")
    by_a_file_of_its_own(installed, UNIT, "# two")
    installed.run("sh", "-c", "mv /usr/bin/systemd-tmpfiles /tmp; ln -s /bin/false /usr/bin/systemd-tmpfiles")
    installed.install("--overwrite", socket=f"/run/{NAME}/ws.sock", code=1)
    assert installed.routes()
    assert "# one" in installed.run("cat", SITE)
    assert "# two" in installed.run("cat", UNIT)


def test_what_was_disabled_given_away_or_led_elsewhere_is_so_after_an_installation_that_fails(
    installed: Console,
) -> None:
    wants = "/etc/systemd/system/multi-user.target.wants"
    installed.run("sh", "-c", f"systemctl disable {NAME}.service; chown daemon:adm {UNIT}; chmod 600 {UNIT}")
    installed.run("ln", "-sf", "/etc/elsewhere", SITE)
    installed.run("sh", "-c", "mv /usr/bin/systemd-tmpfiles /tmp; ln -s /bin/false /usr/bin/systemd-tmpfiles")
    installed.install("--overwrite", socket=f"/run/{NAME}/ws.sock", code=1)
    assert installed.run("stat", "-c", "%U:%G %a", UNIT).strip() == "daemon:adm 600"
    assert installed.run("readlink", SITE).strip() == "/etc/elsewhere"
    assert f"{NAME}.service" not in installed.run("ls", wants)
    installed.run("mv", "/tmp/systemd-tmpfiles", "/usr/bin/systemd-tmpfiles")
    installed.install("--overwrite")
    assert installed.routes()
    assert installed.status()


def test_a_file_that_was_removed_is_noticed_and_put_back(installed: Console) -> None:
    installed.install(port=9000)
    installed.run("chmod", "600", SITE)
    assert "make: ***" not in installed.run("make", "status")  # clients get through
    installed.run("rm", SITE)
    said = installed.status(code=1)
    assert "is missing" in said
    assert "WILL NOT SERVE AS NOW" in said  # nginx does not start with a link that leads nowhere
    installed.install("--overwrite", port=9000)
    assert installed.routes()
    installed.status()
    # One that is the same again is no generation to go back to.
    installed.wsbundle("rollback")
    assert "8765" in installed.run("ss", "-Hltn")


def test_a_site_that_was_broken_by_hand_is_fixed_by_overwriting(installed: Console) -> None:
    through_the_link(installed, SITE, "nonsense;")
    installed.install("--overwrite")
    assert installed.routes()


def test_rollback_at_night_is_not_held_up_by_edits_and_keeps_them(installed: Console) -> None:
    installed.install(port=9000)
    by_a_file_of_its_own(installed, UNIT, "# edited")
    assert "# edited" in installed.wsbundle("rollback")
    assert installed.routes()
    assert "# edited" in installed.run("grep", "-r", "# edited", f"/opt/{NAME}/edited")
    installed.status()


def test_uninstalling_keeps_a_copy_of_what_was_edited(installed: Console) -> None:
    through_the_link(installed, SITE, "# edited")
    assert "/var/backups" in installed.wsbundle("uninstall")
    assert "# edited" in installed.run("grep", "-r", "# edited", "/var/backups")


def test_a_file_that_is_not_ours_is_left_alone(empty: Console) -> None:
    empty.write(SITE, "# mine\n")
    assert "is not ours" in empty.install(code=1)
    assert empty.run("cat", SITE) == "# mine\n"
    assert empty.current() == ""


def test_the_default_site_of_nginx_is_left_alone(empty: Console) -> None:
    before = empty.run("readlink", "/etc/nginx/sites-enabled/default")
    empty.install()
    assert empty.run("readlink", "/etc/nginx/sites-enabled/default") == before
    assert "Welcome to nginx" in empty.run(".venv/bin/python", "-c", _GET)


_GET = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/').read().decode())"
