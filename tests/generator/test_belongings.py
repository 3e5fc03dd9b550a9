"""What a deployment made is removed; what stands beside it, whoever put it there, is not even touched."""

import os
from pathlib import Path

import pytest

from generator.config.load import load_text
from generator.config.schema import Deploy
from generator.host.belongings import (
    Belongings,
    claim,
    directories_of,
    foreign,
    leftovers,
    made_by,
    needed,
    record,
    recorded,
    remove,
    remove_users,
    settle,
)
from generator.host.certificates import Place
from generator.host.facts import Account
from generator.host.store import Generation, Store
from generator.rendering.render import render
from generator.report import CommandError, Report

NAME = "notify"
SERVICE = "daemon"  # a user that every Debian has
ALL = Belongings(directories_of(NAME), (SERVICE,))
OURS = Account(999, made_by(NAME), f"/var/lib/{NAME}", "/usr/sbin/nologin")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # the user of the deployment is not there
    return Store(NAME, tmp_path)


def deploy(given: str = "") -> Deploy:
    return load_text(f"name: {NAME}\ndomain: a.org\n{given}\n", "deploy.yaml").deploy


def add(store: Store, number: int, given: str = "") -> None:
    settings = deploy(given)
    generation = Generation(number, "r", 0.0, "uvicorn", settings.manager, "", "a.org", settings.tls, healthy=True)
    store.add(render(settings), generation)
    store.make_current(number)


def put(store: Store, path: str, owner: str = "root") -> Path:
    if os.geteuid():
        pytest.skip("only root can give files away")
    file = store.root / path.lstrip("/")
    for directory in reversed(file.parents):
        if not directory.exists():
            directory.mkdir()
            os.chown(directory, 1 if owner == SERVICE else 0, -1)
    file.write_text(path)
    os.chown(file, 1 if owner == SERVICE else 0, -1)
    return file


def everything(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*"))


def test_a_deployment_that_was_never_installed_has_nothing(store: Store) -> None:
    for path in directories_of(NAME):
        put(store, f"{path}/foreign")
    assert not recorded(store, NAME, lambda _: None)
    assert recorded(store, "root") == Belongings()


def test_a_first_installation_takes_no_directory_that_carries_the_name(store: Store) -> None:
    for path in directories_of(NAME):
        (store.root / path.lstrip("/")).mkdir(parents=True)
    assert foreign(store, deploy(), Belongings()) == list(directories_of(NAME))


def test_a_link_or_a_file_in_the_place_of_a_directory_is_foreign_as_well(store: Store) -> None:
    put(store, f"/run/{NAME}")
    (store.root / "etc").mkdir()
    (store.root / "etc" / NAME).symlink_to("/nowhere")
    assert foreign(store, deploy(), Belongings()) == [f"/etc/{NAME}", f"/run/{NAME}"]


@pytest.mark.parametrize("names", [["keys.json"], ["engine.password"], ["engine.password", "keys.json"]])
def test_secrets_of_another_host_may_be_there_before_the_first_installation(store: Store, names: list[str]) -> None:
    for name in names:
        put(store, f"/etc/{NAME}/{name}")
    assert foreign(store, deploy(), Belongings()) == []
    put(store, f"/etc/{NAME}/more")
    assert foreign(store, deploy(), Belongings()) == [f"/etc/{NAME}"]


def test_a_change_takes_only_what_it_needs_and_no_directory_of_others(store: Store) -> None:
    add(store, 1)
    mine = recorded(store, NAME)
    put(store, f"/var/log/{NAME}/foreign")
    assert foreign(store, deploy("port: 9000"), mine) == []
    assert foreign(store, deploy("manager: supervisor"), mine) == [f"/var/log/{NAME}"]


def test_what_is_claimed_is_read_again_and_grows_with_the_settings(store: Store) -> None:
    claim(store, deploy(), "no-such-user", Belongings())
    claim(store, deploy("manager: supervisor"), "no-such-user", recorded(store, ""))
    mine = recorded(store, "")
    assert mine.users == ("no-such-user",)
    assert set(mine.directories) == {*needed(deploy()), f"/var/log/{NAME}"}


def test_a_user_that_was_there_before_is_never_claimed(store: Store) -> None:
    claim(store, deploy(), SERVICE, Belongings())
    assert recorded(store, SERVICE).users == ()


def test_an_installation_that_made_nothing_leaves_no_record(store: Store) -> None:
    claim(store, deploy(), "no-such-user", Belongings())
    settle(store, "no-such-user")
    assert everything(store) in ([], ["var", "var/lib"])


def test_a_record_that_is_damaged_is_told_by_name(store: Store) -> None:
    record(store, ALL)
    file = store.root / f"var/lib/wsbundle.d/{NAME}.json"
    file.write_text("{")
    with pytest.raises(CommandError, match=f"{file} is damaged"):
        recorded(store, NAME)


def test_earlier_releases_kept_no_record_and_their_generations_say_what_was_made(store: Store) -> None:
    add(store, 1, "manager: supervisor")
    add(store, 2)
    mine = recorded(store, NAME, lambda user: OURS if user == NAME else None)
    assert set(mine.directories) == {*needed(deploy("manager: supervisor"))}
    assert mine.users == (NAME,)
    assert recorded(store, NAME, lambda _: Account(998, "somebody's", "/", "/bin/sh")).users == ()


def test_what_an_earlier_release_left_is_known_by_the_user_it_made(store: Store) -> None:
    put(store, f"/etc/{NAME}/keys.json")
    put(store, f"/var/lib/{NAME}/data", SERVICE)
    put(store, f"/var/log/{NAME}/foreign.log")
    ours = Account(1, made_by(NAME), "/", "/usr/sbin/nologin")
    mine = recorded(store, NAME, lambda _: ours)
    assert mine == Belongings((f"/etc/{NAME}", f"/var/lib/{NAME}"), (NAME,))
    put(store, f"/etc/{NAME}/interfaces")
    assert f"/etc/{NAME}" not in recorded(store, NAME, lambda _: ours).directories


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("purge", [False, True])
def test_what_the_service_made_goes_and_what_others_put_beside_it_stays(store: Store, purge: bool) -> None:
    transient = [
        put(store, f"/run/{NAME}/ws.sock", SERVICE),
        put(store, f"/run/{NAME}/bus/1", SERVICE),
        put(store, f"/var/lib/{NAME}-acme/.well-known/acme-challenge/token"),
    ]
    data = [
        put(store, f"/etc/{NAME}/keys.json"),
        put(store, f"/var/lib/{NAME}/box/data", SERVICE),
        put(store, f"/var/log/{NAME}/{NAME}.log"),
        put(store, f"/var/log/{NAME}/{NAME}.log.1.gz"),
    ]
    others = [put(store, f"{path}/foreign") for path in directories_of(NAME)]
    others += [put(store, f"/var/lib/{NAME}/box/foreign"), put(store, f"/var/log/{NAME}/other.log")]
    remove(store, ALL, [SERVICE], purge)
    assert not any(path.exists() for path in transient)
    assert {path.exists() for path in data} == {not purge}
    assert all(path.read_text() == f"/{path.relative_to(store.root)}" for path in others)
    assert f"/etc/{NAME} stays: foreign is not ours." in leftovers(store, ALL.directories) or not purge


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_directories_that_are_empty_then_go_as_well(store: Store) -> None:
    put(store, f"/etc/{NAME}/keys.json")
    put(store, f"/var/lib/{NAME}/box/data", SERVICE)
    put(store, f"/var/log/{NAME}/{NAME}.log")
    put(store, f"/var/lib/{NAME}-acme/.well-known/acme-challenge/token")
    (store.root / f"run/{NAME}").mkdir(parents=True)
    remove(store, ALL, [SERVICE], purge=True)
    assert not any(NAME in path for path in everything(store))


def test_a_directory_that_is_not_on_record_keeps_even_what_has_our_names(store: Store) -> None:
    files = [put(store, f"/etc/{NAME}/keys.json"), put(store, f"/var/log/{NAME}/{NAME}.log")]
    remove(store, Belongings((f"/var/lib/{NAME}",)), [SERVICE], purge=True)
    assert all(file.exists() for file in files)


def test_a_link_in_a_directory_of_the_service_is_not_followed(store: Store) -> None:
    outside = put(store, "/home/jo/file", SERVICE)
    put(store, f"/var/lib/{NAME}/data", SERVICE)
    link = store.root / f"var/lib/{NAME}/link"
    link.symlink_to(outside.parent)
    os.lchown(link, 1, -1)
    remove(store, ALL, [SERVICE], purge=True)
    assert outside.exists()
    assert not link.is_symlink()


def test_a_tls_directory_of_the_operators_own_is_not_ours(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    place.link.mkdir(parents=True)
    files = [place.link / "fullchain.pem", place.webroot / ".well-known/acme-challenge/token"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    place.remove()
    assert all(file.exists() for file in files)


def test_a_user_as_whom_another_deployment_runs_is_its_own_from_then_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.host.belongings._others_of", lambda *_: ["other"])
    other, report = Store("other", store.root), Report()
    record(other, Belongings(("/opt/other",)))
    assert remove_users(store, ALL, report) == []
    assert recorded(other, SERVICE) == Belongings(("/opt/other",), (SERVICE,))
