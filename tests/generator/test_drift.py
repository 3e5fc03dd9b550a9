"""What on a host is not as it was installed."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from generator.host.drift import copies, drifts, keep_copy, put_back
from generator.host.store import Generation, Store
from generator.load import load_text
from generator.readers.nginx import DEFAULT_SITE
from generator.render import render
from generator.write import put_link

NAME = "queue-websocket"
SITE = f"etc/nginx/sites-available/{NAME}"
ENV = f"etc/{NAME}/.env"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Generation 1, installed below a directory; its links lead there too."""
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    store = Store(NAME, tmp_path)
    bundle = render(load_text("domain: a.org\n", "deploy.yaml").deploy)
    store.add(bundle, Generation(1, "r1", 0.0, "uvicorn", "systemd", "127.0.0.1:8765", "a.org", "off", True))
    store.make_current(1)
    links = store.links(1)
    monkeypatch.setattr(
        store, "links", lambda _: {p: link.replace("/opt", f"{tmp_path}/opt", 1) for p, link in links.items()}
    )
    for path, link in store.links(1).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(link)
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
