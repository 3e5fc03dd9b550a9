"""What the service reads when it starts: what an installation puts right of it, and what only the operator can."""

import os
import pwd

import pytest
from msgspec.structs import replace

from generator.host import facts, mailbox_files, next_start
from generator.host.certificates import Place
from generator.host.next_start import at_boot, read_by_the_service
from generator.host.store import Generation, Store
from service.settings import Engine
from tests.generator.test_store import NAME, add, bundle, generation, store

__all__ = ["store"]

THEIRS = f"/etc/{NAME}/shared.json"


def read(store: Store, changed: Generation) -> tuple[list[str], list[str]]:
    """What is ours, and what is the operator's."""
    add(store, 1)
    store.record(changed)
    return read_by_the_service(store, 1, ours=True), read_by_the_service(store, 1, ours=False)


def test_keys_are_ours_where_we_have_made_them(store: Store) -> None:
    ours = f"/etc/{NAME}/keys.json"
    assert read(store, replace(generation(1), auth="token", keys=ours)) == ([ours], [])
    assert read(store, replace(generation(1), auth="none", keys=ours)) == ([], [])


def test_what_the_operator_has_put_beside_our_files_is_not_ours(store: Store) -> None:
    engine = Engine(
        url="rediss://10.0.0.1:6379", ca=f"/etc/{NAME}/ca.pem", password_file=f"/etc/{NAME}/engine.password"
    )
    changed = replace(generation(1), auth="token", keys=THEIRS, joined=engine)
    assert read(store, changed) == ([f"/etc/{NAME}/engine.password"], [f"/etc/{NAME}/ca.pem", THEIRS])


@pytest.mark.parametrize(
    ("changed", "path"),
    [({"server": "gunicorn"}, f"/etc/{NAME}/gunicorn.conf.py"), ({"manager": "supervisor"}, f"/etc/{NAME}/.env")],
)
def test_systemd_reads_the_environment_itself(store: Store, changed: dict[str, str], path: str) -> None:
    assert read(store, generation(1)) == ([], [])
    assert read(store, replace(generation(1), **changed)) == ([path], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="certbot's directories are root's")
def test_a_certificate_that_is_gone_is_fixed_by_an_installation(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "account_of", lambda _: facts.Account(997, "", "/", "/usr/sbin/nologin"))
    monkeypatch.setattr(next_start, "damage", lambda *_: [])
    add(store, 1)
    store.record(replace(generation(1), tls="letsencrypt"))
    store.make_current(1)
    assert next_start.lost(store) == [f"/etc/{NAME}/tls leads to no certificate"]
    Place(NAME, store.root).prepare(("a.org",))
    assert next_start.lost(store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_mailboxes_that_root_has_put_there_are_given_to_the_service(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "user", lambda *_: "nobody")
    monkeypatch.setattr(next_start, "damage", lambda *_: [])
    store.add(bundle("auth: token\nmailbox: {keep: disk}"), generation(1))
    store.make_current(1)
    assert next_start.lost(store) == []
    file = store.root / f"var/lib/{NAME}/mailbox/mail.db"
    file.parent.mkdir(parents=True)
    file.touch()
    link = file.parent / "mark"
    link.symlink_to("/etc/hostname")
    (file.parent / "backup").touch()
    what = "does not belong to the user nobody, and without that the service does not start"
    assert next_start.lost(store) == [f"{file.parent} (and 1 more) {what}"]
    mailbox_files.hand_over(store, 1)
    assert next_start.lost(store) == []
    # No installation puts right what others have put there.
    [fault] = next_start.out_of_reach(store, 1)
    assert str(fault).startswith(f"{link} is, or is behind, a link to what does not belong to the user nobody, and")
    link.unlink()
    link.hardlink_to(store.pristine(1, f"etc/{NAME}/.env"))
    assert len(list(next_start.out_of_reach(store, 1))) == 1
    link.unlink()
    link.touch()
    os.chown(link, pwd.getpwnam("nobody").pw_uid, -1)
    elsewhere = file.parent.rename(store.root / "disk")
    file.parent.symlink_to(elsewhere)  # which the service follows
    assert [*next_start.lost(store), *next_start.out_of_reach(store, 1)] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_mailboxes_are_looked_for_where_the_service_has_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "user", lambda *_: "nobody")
    directory = f"var/lib/{NAME}/elsewhere"
    store.add(bundle(f"auth: token\nmailbox: {{keep: disk, directory: /{directory}}}"), generation(1))
    for each in (directory, f"var/lib/{NAME}/mailbox"):
        (store.root / each).mkdir(parents=True)
    assert mailbox_files.strange(store, 1) == [store.root / directory]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_service_does_not_get_the_mailboxes_of_another_by_a_link_of_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "user", lambda *_: "nobody")
    store.add(bundle("auth: token\nmailbox: {keep: disk}"), generation(1))
    theirs = store.root / "var/lib/other/mailbox/mail.db"
    link = store.root / f"var/lib/{NAME}/mailbox"
    for path in (theirs, link):
        path.parent.mkdir(parents=True)
    theirs.touch()
    link.symlink_to(theirs.parent)
    os.chown(link, pwd.getpwnam("nobody").pw_uid, -1, follow_symlinks=False)
    mailbox_files.hand_over(store, 1)
    assert (theirs.stat().st_uid, theirs.parent.stat().st_uid) == (0, 0)
    assert len(list(next_start.out_of_reach(store, 1))) == 2
    os.chown(link, 0, 0, follow_symlinks=False)  # the operator's, to another disk
    mailbox_files.hand_over(store, 1)
    assert theirs.stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_what_renews_certificates_must_be_started_at_boot_where_there_is_one() -> None:
    assert at_boot("systemd", "letsencrypt") == ("nginx.service", "certbot.timer")
    assert at_boot("systemd", "files") == ("nginx.service",)
