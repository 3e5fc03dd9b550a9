"""Old sites are put away and brought back, and nothing of them is ever lost. What takes systemd is tried on hosts."""

import os
from pathlib import Path

import pytest

from generator.host.by_hand import ByHand
from generator.host.store import Store, is_rendered
from generator.rendering.write import temporary_of

LINK, FILE = "/etc/nginx/sites-enabled/old", "/etc/nginx/conf.d/old.conf"
AWAY = "var/backups/new.by-hand"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The root of a host with two sites."""
    for path in (LINK, FILE):
        (tmp_path / path[1:]).parent.mkdir(parents=True)
    (tmp_path / LINK[1:]).symlink_to("/etc/nginx/sites-available/old")
    (tmp_path / FILE[1:]).write_text("server { }\n")
    (tmp_path / FILE[1:]).chmod(0o640)
    return tmp_path


def test_sites_are_put_away_and_come_back_as_they_were(host: Path) -> None:
    old = ByHand(Store("new", host))
    old.put_away([LINK, FILE])
    assert old.standing([LINK, FILE]) == []
    assert old.kept([LINK, FILE]) == [LINK, FILE]
    assert (host / AWAY / LINK[1:]).readlink() == Path("/etc/nginx/sites-available/old")
    old.revive([LINK, FILE])
    assert old.standing([LINK, FILE]) == [LINK, FILE]
    assert (host / LINK[1:]).readlink() == Path("/etc/nginx/sites-available/old")
    assert (host / FILE[1:]).stat().st_mode & 0o777 == 0o640
    assert not old.was_touched([LINK, FILE])


def test_another_file_system_makes_no_difference(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refused(source: str, target: str) -> None:
        if temporary_of(Path(target)) != Path(source):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(Path, "rename", lambda self, target: refused(str(self), str(target)))
    test_sites_are_put_away_and_come_back_as_they_were(host)


def test_what_was_put_away_before_stays_beside_it(host: Path) -> None:
    old = ByHand(Store("new", host))
    for number in range(3):
        (host / FILE[1:]).write_text(f"# {number}\n")
        old.put_away([FILE])
    kept = sorted(path.read_text() for path in (host / AWAY).rglob("old.conf*"))
    assert kept == ["# 0\n", "# 1\n", "# 2\n"]
    assert (host / AWAY / FILE[1:]).read_text() == "# 2\n"
    # What `cp -a` of the way back would bring to where nginx reads all files.
    assert os.listdir((host / AWAY / FILE[1:]).parent) == ["old.conf"]


def test_what_has_taken_its_place_is_not_replaced(host: Path) -> None:
    old = ByHand(Store("new", host))
    old.put_away([FILE])
    (host / FILE[1:]).write_text("another\n")
    old.revive([FILE])
    assert (host / FILE[1:]).read_text() == "another\n"
    assert (host / AWAY / FILE[1:]).read_text() == "server { }\n"


def test_the_way_back_is_said_where_there_is_one(host: Path) -> None:
    old = ByHand(Store("new", host))
    assert old.way_back() == []
    old.put_away([LINK])
    assert old.way_back()[1] == "  cp -a /var/backups/new.by-hand/etc / && nginx -t && systemctl reload nginx"


def test_a_deployment_of_ours_was_not_set_up_by_hand(tmp_path: Path) -> None:
    (tmp_path / "ours").write_text("# Rendered by wsbundle from deploy.yaml; edit that and install again.\n")
    (tmp_path / "theirs").write_text("# by hand\n")
    assert is_rendered(tmp_path / "ours")
    assert not is_rendered(tmp_path / "theirs")
    assert not is_rendered(tmp_path / "missing")
