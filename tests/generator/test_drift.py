"""What on a host is not as it was installed."""

import grp
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.host.drift import copies, drifts, keep_copy, put_back, set_aside
from generator.host.permissions import differences
from generator.host.store import Generation, Store
from generator.readers.nginx import DEFAULT_SITE
from generator.rendering.render import render
from generator.rendering.write import put_copy, put_link

NAME = "queue-websocket"
SITE = f"etc/nginx/sites-available/{NAME}"
ENV = f"etc/{NAME}/.env"
UNIT = f"etc/systemd/system/{NAME}.service"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Generation 1, installed below a directory; its links lead there too."""
    store = Store(NAME, tmp_path)
    bundle = render(load_text("domain: a.org\n", "deploy.yaml").deploy)
    me = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
    bundle = replace(bundle, files=tuple(replace(file, **me) for file in bundle.files))  # only root may give files away
    where = ("127.0.0.1:8765", "a.org", "off")
    store.add(bundle, Generation(1, "r1", 0.0, "uvicorn", "systemd", *where, healthy=True, has_files=True))
    store.make_current(1)
    links = store.links(1)
    monkeypatch.setattr(
        store, "links", lambda _: {p: link.replace("/opt", f"{tmp_path}/opt", 1) for p, link in links.items()}
    )
    for path, link in store.links(1).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(link)
    for path in store.files(1):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        put_copy(store.directory(1) / path, tmp_path / path)
    return store


def test_what_stands_as_installed_does_not_differ(store: Store) -> None:
    assert drifts(store) == []


def test_a_default_site_of_nginx_beside_our_default_server_is_told(store: Store) -> None:
    put_link(store.root / DEFAULT_SITE, "/etc/nginx/sites-available/default")
    assert drifts(store) == []
    store.record(replace(store.generation(1), default_server=True))
    assert [drift.path for drift in drifts(store)] == [DEFAULT_SITE]


def test_what_is_not_installed_cannot_differ(tmp_path: Path) -> None:
    assert drifts(Store("other", tmp_path)) == []


def test_an_edit_through_the_link_is_shown(store: Store) -> None:
    with (store.root / SITE).open("a") as file:
        file.write("# by hand\n")
    (drift,) = drifts(store)
    assert (drift.path, drift.what) == (SITE, "was edited")
    assert "+# by hand" in drift.diff.splitlines()


def test_a_file_in_the_place_of_a_link_is_shown(store: Store) -> None:
    text = (store.root / SITE).read_text()
    (store.root / SITE).unlink()
    (store.root / SITE).write_text(text + "# by hand\n")
    (drift,) = drifts(store)
    assert drift.what == "was replaced by a file"
    assert "+# by hand" in drift.diff


def test_a_link_that_leads_elsewhere_or_is_gone_is_told(store: Store) -> None:
    (store.root / SITE).unlink()
    assert [drift.what for drift in drifts(store)] == ["is missing"]
    (store.root / SITE).symlink_to("/dev/null")
    assert drifts(store)[0].what.startswith("leads to /dev/null instead of ")


def test_a_file_that_is_gone_from_its_generation_is_told(store: Store) -> None:
    (store.directory(1) / SITE).unlink()
    assert [drift.path for drift in drifts(store)] == [SITE]


def test_an_edited_unit_is_shown_and_put_back(store: Store) -> None:
    with (store.root / UNIT).open("a") as file:
        file.write("# by hand\n")
    (drift,) = drifts(store)
    assert (drift.path, drift.what) == (UNIT, "was edited")
    assert "+# by hand" in drift.diff.splitlines()
    keep_copy(drift, store, copies(store, 1))
    put_copy(store.directory(1) / UNIT, store.root / UNIT)
    assert drifts(store) == []
    assert put_back(store, 1)
    assert "# by hand" in (store.root / UNIT).read_text()


def test_an_edit_of_what_a_unit_is_copied_from_changes_nothing_on_the_host(store: Store) -> None:
    (store.directory(1) / UNIT).write_text("mine")
    assert drifts(store) == []


@pytest.mark.parametrize("path", [ENV, SITE, UNIT])
def test_another_mode_is_told_and_taken_back(store: Store, path: str) -> None:
    expected = store.manifest(1)[path]["mode"]
    (store.root / path).chmod(0o604)
    (drift,) = drifts(store)
    assert (drift.path, drift.what, drift.diff) == (path, f"has mode 0604 instead of {expected}", "")
    keep_copy(drift, store, copies(store, 1))
    assert copies(store, 1).exists() == (path == UNIT)  # what our link leads to stays where it is
    store.restore(1)
    for copied in store.files(1):
        put_copy(store.directory(1) / copied, store.root / copied)
    assert drifts(store) == []


def test_an_edit_and_another_mode_are_told_together(store: Store) -> None:
    (store.root / UNIT).write_text("mine")
    (store.root / UNIT).chmod(0o600)
    assert [drift.what for drift in drifts(store)] == ["was edited, has mode 0600 instead of 0644"]


def entry_of(path: Path, **other: str) -> Mapping[str, Any]:
    """The entry of a file in a manifest, as it stands, but for what is given."""
    status = path.stat()
    owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    return {"owner": owner, "group": group, "mode": f"{status.st_mode & 0o7777:04o}", **other}


def test_another_owner_or_group_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    file.chmod(0o640)
    said = entry_of(file)
    somebody = next(user.pw_name for user in pwd.getpwall() if user.pw_uid != os.geteuid())
    others = next(group.gr_name for group in grp.getgrall() if group.gr_gid != os.getegid())
    assert differences(file, said) == []
    assert differences(file, entry_of(file, owner=somebody, group=others, mode="2640")) == [
        f"has owner {said['owner']} instead of {somebody}",
        f"has group {said['group']} instead of {others}",
        "has mode 0640 instead of 2640",
    ]


def test_a_user_that_the_host_does_not_know_and_a_file_that_is_gone_are_told_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert (
        differences(tmp_path / "file", entry_of(tmp_path / "file", owner="no-such-user", group="no-such-group")) == []
    )
    assert differences(tmp_path / "gone", entry_of(tmp_path / "file")) == []
    assert differences(tmp_path / "file/below", entry_of(tmp_path / "file")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_was_given_away_is_told_and_taken_back(store: Store) -> None:
    for path in (SITE, UNIT):
        os.chown(store.root / path, 12345, 54321)
    what = "has owner 12345 instead of root, has group 54321 instead of root"
    assert {(drift.path, drift.what) for drift in drifts(store)} == {(SITE, what), (UNIT, what)}
    store.restore(1)
    put_copy(store.directory(1) / UNIT, store.root / UNIT)
    assert drifts(store) == []


def test_a_unit_that_is_gone_masked_or_led_elsewhere_is_told(store: Store) -> None:
    (store.root / UNIT).unlink()
    assert [drift.what for drift in drifts(store)] == ["is missing"]
    (store.root / UNIT).symlink_to("/dev/null")
    assert [drift.what for drift in drifts(store)] == ["is masked: systemd does not start it"]
    (store.root / UNIT).unlink()
    (store.root / UNIT).symlink_to(store.directory(1) / UNIT)
    assert drifts(store)[0].what.startswith("was replaced by a link to ")


def test_a_unit_that_was_disabled_is_told(store: Store) -> None:
    wants = f"etc/systemd/system/multi-user.target.wants/{NAME}.service"
    (store.root / wants).unlink()
    (drift,) = drifts(store)
    assert (drift.path, drift.what) == (wants, f"is missing: {NAME}.service is disabled, and does not start at boot")
    (store.root / wants).symlink_to(f"../{NAME}.service")  # as one may enable it by hand
    assert drifts(store) == []


def test_what_env_holds_is_never_shown(store: Store) -> None:
    (store.root / ENV).write_text("TOKEN=secret\n")
    (drift,) = drifts(store)
    assert "secret" not in str(drift)
    assert drift.diff == ""


def test_copies_are_for_root_alone(store: Store) -> None:
    (store.root / ENV).write_text("TOKEN=secret\n")
    keep_copy(drifts(store)[0], store, copies(store, 1))
    assert (copies(store, 1) / ENV).read_text() == "TOKEN=secret\n"
    assert copies(store, 1).stat().st_mode & 0o777 == 0o700


def test_a_file_that_had_replaced_a_link_can_be_put_back(store: Store) -> None:
    link = (store.root / SITE).readlink()
    (store.root / SITE).unlink()
    (store.root / SITE).write_text("mine")
    keep_copy(drifts(store)[0], store, copies(store, 1))
    (store.root / SITE).unlink()
    (store.root / SITE).symlink_to(link)
    put_back(store, 1)
    assert not (store.root / SITE).is_symlink()
    assert (store.root / SITE).read_text() == "mine"


def test_what_was_edited_through_a_link_is_not_put_back_as_a_file(store: Store) -> None:
    (store.root / SITE).write_text("mine")
    keep_copy(drifts(store)[0], store, copies(store, 1))
    put_back(store, 1)
    assert (store.root / SITE).is_symlink()


def kept_and_put_back(store: Store, path: str) -> None:
    """As an installation that overwrites it does, and fails."""
    for drift in drifts(store):
        keep_copy(drift, store, copies(store, 1))
    ours = store.root / path
    ours.unlink()
    if path in store.links(1):
        ours.symlink_to(store.links(1)[path])
    else:
        put_copy(store.directory(1) / path, ours)
    assert drifts(store) == []
    assert put_back(store, 1)


@pytest.mark.parametrize("target", ["/dev/null", "/etc/elsewhere"], ids=["masked", "led elsewhere"])
@pytest.mark.parametrize("path", [UNIT, SITE])
def test_a_link_of_the_operator_is_put_back_as_a_link(store: Store, path: str, target: str) -> None:
    put_link(store.root / path, target)
    kept_and_put_back(store, path)
    assert str((store.root / path).readlink()) == target


def test_another_mode_and_time_are_put_back(store: Store) -> None:
    unit = store.root / UNIT
    unit.chmod(0o600)
    os.utime(unit, (1, 1))
    kept_and_put_back(store, UNIT)
    assert (unit.stat().st_mode & 0o777, unit.stat().st_mtime) == (0o600, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("path", [UNIT, SITE])
def test_another_owner_is_put_back(store: Store, path: str) -> None:
    theirs = store.root / path
    content = theirs.read_bytes() + b"# mine\n"
    theirs.unlink()
    theirs.write_bytes(content)
    os.chown(theirs, 1, 2)
    kept_and_put_back(store, path)
    assert (theirs.stat().st_uid, theirs.stat().st_gid, theirs.read_bytes()) == (1, 2, content)


def test_what_a_service_could_not_start_from_again_is_told_and_put_right(store: Store) -> None:
    code = store.home / "runtimes/r1/service"
    code.mkdir(parents=True)
    (code / "app.py").write_text("")
    (store.home / "runtimes/r1/venv").symlink_to("/nowhere")
    (code / "__pycache__").mkdir(0o700)
    assert drifts(store) == []
    for path, mode in (
        (store.home, 0o700),
        (store.directory(1) / "etc", 0o750),
        (code, 0o757),
        (code / "app.py", 0o640),
    ):
        path.chmod(mode)
        (drift,) = drifts(store)
        assert drift.path == str(path.relative_to(store.root))
        assert "is not root's alone to write and everybody's to read; the" in drift.what
        store.restore(1)
        assert drifts(store) == []
    assert (code / "app.py").stat().st_mode & 0o777 == 0o644
    code.chmod(0o700)
    (code / "app.py").chmod(0o600)
    assert "(and 1 more)" in drifts(store)[0].what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_code_that_was_given_away_is_told_and_taken_back(store: Store) -> None:
    code = store.home / "runtimes/r1/service.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    os.chown(code, 65534, 65534)
    assert [drift.path for drift in drifts(store)] == [str(code.relative_to(store.root))]
    store.restore(1)
    assert (code.stat().st_uid, code.stat().st_gid) == (0, 0)


def test_of_what_was_overwritten_edits_are_kept_under_a_name_of_their_own(store: Store) -> None:
    (store.root / UNIT).chmod(0o600)
    (store.root / SITE).write_text("mine")
    for drift in drifts(store):
        keep_copy(drift, store, copies(store, 1))
    set_aside(store, 1)
    (kept,) = copies(store, 1).parent.iterdir()
    assert kept.name.startswith("1-")
    assert [path for path in kept.rglob("*") if path.is_file()] == [kept / SITE]


def test_of_another_mode_alone_nothing_is_kept(store: Store) -> None:
    (store.root / UNIT).chmod(0o600)
    keep_copy(drifts(store)[0], store, copies(store, 1))
    assert copies(store, 1).exists()
    set_aside(store, 1)
    assert list(copies(store, 1).parent.iterdir()) == []


def test_where_a_link_of_the_operator_led_is_kept_though_it_leads_nowhere(store: Store) -> None:
    (path,) = (path for path in store.wants if path.endswith(".service"))
    put_link(store.root / path, "/etc/elsewhere")
    for drift in drifts(store):
        keep_copy(drift, store, copies(store, 1))
    set_aside(store, 1)
    (kept,) = copies(store, 1).parent.iterdir()
    assert str((kept / path).readlink()) == "/etc/elsewhere"
