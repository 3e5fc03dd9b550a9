"""What is installed, on disk: whole generations, one of them current, and a switch that may be pending."""

import errno
import os
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.host import recovery
from generator.host.store import Generation, Pending, Store
from generator.rendering.bundle import Bundle
from generator.rendering.render import render
from generator.report import CommandError

NAME = "queue-websocket"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    return Store(NAME, tmp_path)


def bundle(given: str = "") -> Bundle:
    return render(load_text(f"domain: a.org\n{given}\n", "deploy.yaml").deploy)


def generation(number: int, healthy: bool = True, manager: str = "systemd", runtime: str = "r1") -> Generation:
    where = ("127.0.0.1:8765", "a.org", "off")
    return Generation(number, runtime, 0.0, "uvicorn", manager, *where, healthy, has_files=True)


def add(store: Store, number: int, healthy: bool = True, runtime: str = "r1") -> None:
    (store.home / "runtimes" / runtime).mkdir(parents=True, exist_ok=True)
    store.add(bundle(), generation(number, healthy, runtime=runtime))


def test_a_host_without_it_has_nothing(store: Store) -> None:
    assert store.current is None
    assert store.numbers() == []
    assert store.pending is None
    assert store.links(None) == {}


def test_a_generation_is_read_as_it_was_written(store: Store) -> None:
    add(store, 1)
    assert store.numbers() == [1]
    assert store.is_whole(1)
    assert store.generation(1) == generation(1)
    assert (store.directory(1) / "venv").readlink() == Path("../../runtimes/r1/venv")


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", None], ids=["empty", "half", "a_list", "without_keys", "gone"])
@pytest.mark.parametrize("file", ["generation.json", "manifest.json"])
def test_a_damaged_generation_is_told_and_stands_in_the_way_of_no_other(
    store: Store, file: str, damage: str | None
) -> None:
    for number in (1, 2):
        add(store, number)
    store.make_current(2)
    path = store.directory(1) / file
    path.unlink() if damage is None else path.write_text(damage)
    assert not store.is_whole(1)
    with pytest.raises(CommandError, match=rf"{file} is damaged \(.+\); restore it; or remove .*/1/generation.json"):
        store.links(1)
    store.sweep()
    assert store.numbers() == [2]


@pytest.mark.parametrize("file", ["generation.json", "manifest.json"])
def test_a_generation_that_is_damaged_while_it_is_current_is_not_taken_for_none(store: Store, file: str) -> None:
    add(store, 1)
    store.make_current(1)
    (store.directory(1) / file).write_text("")
    assert store.current == 1
    with pytest.raises(CommandError, match="is damaged"):
        store.links(store.current)
    store.sweep()
    assert store.numbers() == [1]


def test_a_damaged_note_of_a_switch_is_told(store: Store) -> None:
    store.home.mkdir(parents=True)
    (store.home / "pending.json").write_text("")
    with pytest.raises(CommandError, match=r"pending.json is damaged \(.+\); remove it, then `.*install`"):
        _ = store.pending


def test_what_is_as_it_was_in_the_current_generation_is_as_old(store: Store) -> None:
    add(store, 1)
    store.make_current(1)
    unit, env = f"etc/systemd/system/{NAME}.service", f"etc/{NAME}/.env"
    for path in (unit, env):
        os.utime(store.directory(1) / path, (1000, 1000))
    store.add(bundle("welcome: Hello"), generation(2))
    assert (store.directory(2) / unit).stat().st_mtime == 1000
    assert (store.directory(2) / env).stat().st_mtime > 1000


def test_the_switch_is_one_link(store: Store) -> None:
    add(store, 1)
    add(store, 2)
    store.make_current(1)
    assert store.current == 1
    store.make_current(2)
    assert store.current == 2
    assert (store.home / "current").readlink() == Path("generations/2")
    store.make_current(None)
    assert store.current is None


def test_every_installed_path_leads_through_the_switch(store: Store) -> None:
    add(store, 1)
    links = store.links(1)
    assert links[f"etc/{NAME}/.env"] == f"/opt/{NAME}/current/etc/{NAME}/.env"
    assert links[f"etc/nginx/sites-enabled/{NAME}"] == f"../sites-available/{NAME}"
    assert f"etc/supervisor/conf.d/{NAME}.conf" not in links


def test_what_systemd_reads_before_it_mounts_opt_is_no_link(store: Store) -> None:
    add(store, 1)
    units = {f"etc/systemd/system/{NAME}.{kind}" for kind in ("service", "socket", "nginx.socket")}
    files = store.files(1)
    assert set(files) == units | {
        f"etc/systemd/system/nginx.service.d/{NAME}.conf",
        f"etc/sysusers.d/{NAME}.conf",
        f"etc/tmpfiles.d/{NAME}.conf",
    }
    assert not files.keys() & store.links(1).keys()
    unit = f"etc/systemd/system/{NAME}.service"
    assert files[unit] == sha256((store.directory(1) / unit).read_bytes()).hexdigest()


def test_what_an_older_release_has_installed_are_links_all_of_it(store: Store) -> None:
    add(store, 1)
    store.record(replace(generation(1), has_files=False))
    unit = f"etc/systemd/system/{NAME}.service"
    assert store.files(1) == {}
    assert store.links(1)[unit] == f"/opt/{NAME}/current/{unit}"


def test_units_are_enabled_by_links_and_a_program_of_supervisor_is_not(store: Store) -> None:
    wants = f"etc/systemd/system/sockets.target.wants/{NAME}.socket"
    add(store, 1)
    assert store.links(1)[wants] == f"/etc/systemd/system/{NAME}.socket"
    store.add(bundle("manager: supervisor"), generation(2, manager="supervisor"))
    assert wants not in store.links(2)


def install(store: Store) -> set[str]:
    """Put on the host what a generation has there."""
    add(store, 1)
    store.make_current(1)
    for path, text in store.links(1).items():
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).symlink_to(text)
    for path in store.files(1):
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        (store.root / path).write_bytes((store.directory(1) / path).read_bytes())
    return {*store.links(1), *store.files(1)}


def test_what_is_on_the_host_is_known_also_when_the_generations_are_gone(store: Store) -> None:
    installed = install(store)
    assert set(store.traces()) == installed
    assert store.ruins() == ""
    shutil.rmtree(store.home)
    assert set(store.traces()) == installed
    assert "mount /opt, if it is a file system of its own; else `" in store.ruins()
    assert "uninstall` removes what is left" in store.ruins()
    for path in installed:
        (store.root / path).unlink()
    assert store.ruins() == ""


def test_what_others_have_put_in_its_place_is_no_trace(store: Store) -> None:
    installed = install(store)
    shutil.rmtree(store.home)
    theirs = {store.units[0]: "etc/systemd/system/", NAME: "etc/nginx/sites-available/"}
    for name, directory in theirs.items():
        (store.root / directory / name).unlink()
        (store.root / directory / name).write_text("# another's\n")
    assert set(store.traces()) == installed - {directory + name for name, directory in theirs.items()}


def test_while_a_switch_is_pending_nothing_is_called_a_ruin(store: Store) -> None:
    install(store)
    store.begin(Pending(1, None))
    store.make_current(None)
    assert store.ruins() == ""


def test_a_pending_switch_is_remembered_until_its_end(store: Store) -> None:
    add(store, 1)
    store.begin(Pending(None, 1))
    assert Store(NAME, store.root).pending == Pending(None, 1)
    store.end()
    assert store.pending is None


@pytest.mark.parametrize(("proves", "healthy"), [(True, False), (False, True)])
def test_what_an_undone_switch_has_recorded_as_healthy_is_so_only_if_it_was_before(
    store: Store, proves: bool, healthy: bool
) -> None:
    add(store, 1)
    add(store, 2)
    store.begin(Pending(1, 2, proves=proves))
    store.disprove()
    assert store.generation(2).healthy == healthy
    assert store.generation(1).healthy


def test_a_switch_that_cannot_begin_is_not_pending(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, 1)
    noted = Pending(None, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "put_text", full)
        with pytest.raises(OSError, match="No space left"):
            store.begin(noted)
    assert store.pending is None
    store.begin(noted)
    monkeypatch.setattr(recovery, "put_text", full)
    with pytest.raises(OSError, match="No space left"):  # an uninstallation, which must know of it the next time
        store.begin(noted)
    assert store.pending == noted


def test_while_a_switch_is_pending_the_next_boot_makes_the_units_fit(store: Store) -> None:
    add(store, 1)
    store.begin(Pending(None, 1))
    unit = store.root / f"etc/systemd/system/{NAME}.recovery.service"
    wants = unit.parent / "multi-user.target.wants" / unit.name
    assert f"ExecStart=/bin/sh /opt/{NAME}/recover {NAME}\n" in unit.read_text()
    assert wants.readlink() == Path("/", unit.relative_to(store.root))
    assert (store.home / "recover").exists()
    assert store.strangers() == []
    store.end()
    assert not list(store.root.rglob("*recover*"))


def test_what_a_boot_would_run_goes_with_the_switch_that_was_killed_at_its_end(store: Store) -> None:
    add(store, 1)
    store.begin(Pending(None, 1))
    (store.home / "pending.json").unlink()
    store.sweep()
    assert not list(store.root.rglob("*recover*"))


def test_pruning_keeps_the_newest_and_the_current_one_and_their_runtimes(store: Store) -> None:
    for number in range(1, 8):
        add(store, number, runtime=f"r{number}")
    store.make_current(1)
    assert store.prune(keep=3) == [2, 3, 4]
    assert store.numbers() == [1, 5, 6, 7]
    assert sorted(path.name for path in (store.home / "runtimes").iterdir()) == ["r1", "r5", "r6", "r7"]


def test_what_killed_runs_left_is_swept_away(store: Store) -> None:
    add(store, 1)
    store.make_current(1)
    add(store, 2, healthy=False)
    (store.directory(3) / "etc").mkdir(parents=True)
    (store.home / ".pending.json.new").touch()
    (store.home / ".current.new").symlink_to("generations/2")
    store.sweep()
    assert store.numbers() == [1]
    assert not list(store.home.glob(".*"))


def test_while_a_switch_is_pending_its_generations_stay(store: Store) -> None:
    add(store, 1, healthy=False)
    store.begin(Pending(None, 1))
    store.sweep()
    assert store.numbers() == [1]


def test_the_current_generation_stays_whatever_its_health(store: Store) -> None:
    add(store, 1, healthy=False)
    store.make_current(1)
    store.sweep()
    assert store.numbers() == [1]


def test_edits_in_a_generation_can_be_taken_back(store: Store) -> None:
    add(store, 1)
    edited, removed = store.directory(1) / f"etc/{NAME}/.env", store.directory(1) / f"etc/nginx/sites-available/{NAME}"
    before = edited.read_text(), removed.read_text()
    edited.write_text("edited")
    removed.unlink()
    store.restore(1)
    assert (edited.read_text(), removed.read_text()) == before
    assert edited.stat().st_mode & 0o777 == 0o640


def test_only_root_reads_the_copies_of_what_was_written(store: Store) -> None:
    add(store, 1)
    assert (store.directory(1) / "pristine").stat().st_mode & 0o777 == 0o700


def test_a_store_vanishes_as_a_whole(store: Store) -> None:
    add(store, 1)
    store.vanish()
    assert list((store.root / "opt").iterdir()) == []


def test_what_is_not_its_own_is_told(store: Store) -> None:
    assert store.strangers() == []
    add(store, 1)
    store.make_current(1)
    assert store.strangers() == []
    (store.home / "README").touch()
    assert store.strangers() == ["README"]


def test_what_is_not_its_own_outlives_it(store: Store) -> None:
    add(store, 1)
    store.make_current(1)
    (store.home / "README").touch()
    store.vanish()
    assert [path.name for path in store.home.iterdir()] == ["README"]


def test_a_directory_of_others_is_no_store(store: Store) -> None:
    assert not store.is_ours
    for path in ("releases/20260101", "generations/photos", "runtimes/python3"):
        (store.home / path).mkdir(parents=True)
    (store.home / "current").symlink_to("releases/20260101")
    assert not store.is_ours
    assert store.current is None


@pytest.mark.parametrize("holds", ["generation", "runtime"])
def test_a_store_is_known_by_what_it_holds(store: Store, holds: str) -> None:
    if holds == "generation":
        add(store, 1)
        (store.home / "README").touch()
    else:
        (store.home / "runtimes/0123456789ab").mkdir(parents=True)
    assert store.is_ours


def test_a_record_is_readable_by_people(store: Store) -> None:
    add(store, 1)
    text = (store.directory(1) / "generation.json").read_text()
    assert msgspec.json.decode(text)["server"] == "uvicorn"
    assert text.count("\n") > 5
