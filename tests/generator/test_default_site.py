"""Debian's own default site makes way and comes back; another's stays where it is."""

import os
from pathlib import Path

import pytest

from generator.host import default_site
from generator.host.store import Store
from generator.readers.nginx import DEFAULT_SITE

DEBIANS = "/etc/nginx/sites-available/default"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(default_site, "is_as_packaged", lambda path, package: True)
    store = Store("chat", tmp_path)
    store.home.mkdir(parents=True)
    (tmp_path / DEFAULT_SITE).parent.mkdir(parents=True)
    (tmp_path / DEFAULT_SITE).symlink_to(DEBIANS)
    return store


def test_it_is_taken_away_and_brought_back(store: Store) -> None:
    default_site.take_away(store)
    assert not default_site.stands(store.root)
    assert store.strangers() == []
    default_site.bring_back(store)
    assert str((store.root / DEFAULT_SITE).readlink()) == DEBIANS
    assert os.listdir(store.home) == []


def test_a_site_that_was_put_there_meanwhile_stays(store: Store) -> None:
    default_site.take_away(store)
    (store.root / DEFAULT_SITE).write_text("mine")
    default_site.bring_back(store)
    assert (store.root / DEFAULT_SITE).read_text() == "mine"
    assert os.listdir(store.home) == []


def test_one_that_leads_elsewhere_is_another_s(store: Store) -> None:
    (store.root / DEFAULT_SITE).unlink()
    (store.root / DEFAULT_SITE).symlink_to("/etc/nginx/sites-available/mine")
    default_site.take_away(store)
    assert default_site.stands(store.root)
    assert not store.default_site.is_symlink()


def test_one_that_was_edited_is_another_s(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_site, "is_as_packaged", lambda path, package: False)
    assert not default_site.is_debians(store.root)


def test_where_there_is_none_nothing_is_taken(store: Store) -> None:
    (store.root / DEFAULT_SITE).unlink()
    default_site.take_away(store)
    assert not store.default_site.is_symlink()
