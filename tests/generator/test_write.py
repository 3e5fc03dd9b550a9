"""Writing a bundle: whole files, only what has changed, and nothing of anybody else's."""

import json
import os
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.rendering.bundle import MANIFEST, Bundle
from generator.rendering.render import render
from generator.rendering.write import NotABundleError, Written, put_link, put_text, write

# What CPython's audit events call the steps that change a file system, and those that look at it.
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.listdir", "os.scandir"}
KILLED = 9


def rendered(given: str = "") -> Bundle:
    return render(load_text(f"domain: a.org\n{given}\n", "deploy.yaml").deploy)


def contents(directory: Path) -> dict[str, tuple[str, str]]:
    """Every file by path: its mode and text, or the target of a link."""
    return {
        str(path.relative_to(directory)): ("link", str(path.readlink()))
        if path.is_symlink()
        else (f"{stat.S_IMODE(path.stat().st_mode):o}", path.read_text())
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def times(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


def in_a_child(act: Callable[[], object]) -> int:
    """The exit code of a process that does it: 0, 1 if it raises, or what it exits with itself."""
    if (child := os.fork()) == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_each_step(act: Callable[[int], object]) -> None:
    """Have this process, a child, call `act` with a growing number right before each step of what it does."""
    steps = count()
    sys.addaudithook(lambda event, _: event in STEPS and act(next(steps)) and None)


def put_pipe(file: Path) -> None:
    """Whoever read it would wait for ever."""
    file.unlink()
    os.mkfifo(file)
    file.chmod(0o640)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "build" / "bundle"


def test_a_bundle_is_written_with_its_manifest_modes_and_links(directory: Path) -> None:
    bundle = rendered()
    write(bundle, directory)
    written = contents(directory)
    assert written.pop(MANIFEST) == ("644", bundle.manifest())
    assert written == {
        file.path: ("link", file.link) if file.link else (f"{file.mode:o}", file.text) for file in bundle.files
    }


def test_two_renders_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(rendered("env: {B: 1, A: 2}\n"), tmp_path / name)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_what_was_done_is_told_by_path(directory: Path) -> None:
    bundle = rendered()
    everything = [MANIFEST, *(file.path for file in bundle.files)]
    assert write(bundle, directory) == Written(everything, [], 0)
    assert write(bundle, directory) == Written([], [], len(everything))


def test_a_second_run_touches_nothing(directory: Path) -> None:
    write(rendered(), directory)
    before = times(directory)
    write(rendered(), directory)
    assert times(directory) == before


def test_only_files_that_changed_are_written(directory: Path) -> None:
    write(rendered(), directory)
    before = times(directory)
    changed = write(rendered("welcome: Hello, {uuid}\n"), directory)
    assert changed.written == [MANIFEST, "etc/queue-websocket/.env"]
    untouched = {path for path, time in times(directory).items() if before[path] == time}
    assert len(untouched) == len(before) - len({".env", MANIFEST, "etc/queue-websocket", "bundle"})


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("edited"),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), file.symlink_to("/etc/hostname")),
        put_pipe,
    ],
)
def test_a_file_that_was_edited_is_written_again(harm: Callable[[Path], object], directory: Path) -> None:
    write(rendered(), directory)
    before = contents(directory)
    harm(directory / "etc/queue-websocket/.env")
    assert write(rendered(), directory).written == ["etc/queue-websocket/.env"]
    assert contents(directory) == before


@pytest.mark.parametrize(
    "harm", [lambda link: link.symlink_to("/etc/hostname"), lambda link: link.write_text("a file")]
)
def test_a_link_that_was_bent_is_set_right(harm: Callable[[Path], object], directory: Path) -> None:
    write(rendered(), directory)
    before = contents(directory)
    link = directory / "etc/nginx/sites-enabled/queue-websocket"
    link.unlink()
    harm(link)
    assert write(rendered(), directory).written == ["etc/nginx/sites-enabled/queue-websocket"]
    assert contents(directory) == before


def test_what_a_link_points_to_is_never_written(directory: Path, tmp_path: Path) -> None:
    write(rendered(), directory)
    outside = tmp_path / "outside"
    outside.write_text("somebody else's")
    env = directory / "etc/queue-websocket/.env"
    env.unlink()
    env.symlink_to(outside)
    write(rendered(), directory)
    assert (outside.read_text(), env.is_symlink()) == ("somebody else's", False)


def test_files_of_an_earlier_render_are_removed_and_their_empty_directories(directory: Path) -> None:
    write(rendered("name: first"), directory)
    told = write(rendered("name: second"), directory)
    assert told.removed == [file.path for file in rendered("name: first").files if "first" in file.path]
    assert [path for path in directory.rglob("*") if "first" in path.name] == []


def test_a_directory_keeps_what_somebody_else_put_beside_the_bundle(directory: Path) -> None:
    write(rendered("name: first"), directory)
    (directory / "etc/first/notes").write_text("mine")
    write(rendered("name: second"), directory)
    assert (directory / "etc/first/notes").read_text() == "mine"


@pytest.mark.parametrize(
    "manifest", [None, "", "{", "[]", "null", "{}", '{"files": 5}', '{"files": [5]}', '{"files": [{}]}', "\udcff"]
)
def test_a_directory_that_is_no_bundle_is_left_alone(manifest: str | None, directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (directory / MANIFEST).write_bytes(manifest.encode(errors="surrogateescape"))
    before = contents_as_bytes(directory)
    with pytest.raises(NotABundleError, match=r"bundle has files but no manifest\.json of ours; name an empty"):
        write(rendered(), directory)
    assert contents_as_bytes(directory) == before


def contents_as_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_manifest_removes_nothing_outside_its_directory(directory: Path, tmp_path: Path) -> None:
    write(rendered(), directory)
    outside = [tmp_path / "build" / "a", tmp_path / "b"]
    for file in outside:
        file.write_text("mine")
    listed = [{"path": "../a"}, {"path": "etc/../../a"}, {"path": str(tmp_path / "b")}]
    (directory / MANIFEST).write_text(json.dumps({"files": listed}))
    assert write(rendered(), directory).removed == []
    assert [file.read_text() for file in outside] == ["mine", "mine"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777 & ~0o700])
def test_no_umask_changes_the_mode_of_a_file(umask: int, directory: Path) -> None:
    def act() -> None:
        os.umask(umask)
        write(rendered(), directory)

    assert in_a_child(act) == 0
    modes = {path: mode for path, (mode, _) in contents(directory).items()}
    assert modes["etc/queue-websocket/.env"] == "640"
    assert modes["etc/letsencrypt/renewal-hooks/deploy/queue-websocket"] == "755"
    assert set(modes.values()) == {"640", "644", "755", "link"}


def test_nobody_else_can_read_env_for_even_a_moment(directory: Path) -> None:
    paths = [directory / "etc/queue-websocket" / name for name in (".env", "..env.new")]

    def stop_if_readable(_: int) -> None:
        if any(path.exists() and path.stat().st_mode & 0o007 for path in paths):
            os._exit(7)

    def act() -> None:
        os.umask(0)
        directory.mkdir(parents=True)
        at_each_step(stop_if_readable)
        write(rendered(), directory)

    assert in_a_child(act) == 0


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_step_leaves_whole_files_and_the_next_completes_it(tmp_path: Path) -> None:
    old, new = few(rendered("name: first")), few(rendered("name: second\nwelcome: Hello, {uuid}\n"))
    write(old, tmp_path / "old")
    write(new, tmp_path / "new")
    known = contents(tmp_path / "old").items() | contents(tmp_path / "new").items()
    killed: list[int] = []
    while not killed or killed[-1] == KILLED:
        directory = tmp_path / f"killed-{len(killed)}"
        write(old, directory)
        killed.append(killed_at(len(killed), new, directory))
        assert {item for item in contents(directory).items() if not item[0].endswith(".new")} <= known
        write(new, directory)
        assert tree(directory) == tree(tmp_path / "new")
    assert killed[-1] == 0
    assert len(killed) > 30


def test_a_first_run_that_is_killed_at_any_step_is_completed_by_the_next(tmp_path: Path) -> None:
    bundle = few(rendered())
    write(bundle, tmp_path / "new")
    killed: list[int] = []
    while not killed or killed[-1] == KILLED:
        directory = tmp_path / f"killed-{len(killed)}"
        killed.append(killed_at(len(killed), bundle, directory))
        write(bundle, directory)
        assert tree(directory) == tree(tmp_path / "new")
    assert killed[-1] == 0
    assert len(killed) > 15


def few(bundle: Bundle) -> Bundle:
    """Enough for every kind of step: a file of restricted mode, one of the usual mode, and a link."""
    return replace(
        bundle, files=tuple(file for file in bundle.files if file.link or ".env" in file.path or "sysu" in file.path)
    )


def killed_at(step: int, bundle: Bundle, directory: Path) -> int:
    def act() -> None:
        at_each_step(lambda now: now == step and os._exit(KILLED))
        write(bundle, directory)

    return in_a_child(act)


def tree(directory: Path) -> dict[str, object]:
    """Empty directories too."""
    return {
        str(path.relative_to(directory)): contents(path) for path in [directory, *directory.rglob("*")] if path.is_dir()
    }


def test_what_a_killed_run_was_writing_does_not_stay_when_nothing_is_to_be_written(directory: Path) -> None:
    write(rendered(), directory)
    leftover = directory / "etc/queue-websocket/..env.new"
    leftover.write_text("half a sec")
    assert write(rendered(), directory).written == []
    assert not leftover.exists()


def test_a_single_file_and_a_single_link_get_past_what_a_killed_run_left(tmp_path: Path) -> None:
    for name in ("file", "link"):
        (tmp_path / f".{name}.new").write_text("half a sec")
    put_text(tmp_path / "file", "text", 0o600)
    put_link(tmp_path / "link", "file")
    assert contents(tmp_path) == {"file": ("600", "text"), "link": ("link", "file")}


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut could leave its name without its text."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, [*tmp_path.glob("file")])))
    put_text(tmp_path / "file", "four")
    assert synced == [(4, [])]


def test_a_disk_that_is_full_names_the_file_and_leaves_no_half_of_it(directory: Path) -> None:
    write(rendered(), directory)
    before = contents(directory)

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        with pytest.raises(OSError, match=f"File too large: '{directory}/{MANIFEST}'"):
            write(rendered("port: 9000"), directory)

    assert in_a_child(act) == 0
    assert contents(directory) == before


def test_a_full_disk_between_two_files_is_made_good_by_the_next_run(directory: Path) -> None:
    small, bundle = 5000, rendered(f"env: {{LONG: {'x' * 6000}}}")

    def act() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))
        write(bundle, directory)

    assert in_a_child(act) == 1
    assert 1 < len(contents(directory)) < len(bundle.files)
    assert [path for path in contents(directory) if path.endswith((".env", ".new"))] == []
    write(bundle, directory)
    assert len(contents(directory)) == len(bundle.files) + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_directory_that_may_not_be_written_is_told_by_name(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "bundle"
        write(rendered(), directory)
        Path(name).chmod(0o755)
        (directory / "etc/queue-websocket/.env").chmod(0o644)

        def act() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with pytest.raises(PermissionError, match=f"Permission denied: '{directory}/{MANIFEST}'"):
                write(rendered("port: 9000"), directory)
            with pytest.raises(PermissionError, match=f"Permission denied: '{name}/new'"):
                write(rendered(), Path(name) / "new")

        before = contents(directory)
        assert in_a_child(act) == 0
        assert contents(directory) == before


def test_a_file_in_the_way_of_the_directory_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=str(directory)):
            write(rendered(), directory)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_in_the_way_of_a_file_is_left_and_told_by_name(directory: Path) -> None:
    (directory / "etc/queue-websocket").mkdir(parents=True)
    (directory / MANIFEST).write_text('{"files": []}')
    (directory / "etc/queue-websocket/.env").mkdir()
    with pytest.raises(IsADirectoryError, match=r"etc/queue-websocket/\.env'"):
        write(rendered(), directory)


def test_two_writers_at_once_take_turns(directory: Path) -> None:
    """Each finds the other's bundle whole, or whole its own; a mixture would be neither."""
    bundles = [rendered("name: first"), rendered("name: second\nport: 9000")]
    write(bundles[0], directory)

    def act(bundle: Bundle, out: int) -> None:
        os.write(out, b"".join(b"%d." % len(write(bundle, directory).written) for _ in range(25)))

    children = []
    for bundle in bundles:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                act(bundle, writing)
            except BaseException:
                os._exit(1)
            os._exit(0)
        os.close(writing)
        children.append((child, reading))
    whole = set()
    for child, reading in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        whole |= set(os.read(reading, 1000).split(b".")[:-1])
        os.close(reading)
    differ = len(set(bundles[1].files) - set(bundles[0].files))
    assert whole <= {b"0", b"%d" % (differ + 1)}
    assert tree(directory) in [_tree_of(bundle, directory.parent) for bundle in bundles]


def _tree_of(bundle: Bundle, parent: Path) -> dict[str, object]:
    write(bundle, parent / bundle.name)
    return tree(parent / bundle.name)


def test_a_bundle_with_one_file_less_removes_just_that(directory: Path) -> None:
    bundle = rendered()
    write(bundle, directory)
    fewer = replace(bundle, files=bundle.files[1:])
    assert write(fewer, directory) == Written([MANIFEST], [bundle.files[0].path], len(fewer.files))


def test_a_pipe_in_the_place_of_the_manifest_is_not_waited_for(directory: Path) -> None:
    directory.mkdir(parents=True)
    os.mkfifo(directory / MANIFEST)
    with pytest.raises(NotABundleError):
        write(rendered(), directory)


def test_a_link_that_leads_out_of_the_bundle_is_not_followed(directory: Path, tmp_path: Path) -> None:
    write(rendered(), directory)
    (tmp_path / "outside").mkdir()
    shutil.rmtree(directory / "etc/nginx")
    (directory / "etc/nginx").symlink_to(tmp_path / "outside")
    with pytest.raises(NotABundleError, match="is a link that leads out of the bundle"):
        write(rendered(), directory)
    assert list((tmp_path / "outside").rglob("*.conf")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices, or replace them")
def test_nothing_takes_the_place_of_a_device(tmp_path: Path) -> None:
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(OSError, match=r"Not a regular file: .*null"):
        put_text(null, "text")
    with pytest.raises(OSError, match=r"Not a regular file: .*null"):
        put_link(null, "elsewhere")
    assert null.is_char_device()
    assert list(tmp_path.iterdir()) == [null]
