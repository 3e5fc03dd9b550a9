"""What on a host is not as it was installed."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.host.drift import copies, drifts, keep_copy, put_back
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
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    store = Store(NAME, tmp_path)
    bundle = render(load_text("domain: a.org\n", "deploy.yaml").deploy)
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
