"""The files of an application, and what it needs of Python, as they are found by the real git and uv."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from pip._internal.req.req_file import preprocess

from generator.config.load import ConfigError, load
from generator.config.project import Project
from generator.config.sources import _logical_lines, project_of, with_project
from generator.packing.wheelhouse import locked
from tests.generator.front_door import wsbundle
from tests.programs import missing, needs

DEPLOY = "domain: a.org\nname: shop\napp: {callable: 'shop.asgi:application'}\n"
UV = Path(sys.executable).parent / "uv"
as_root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application that needs nothing, beside its deploy.yaml."""
    made = tmp_path / "project"
    put(made, "deploy.yaml", DEPLOY)
    put(made, "requirements.txt")
    put(made, "shop/asgi.py", "async def application(scope, receive, send): ...\n")
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    return made


def put(directory: Path, name: str, text: str = "") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def git(directory: Path, *words: str) -> None:
    if shutil.which("git") is None:
        pytest.skip(missing("git"))
    subprocess.run(["git", "-C", str(directory), *words], check=True, capture_output=True)


def found(directory: Path, *assignments: str) -> Project:
    project = with_project(load(str(directory / "deploy.yaml"), None, assignments))[0].project
    assert project is not None
    return project


def faults(directory: Path, *assignments: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        found(directory, *assignments)
    return [f"{fault.key}: {fault.fault}" for fault in refused.value.faults]


def warned(directory: Path) -> list[str]:
    return [str(warning.fault) for warning in with_project(load(str(directory / "deploy.yaml")))[1]]


# Which files


def test_the_notification_center_has_no_files(tmp_path: Path) -> None:
    put(tmp_path, "deploy.yaml", "domain: a.org\n")
    loaded = load(str(tmp_path / "deploy.yaml"))
    assert with_project(loaded) == (loaded, [])
    assert project_of(loaded) is None


@pytest.mark.parametrize("with_git", [True, False])
def test_all_files_are_installed_but_what_belongs_to_the_deployment(here: Path, with_git: bool) -> None:
    put(here, "deploy.prod.yaml", "workers: 2\n")
    put(here, "build/shop/etc/shop/.env", "secret")
    put(here, "build/shop-1.tar.gz", "secret")
    put(here, "build/other.txt")
    put(here, "conf/deploy.yaml", "of the application")
    put(here, ".dot/file")
    if with_git:
        git(here, "init", "-q")
        git(here, "add", "shop")
    wanted = (".dot/file", "build/other.txt", "conf/deploy.yaml", "requirements.txt", "shop/asgi.py")
    assert found(here).files == wanted


def test_what_gitignore_names_stays_where_it_is(here: Path) -> None:
    git(here, "init", "-q")
    put(here, ".gitignore", "*.log\n/local/\n")
    put(here, "a.log")
    put(here, "local/settings.py")
    put(here, "shop/.gitignore", "secret.py\n")
    put(here, "shop/secret.py")
    put(here, "shop/new.py")  # which nobody has added yet
    assert found(here).files == (".gitignore", "requirements.txt", "shop/.gitignore", "shop/asgi.py", "shop/new.py")


def test_what_one_user_ignores_everywhere_is_installed_all_the_same(here: Path) -> None:
    git(here, "init", "-q")
    put(here.parent, ".config/git/ignore", "*.py\n")
    put(here.parent, ".gitconfig", f"[core]\nexcludesFile = {here.parent}/.config/git/ignore\n")
    assert "shop/asgi.py" in found(here).files


def test_a_file_that_was_removed_and_that_git_still_knows_is_left_out(here: Path) -> None:
    git(here, "init", "-q")
    put(here, "old.py")
    git(here, "add", "-A")
    (here / "old.py").unlink()
    assert "old.py" not in found(here).files


def test_a_repository_inside_of_the_application_is_part_of_it(here: Path) -> None:
    git(here, "init", "-q")
    put(here, "vendored/a.py")
    put(here, "vendored/secret.log")
    git(here / "vendored", "init", "-q")
    with_log = ("requirements.txt", "shop/asgi.py", "vendored/a.py", "vendored/secret.log")
    assert found(here).files == with_log
    put(here, "vendored/.git/info/exclude", "*.log\n")
    assert found(here).files == with_log[:-1]
    git(here / "vendored", "-c", "user.name=a", "-c", "user.email=a@b.org", "commit", "-q", "--allow-empty", "-m", "a")
    git(here, "add", "vendored")  # as a submodule is
    assert found(here).files == with_log[:-1]


def test_a_submodule_that_was_not_fetched_is_warned_about(here: Path) -> None:
    git(here, "init", "-q")
    git(here, "add", ".")
    (here / "themes/dark").mkdir(parents=True)
    assert warned(here) == []  # git knows nothing of it
    git(here, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},themes/dark")
    assert warned(here) == [
        "themes/dark is a submodule of git with nothing in it; fetch it: `git submodule update --init --recursive`"
    ]


def test_a_file_that_git_lfs_has_not_fetched_is_warned_about(here: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    put(here, "static/logo.png", pointer)
    put(here, "about.md", f"A pointer looks like this:\n{pointer}")
    put(here, "long.txt", pointer + "x" * 1024)
    assert warned(here) == ["static/logo.png: Git LFS has not fetched what belongs there; fetch it: `git lfs pull`"]


def test_an_application_in_a_directory_that_the_repository_around_it_ignores_is_found(here: Path) -> None:
    """As when an archive is unpacked in build/ of a checkout."""
    put(here.parent, ".gitignore", f"{here.name}/\n")
    git(here.parent, "init", "-q")
    assert found(here).files == ("requirements.txt", "shop/asgi.py")


def test_without_git_what_work_leaves_behind_is_left_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = ("__pycache__/a.py", "shop/a.pyc", "venv/b.py", ".venv/c.py", "node_modules/d.js", ".env", ".mypy_cache/e")
    for name in (*left, "of-3.13/pyvenv.cfg", "of-3.13/lib/f.py", "env/of_the_shop.py"):
        put(here, name)
    monkeypatch.setenv("PATH", "/nowhere")
    assert found(here).files == ("env/of_the_shop.py", "requirements.txt", "shop/asgi.py")


@needs("git")
def test_where_git_does_not_answer_what_it_would_leave_out_is_not_installed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, ".git", "gitdir: nowhere\n")  # as of a submodule that was copied alone
    [broken] = faults(here)
    assert "git does not say which files of" in broken
    assert "not a git repository" in broken
    monkeypatch.setenv("PATH", "/nowhere")
    [missing] = faults(here)
    assert missing.endswith("'git'; install git, or take .git away: all files are installed then")


def test_an_older_git_reads_in_a_file_alone_whom_it_may_trust(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(here, "init", "-q")
    put(here, ".gitignore", "*.log\n")
    put(here, "a.log")
    older = put(here.parent, "bin/git", '#!/bin/sh\ncase "$*" in *"-c safe.directory"*) exit 128; esac\n')
    older.write_text(f'{older.read_text()}GIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {shutil.which("git")} "$@"\n')
    older.chmod(0o755)
    monkeypatch.setenv("PATH", f"{older.parent}:{os.environ['PATH']}")
    assert "a.log" not in found(here).files


def test_the_directory_may_be_another_one_than_that_of_deploy_yaml(here: Path) -> None:
    put(here, "src/main.py")
    project = found(here, "app.path=src", "app.callable=main:app", "app.requirements=null")
    assert (project.directory, project.files) == (str(here / "src"), ("main.py",))


def test_a_link_within_the_application_is_one_of_its_files(here: Path) -> None:
    (here / "latest").symlink_to("shop")
    (here / "main.py").symlink_to("shop/asgi.py")
    assert found(here).files == ("latest", "main.py", "requirements.txt", "shop/asgi.py")


def outside(here: Path) -> None:
    (here / "out").symlink_to("/etc/passwd")
    (here / "up").symlink_to("..")


def nowhere(here: Path) -> None:
    (here / "gone").symlink_to("missing")
    (here / "loop").symlink_to("loop")
    os.symlink(b"\xff", here / "odd")


def only_here(here: Path) -> None:
    """What would lead elsewhere once it is installed."""
    (here / "absolute").symlink_to(here / "shop")
    (here / "around").symlink_to(f"../{here.name}/shop")


def pipe(here: Path) -> None:
    os.mkfifo(here / "pipe")


def newline(here: Path) -> None:
    put(here, "a\nb")


def package(here: Path) -> None:
    put(here, "service/__init__.py")


def module(here: Path) -> None:
    put(here, "service.py")


def callable_missing(here: Path) -> None:
    (here / "shop/asgi.py").unlink()


def requirements_missing(here: Path) -> None:
    (here / "requirements.txt").unlink()


INSTEAD = "put the file itself there, or write the link as seen from its own directory"
FAULTS: list[tuple[Callable[[Path], object], list[str]]] = [
    (
        outside,
        [
            f"app.path: out leads out of it, to /etc/passwd; {INSTEAD}",
            f"app.path: up leads out of it, to ..; {INSTEAD}",
        ],
    ),
    (
        nowhere,
        [
            "app.path: gone is a link to 'missing', which is not there; remove it, or let .gitignore name it",
            r"app.path: loop is a link to 'loop', which is not there; remove it, or let .gitignore name it",
            r"app.path: odd is a link to '\udcff', which is not there; remove it, or let .gitignore name it",
        ],
    ),
    (
        only_here,
        [
            f"app.path: absolute leads out of it, to HERE/shop; {INSTEAD}",
            f"app.path: around leads out of it, to ../project/shop; {INSTEAD}",
        ],
    ),
    (pipe, ["app.path: pipe is not a file; remove it, or let .gitignore name it"]),
    (newline, [r"app.path: has a file named 'a\nb'; give it another name"]),
    (
        package,
        ["app.path: has a package `service` at its top, which is the name of what runs it; give it another name"],
    ),
    (module, ["app.path: has a package `service` at its top, which is the name of what runs it; give it another name"]),
    (
        callable_missing,
        [
            "app.callable: there is no shop/asgi.py in HERE; name a module in app.path, as package.module:attribute",
        ],
    ),
    (
        requirements_missing,
        [
            "app.requirements: there is no requirements.txt in HERE; name the file, or write `requirements: null` "
            "where nothing is needed"
        ],
    ),
]


@pytest.mark.parametrize(("spoil", "told"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_what_cannot_be_installed_is_refused_with_its_fix(
    here: Path, spoil: Callable[[Path], object], told: list[str]
) -> None:
    found(here)
    spoil(here)
    assert [fault.replace(str(here), "HERE") for fault in faults(here)] == told
    assert project_of(load(str(here / "deploy.yaml"))) is None


def test_a_link_to_what_gitignore_names_is_refused(here: Path) -> None:
    git(here, "init")
    put(here, ".gitignore", "dist/\nbig.bin\n")
    put(here, "dist/app.js")
    put(here, "big.bin")
    put(here, "assets/logo.svg")
    (here / "public").symlink_to("dist")
    (here / "assets/big").symlink_to("../big.bin")
    (here / "pictures").symlink_to("assets")
    fix = "let .gitignore name the link as well, or not what it leads to"
    assert faults(here) == [
        f"app.path: assets/big is a link to ../big.bin, which is not installed; {fix}",
        f"app.path: public is a link to dist, which is not installed; {fix}",
    ]


def test_a_package_in_src_is_one_of_the_application(here: Path) -> None:
    (here / "src").mkdir()
    (here / "shop").rename(here / "src/shop")
    assert "src/shop/asgi.py" in found(here).files
    put(here, "src/service/main.py")
    assert [fault for fault in faults(here) if "`service`" in fault]


def test_all_faults_are_told_at_once_and_nothing_is_rendered(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for spoil in (outside, package, callable_missing, requirements_missing):
        spoil(here)
    assert len(faults(here)) == 5
    monkeypatch.chdir(here)
    outcome = wsbundle("render")
    assert (outcome.code, len(outcome.err.splitlines()), outcome.out) == (2, 5, "")
    assert not (here / "build").exists()


def test_a_directory_that_there_is_not_is_the_only_fault(here: Path) -> None:
    assert faults(here, "app.path=elsewhere") == [
        f"app.path: there is no directory {here}/elsewhere; name the one with the code"
    ]


@pytest.mark.parametrize("package", ["service/templates/a.html", "app/service/__init__.py", "services.py"])
def test_what_is_only_called_like_the_runner_is_no_package_of_its_name(here: Path, package: str) -> None:
    put(here, package)
    assert package in found(here).files


def test_a_directory_without_a_file_is_not_served_unless_a_command_makes_some(here: Path) -> None:
    (here / "static").mkdir()
    assert faults(here, "app.static={/static/: static}") == [
        f"app.static./static/: 'static' has no files in {here}; name a directory with files that are not ignored"
    ]
    found(here, "app.static={/static/: static}", "app.build=['cp -r assets static']")
    put(here, "static-old/a.css")
    assert len(faults(here, "app.static={/static/: static}")) == 1
    put(here, "static/a.css")
    found(here, "app.static={/static/: static/}")


@as_root_alone
def test_root_runs_nothing_that_somebody_elses_repository_names(here: Path) -> None:
    git(here, "init", "-q")
    hook = put(here, "../monitor", f"#!/bin/sh\ntouch {here.parent}/was-run\n")
    hook.chmod(0o755)
    git(here, "config", "core.fsmonitor", str(hook))
    put(here, ".gitignore", "*.log\n")
    put(here, "a.log")
    for path in (here, *here.rglob("*")):
        os.chown(path, 65534, 65534)
    assert "a.log" not in found(here).files
    assert not (here.parent / "was-run").exists()
    subprocess.run(["git", "-c", "safe.directory=*", "-C", str(here), "status"], check=False, capture_output=True)
    assert (here.parent / "was-run").exists()  # or the test would have seen nothing


@pytest.mark.parametrize("path", ["..", "HERE", "../../other"])
def test_deploy_yaml_and_what_was_made_of_it_stay_where_they_are_whatever_way_leads_there(
    here: Path, path: str
) -> None:
    (here.parent / "other").symlink_to(here)
    put(here, "deploy/deploy.yaml", DEPLOY.replace("{", "{path: " + path.replace("HERE", str(here)) + ", "))
    put(here, "deploy/deploy.prod.yaml")
    put(here, "deploy/build/shop/etc/shop/.env", "secret")
    (here / "deploy.yaml").unlink()
    for place in (here, here.parent / "other"):
        assert found(place / "deploy").files == ("requirements.txt", "shop/asgi.py")


# What it needs


def test_a_file_of_requirements_is_read_with_all_that_it_names(here: Path) -> None:
    put(here, "requirements.txt", "-r requirements/base.txt\nb==2 # two\n")
    put(here, "requirements/base.txt", "-c ../constraints.txt\n--requirement=more.txt\na==1 \\\n  --hash=sha256:00\n")
    put(here, "requirements/more.txt", "-r base.txt\nc @ https://a.org/c.whl\n")
    put(here, "constraints.txt", "d===4\n")
    assert warned(here) == []
    project = found(here)
    assert project.file == "requirements.txt"
    assert all(word in project.requirements for word in ("a==1", "b==2", "https://a.org/c.whl", "d===4"))


def test_requirements_are_others_once_a_wheel_of_the_application_is(here: Path) -> None:
    put(here, "requirements/base.txt", "./dist/a-1.whl\n")
    put(here, "requirements.txt", "-r requirements/base.txt\n")
    seen = set()
    for text in ("one", "two"):
        put(here, "dist/a-1.whl", text)
        seen.add(found(here).requirements)
    assert len(seen) == 2


@pytest.mark.parametrize("line", ["file:dist of it/a-1.whl", "file:./dist of it/a-1.whl", "dist of it/a-1.whl ; x"])
def test_a_wheel_of_the_application_is_known_however_it_is_named(here: Path, line: str) -> None:
    wheel = put(here, "dist of it/a-1.whl", "one")
    put(here, "requirements.txt", f"{line}\n")
    assert found(here).requirements == f"{line}\n# dist of it/a-1.whl {sha256(b'one').hexdigest()}\n"
    wheel.unlink()
    assert faults(here)[0].startswith("app.requirements: requirements.txt:1: there is no ")


def test_a_wheel_has_its_hash_where_others_have_theirs(here: Path) -> None:
    put(here, "a-1.whl", "one")
    put(here, "requirements.txt", "./a-1.whl\n-r more.txt\n")
    put(here, "more.txt", "b==1  # --hash\n")
    assert warned(here) == []
    put(here, "more.txt", "b==1 --hash=sha256:00\n")
    line = f"./a-1.whl --hash=sha256:{sha256(b'one').hexdigest()}"
    told = f"requirements.txt:1: a wheel without its hash, and others have theirs; write `{line}`"
    assert faults(here) == [f"app.requirements: {told}"]
    put(here, "requirements.txt", f"{line}\n-r more.txt\n")
    assert warned(here) == []


def test_a_last_line_ends_where_another_file_or_a_wheel_follows(here: Path) -> None:
    put(here, "a-1.whl")
    put(here, "more.txt", "c==1 \\\r\n  --hash=sha256:02\r\n-r last.txt")
    put(here, "last.txt", "d==1 --hash=sha256:03")
    put(here, "requirements.txt", "./a-1.whl --hash=sha256:00\n-r more.txt\nb==1 --hash=sha256:01")
    assert locked(found(here).requirements).splitlines() == [
        "b==1 --hash=sha256:01",
        "c==1 --hash=sha256:02",
        "d==1 --hash=sha256:03",
    ]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _leads_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("name", ["requirements.txt", "a-1.whl"])
@pytest.mark.parametrize("make", [_pipe, _leads_nowhere])
def test_what_is_required_and_cannot_be_read_is_told_once(here: Path, name: str, make: Callable[[Path], None]) -> None:
    put(here, "requirements.txt", "./a-1.whl\n")
    (here / name).unlink(missing_ok=True)
    make(here / name)
    [fault] = faults(here)
    assert fault.startswith(f"app.path: {name} is ")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-r other.txt", "there is no other.txt; put it into app.path, and do not let .gitignore name it"),
        ("-r ../other.txt", "there is no ../other.txt; put it into app.path, and do not let .gitignore name it"),
        ("./a-1.whl", "there is no ./a-1.whl; put it into app.path, and do not let .gitignore name it"),
        ("dist/a-1.whl ; os_name == 'nt'", "there is no dist/a-1.whl; put it into app.path, and do not let .gitignore "
        "name it"),
        ("a @ ./a-1.whl", "there is no a @ ./a-1.whl; put it into app.path, and do not let .gitignore name it"),
        ("-chttp://a.org/c", "there is no http://a.org/c; put it into app.path, and do not let .gitignore name it"),
        *(
            (line, f"'{line}' is a directory, and only packages are installed; leave it out; code of your own is "
            "imported from app.path")
            for line in ("-e .", "--editable ./a", ".", "./a", "../a")
        ),
        *(
            (line, f"'{line}' means a build on the host, and only wheels are installed; name a release, or the URL of "
            "a .whl that you have built")
            for line in (
                *("file:///srv/a", "a @ file:///srv/a", "git+https://a.org/a@v1", "-e git+https://a.org/a#egg=a"),
                *("a @ https://a.org/a-1.tar.gz#sha256=00", "--no-binary a", "--no-binary=:all:"),
                "--only-binary :none:",
            )
        ),
    ],
)  # fmt: skip
def test_a_requirement_that_is_not_on_the_host_is_refused(here: Path, line: str, told: str) -> None:
    put(here, "requirements.txt", f"# first\n{line}\n")
    assert faults(here) == [f"app.requirements: requirements.txt:2: {told}"]


@pytest.mark.parametrize(
    "line", ["fastapi=0.118.0", "fastapi 0.118.0", 'fastapi = "*"', "[project]", '"fastapi"', "a @ file:a.whl"]
)
def test_a_line_that_pip_cannot_read_is_refused(here: Path, line: str) -> None:
    put(here, "requirements.txt", f"# first\n{line}\n")
    told = f"requirements.txt:2: pip cannot read '{line}'; write a package as in `fastapi==0.118.0`"
    assert faults(here) == [f"app.requirements: {told}"]


@pytest.mark.parametrize("line", ["fastapi==0.118.0 \\ \n--hash=sha256:00", "fastapi==0.118.0\\\t"])
def test_a_backslash_with_blanks_behind_it_is_refused(here: Path, line: str) -> None:
    put(here, "requirements.txt", f"# first\n{line}\n")
    told = f"requirements.txt:2: pip cannot read '{line.splitlines()[0].strip()}'"
    assert faults(here) == [f"app.requirements: {told}; let nothing follow the backslash, or take it away"]


@pytest.mark.parametrize(
    "line", ["git+https://a.org/a.git \\", "git+https:\\\n//a.org/a.git", "git+https://a.org/a.git\\\n # why"]
)
def test_a_build_is_refused_also_in_a_line_that_goes_on(here: Path, line: str) -> None:
    put(here, "requirements.txt", f"# first\n{line}")
    (fault,) = faults(here)
    assert "requirements.txt:2: 'git+https://a.org/a.git' means a build on the host" in fault


@pytest.mark.parametrize("line", ['-r "of others.txt"', "-r\t'of others.txt' --pre", "--constraint 'of others.txt'"])
def test_a_file_that_is_named_as_in_a_shell_is_read_as_pip_reads_it(here: Path, line: str) -> None:
    put(here, "requirements.txt", f"{line}\n")
    put(here, "of others.txt", "git+https://a.org/a.git\n")
    (fault,) = faults(here)
    assert "of others.txt:1: 'git+https://a.org/a.git' means a build on the host" in fault


def test_lines_are_joined_as_pip_joins_them() -> None:
    pieces = [
        "a==1",
        " ",
        "\t",
        "\\",
        "\\\n",
        "\\ \n",
        "\n",
        "\r\n",
        "\r",
        "\f",
        "\x1c",
        "\x85",
        "\u2028",
        "#b",
        " # b",
        "//",
    ]
    draw = random.Random(1)
    for _ in range(5000):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 6)))
        assert list(_logical_lines(text)) == list(preprocess(text)), repr(text)


def test_whatever_pip_can_read_is_taken(here: Path) -> None:
    lines = [
        "zope.interface==1",
        "a[b, c] == 1",
        "a (==1) ; os_name == 'posix'",
        "a@https://a.org/a.whl",
        "b-1-py3.whl",
        "--find-links=dist/b-1-py3.whl",
    ]
    lines += ["dist/b-1-py3.whl", "./b-1-py3.whl[c]", "/srv/b-1-py3.whl", "file:///srv/b-1-py3.whl"]
    for wheel in ("b-1-py3.whl", "dist/b-1-py3.whl"):
        put(here, wheel)
    put(here, "requirements.txt", "\n".join([*lines, "${NAME}==1", ""]))
    assert warned(here) == []
    put(here, "requirements.txt", "a==1 --hash=sha256:00\nb --hash=sha256:01\n")
    assert warned(here) == []


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("pyproject.toml", "write uv.lock, `uv lock`, and name that"),
        ("poetry.lock", "write requirements.txt, `poetry export -o requirements.txt`, and name that"),
        ("Pipfile", "write requirements.txt, `pipenv requirements >requirements.txt`, and name that"),
    ],
)
def test_a_file_of_another_program_is_no_file_of_requirements(here: Path, name: str, fix: str) -> None:
    put(here, name, '[project]\nname = "shop"\nurls = "https://a.org/"\n')
    told = f"app.requirements: '{name}' is no file of requirements for pip; {fix}"
    assert faults(here, f"app.requirements={name}") == [told]


def test_what_only_looks_like_a_build_is_taken(here: Path) -> None:
    put(
        here,
        "requirements.txt",
        "--index-url https://a.org/simple\n--only-binary=:all:\na @ https://a.org/a.whl ; os_name == 'posix'\n"
        "https://a.org/b.whl?download\n",
    )
    assert warned(here) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_requirements_of_windows_are_read_as_pip_reads_them(here: Path, encoding: str) -> None:
    (here / "requirements.txt").write_bytes("-r other.txt\r\nb==1\r\n".encode(encoding))
    put(here, "other.txt", "a\n")
    assert [warning[:47] for warning in warned(here)] == ["other.txt does not say which release of a it me"]


def test_a_requirement_that_leaves_its_release_open_is_warned_about(here: Path) -> None:
    put(here, "requirements.txt", "a\nb>=1\nc==1\nd; python_version == '3.11'\ne @ https://a.org/e.whl\n--pre\n")
    assert warned(here) == [
        "requirements.txt does not say which release of a, b>=1, d; it means; pin each, as `uv pip compile` or "
        "`pip freeze` do: else two hosts have different ones"
    ]


def test_requirements_may_be_above_the_application_as_where_several_projects_share_them(here: Path) -> None:
    put(here, "shop/api/main.py")
    put(here, "shop/api/more.txt", "c==3\n")
    put(here, "requirements.txt", "-r common/base.txt\n-r shop/api/more.txt\n")
    put(here, "common/base.txt", "a==1\n-c ../requirements.txt\n")
    put(here, "deploy.yaml", DEPLOY.replace("shop.asgi:application", "main:app"))
    project = found(here, "app.path=shop/api", "app.requirements=../../requirements.txt")
    assert project.files == ("main.py", "more.txt")
    assert project.above == ("../../common/base.txt", "../../requirements.txt")
    assert (project.place, project.file) == ("shop/api", "../../requirements.txt")
    assert all(word in project.requirements for word in ("a==1", "c==3"))


def test_requirements_beyond_the_directory_of_deploy_yaml_are_refused(here: Path) -> None:
    put(here.parent, "requirements.txt")
    fix = "put deploy.yaml into a directory that app.path and this file are below, or the file into app.path"
    beyond = f"is outside of {here}, where deploy.yaml is; {fix}"
    assert faults(here, "app.requirements=../requirements.txt") == [f"app.requirements: '../requirements.txt' {beyond}"]
    put(here, "requirements.txt", "-r ../requirements.txt\n")
    assert faults(here) == [f"app.requirements: '../requirements.txt' {beyond}"]
    # And where the application itself is not below it, an archive could not have both.
    put(here, "deploy/deploy.yaml", DEPLOY.replace("{", "{path: .., "))
    put(here, "deploy/requirements.txt")
    assert found(here / "deploy", "app.requirements=deploy/requirements.txt").above == ()
    put(here, "other/asgi.py")
    assignments = ("app.path=../other", "app.callable=asgi:app", "app.requirements=../deploy/requirements.txt")
    [fault] = faults(here / "deploy", *assignments)
    assert f"'../deploy/requirements.txt' is outside of {here}/deploy, where deploy.yaml is" in fault


def test_a_lock_of_uv_above_the_application_may_be_of_several_projects(here: Path) -> None:
    put(here, "shop/main.py")
    put(here, "uv.lock", "version = 1\n")
    assert faults(here, "app.path=shop", "app.callable=main:app", "app.requirements=../uv.lock") == [
        "app.requirements: '../uv.lock' is above app.path, and may be of several projects; write `uv export --frozen "
        "--no-dev --no-emit-project -o requirements.txt` in app.path, and name that file"
    ]


def with_lock(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of uv with one requirement, and its lock, made without a look at an index."""
    monkeypatch.setenv("PATH", f"{UV.parent}:{os.environ['PATH']}")
    put(
        here,
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["tiny==1.0"]\n',
    )
    wheel = '{ url = "https://a.org/tiny-1.0-py3-none-any.whl", hash = "sha256:' + "0" * 64 + '" }'
    put(
        here,
        "uv.lock",
        'version = 1\nrevision = 1\nrequires-python = ">=3.10"\n\n[[package]]\nname = "shop"\nversion = "1"\n'
        'source = { virtual = "." }\ndependencies = [{ name = "tiny" }]\n\n[package.metadata]\n'
        'requires-dist = [{ name = "tiny", specifier = "==1.0" }]\n\n[[package]]\nname = "tiny"\nversion = "1.0"\n'
        f'source = {{ registry = "https://a.org/simple" }}\nwheels = [{wheel}]\n',
    )  # fmt: skip


@pytest.mark.skipif(not UV.exists(), reason="uv is not among the libraries")
def test_a_lock_of_uv_is_exported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_lock(here, monkeypatch)
    project = found(here, "app.requirements=uv.lock")
    assert project.file is None
    assert "tiny==1.0" in project.requirements
    assert f"--hash=sha256:{'0' * 64}" in project.requirements
    assert "\nshop" not in project.requirements
    assert not (here / ".venv").exists()


@pytest.mark.skipif(not UV.exists(), reason="uv is not among the libraries")
def test_a_wheel_that_a_lock_of_uv_names_is_looked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_lock(here, monkeypatch)
    lock = here / "uv.lock"
    wheel = "dist/tiny-1.0-py3-none-any.whl"
    lock.write_text(lock.read_text().replace('{ registry = "https://a.org/simple" }', f'{{ path = "{wheel}" }}'))
    lock.write_text(lock.read_text().replace('url = "https://a.org/', 'filename = "'))
    [fault] = faults(here, "app.requirements=uv.lock")
    assert fault.startswith(f"app.requirements: uv.lock: there is no ./{wheel}; put it into app.path")
    put(here, wheel)
    assert f"./{wheel} " in found(here, "app.requirements=uv.lock").requirements


@pytest.mark.skipif(not UV.exists(), reason="uv is not among the libraries")
def test_a_lock_that_uv_does_not_take_is_refused_with_its_words(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_lock(here, monkeypatch)
    put(here, "uv.lock", "nonsense")
    [fault] = faults(here, "app.requirements=uv.lock")
    assert fault.startswith("app.requirements: uv cannot export 'uv.lock': ")
    assert fault.endswith("; run `uv lock`")


def test_a_lock_without_uv_is_refused_with_what_to_write(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here, "uv.lock", "version = 1\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert faults(here, "app.requirements=uv.lock") == [
        "app.requirements: 'uv.lock' is read by uv, which is not on PATH here; write `uv export --frozen --no-dev "
        "--no-emit-project -o requirements.txt`, and name that file"
    ]


# How they are named


def test_the_same_files_have_the_same_name_wherever_they_are(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "shop"
    shutil.copytree(here, other)
    for path in other.rglob("*.py"):
        os.utime(path, (0, 0))
        os.link(path, other.parent / path.name)  # a link from elsewhere changes nothing in it
    assert found(other).id("shop") == found(here).id("shop")
    assert len(found(here).id("shop")) == 12


CHANGES: list[Callable[[Path], object]] = [
    lambda here: put(here, "shop/asgi.py", "changed"),
    lambda here: put(here, "shop/new.py"),
    lambda here: (here / "shop/asgi.py").chmod(0o755),
    lambda here: (here / "shop/asgi.py").rename(here / "shop/bsgi.py"),
    lambda here: os.replace(here / "b", here / "a"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_other_files_have_another_name(here: Path, change: Callable[[Path], object]) -> None:
    (here / "a").symlink_to("requirements.txt")
    (here / "b").symlink_to("shop")
    assignments = ("app.callable=shop.asgi:application",)
    before = found(here, *assignments).id("shop")
    change(here)
    if not (here / "shop/asgi.py").exists():
        assignments = ("app.callable=shop.bsgi:application",)
    assert found(here, *assignments).id("shop") != before


def test_files_that_are_installed_otherwise_have_another_name(here: Path) -> None:
    project = found(here)
    assert len({project.id("shop"), project.id("other"), project.id("shop", "static"), project.id("shopstatic")}) == 4


def test_the_command_that_an_operator_is_told_to_write_is_one_of_uv(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not UV.exists():
        pytest.skip("uv is not among the libraries")
    with_lock(here, monkeypatch)
    command = "uv export --frozen --no-dev --no-emit-project -o requirements.txt"
    done = subprocess.run(command.split(), cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert warned(here) == []
