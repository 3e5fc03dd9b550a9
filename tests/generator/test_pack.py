"""What the archive holds, and what its installer refuses; none of it installs anything on this machine."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from os.path import dirname, join, normpath
from pathlib import Path

import msgspec
import pytest

from generator.config.load import Loaded, load
from generator.packing.archive import Archive
from generator.packing.pack import deploy_text, pack
from generator.rendering.render import render
from tests.generator.front_door import ENVIRONMENT, ROOT, Outcome, process, wsbundle
from tests.generator.wheel_maker import lock_of, make_wheel
from tests.programs import needs

GOLDEN = sorted((ROOT / "tests/golden").glob("*/deploy.yaml"))
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A wheelhouse for this machine, with a wheel of nothing."""
    directory = tmp_path / "made"
    directory.mkdir()
    make_wheel(directory)
    (directory / "targets").write_text(f"{HERE} {os.uname().machine}\n")
    return directory


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that the test stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(*assignments: str) -> Loaded:
    return load(str(ROOT / "deploy.yaml"), None, assignments)


def packed(wheels: Path, *assignments: str, root: Path = ROOT) -> Archive:
    deployment = loaded(*assignments)
    return pack(root, deployment, render(deployment.deploy), wheels)


def unpacked(archive: Archive, directory: Path) -> Path:
    (directory / "archive.tar.gz").write_bytes(archive.content)
    assert process(["tar", "xzf", "archive.tar.gz"], cwd=directory) == (0, "", "")  # no word of the time stamps either
    return directory / archive.directory


def entries(archive: Archive) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive.content), mode="r:gz") as tar:
        return {entry.name.partition("/")[2]: entry for entry in tar}


def copy(directory: Path) -> Path:
    """The project in another place, as a checkout of another day, with what work leaves in it."""
    ignored = shutil.ignore_patterns(".*", "build", "tests", "__pycache__", "*.egg-info")
    for name in ("service", "generator", "clients", "requirements", "docs", "findings"):
        shutil.copytree(ROOT / name, directory / name, ignore=ignored, copy_function=shutil.copyfile)
    shutil.copytree(ROOT / "templates", directory / "templates", copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"):
        shutil.copyfile(ROOT / name, directory / name)
    compiled = ("generator/__pycache__/x.pyc", "templates/__pycache__/x.pyc")
    built = ("clients/python/build/lib/wsbundle_client/wire.py",)
    for left in (*compiled, *built, "service/settings.py~", "deploy.prod.yaml"):
        (directory / left).parent.mkdir(parents=True, exist_ok=True)
        (directory / left).write_text("left behind")
    return directory


def test_the_hosts_of_a_desk_change_nothing_in_it(wheels: Path) -> None:
    assert packed(wheels, "hosts=[ws1, ws2]").content == packed(wheels).content


# What it holds


def test_another_checkout_gives_the_same_bytes(wheels: Path, tmp_path: Path) -> None:
    assert packed(wheels, root=copy(tmp_path / "elsewhere")) == packed(wheels)


def test_it_holds_code_locks_wheels_and_the_rendered_files_and_nothing_of_the_checkout(wheels: Path) -> None:
    paths = set(entries(packed(wheels)))
    assert {path.partition("/")[0] for path in paths} == {
        *("SHA256SUMS", "install", "deploy.yaml", "rendered", "wheels"),
        *(
            "clients",
            "docs",
            "findings",
            "generator",
            "requirements",
            "service",
            "templates",
            "pyproject.toml",
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "LICENSE",
        ),
    }
    assert {path for path in paths if path.startswith(("requirements/", "wheels/"))} == {
        *("requirements/generator.txt", "requirements/service.txt", "requirements/uv.txt"),
        *("wheels/targets", "wheels/tiny-1.0-py3-none-any.whl"),
    }
    rendered = {f"rendered/{file.path}" for file in render(loaded().deploy).files}
    assert {path for path in paths if path.startswith("rendered/")} == {"rendered/manifest.json", *rendered}


@needs("git")
def test_it_holds_every_module_template_and_page(wheels: Path) -> None:
    paths = set(entries(packed(wheels)))
    kept = ("service", "generator", "templates", "clients/python/wsbundle_client", "docs/*.md")
    listed = process(["git", "ls-files", *kept], cwd=ROOT).out.split()
    assert listed
    assert [path for path in listed if path not in paths and (ROOT / path).exists()] == []


def test_its_pages_link_to_nothing_that_it_lacks(wheels: Path) -> None:
    paths = set(entries(packed(wheels)))
    pages = [path for path in paths if path.endswith(".md")]
    links = [
        (page, normpath(join(dirname(page), link)))
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / page).read_text())
    ]
    assert ("docs/README.md", "CHANGELOG.md") in links
    assert [(page, to) for page, to in links if to not in paths] == []


def test_two_files_can_be_run_and_two_are_private(wheels: Path) -> None:
    modes = {path: entry.mode for path, entry in entries(packed(wheels)).items() if entry.isfile()}
    hook = "rendered/etc/letsencrypt/renewal-hooks/deploy/queue-websocket"
    assert {path for path, mode in modes.items() if mode == 0o755} == {"install", hook}
    private = {path: oct(mode) for path, mode in modes.items() if mode not in (0o644, 0o755)}
    assert private == {"deploy.yaml": "0o600", "rendered/etc/queue-websocket/.env": "0o640"}


def test_a_secret_is_in_private_files_only(wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels, f"env.TOKEN={SECRET}"), tmp_path)
    holders = {
        str(file.relative_to(directory))
        for file in directory.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    }
    assert holders == {"deploy.yaml", "rendered/etc/queue-websocket/.env"}
    assert all((directory / holder).stat().st_mode & 0o007 == 0 for holder in holders)


def test_no_path_of_this_machine_is_in_it(wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    texts = [file.read_bytes() for file in directory.rglob("*") if file.is_file() and file.suffix != ".whl"]
    assert not [text for text in texts if str(ROOT).encode() in text]


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.parent.name)
def test_its_deploy_yaml_says_what_was_given(file: Path, tmp_path: Path) -> None:
    given = load(str(file))
    (tmp_path / "deploy.yaml").write_text(deploy_text(given))
    again = load(str(tmp_path / "deploy.yaml"))
    assert again.deploy == msgspec.structs.replace(given.deploy, hosts=())  # which are for the desk alone
    assert set(again.origins) == set(given.origins) - {"hosts"}


def test_its_deploy_yaml_has_overlay_and_assignments_applied(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("domain: ws.example.com\nport: 9000\nping: {interval: 20}\n")
    (tmp_path / "deploy.prod.yaml").write_text("domain: chat.example.com\nenv: {TOKEN: '007', COLON: 'a: b # c'}\n")
    given = load(str(tmp_path / "deploy.yaml"), "prod", ["ping.timeout=5", "nginx.trusted_proxies=['::1']"])
    assert deploy_text(given).splitlines()[1:] == [
        *("port: 9000", "ping:", "  interval: 20.0", "  timeout: 5.0", "domain: chat.example.com"),
        *("nginx:", "  trusted_proxies:", "  - ::1", "env:", "  TOKEN: '007'", "  COLON: 'a: b # c'"),
    ]


# What is refused, before anything changes


def installer(directory: Path, *words: str) -> Outcome:
    return process(["sh", str(directory / "install"), *words], cwd="/")


@pytest.mark.parametrize("path", ["service/core/hub.py", "install", "wheels/tiny-1.0-py3-none-any.whl", "deploy.yaml"])
def test_a_damaged_member_is_refused_by_name(path: str, wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    content = (directory / path).read_bytes()
    (directory / path).write_bytes(content + b"\n")
    outcome = installer(directory)
    assert outcome.code == 1
    assert f"{path}: FAILED" in outcome.out
    assert "wsbundle: this archive is damaged, or was edited" in outcome.err
    assert not (directory / ".venv").exists()


def test_a_missing_member_is_refused_by_name(wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    (directory / "generator/host/apply.py").unlink()
    outcome = installer(directory)
    assert outcome.code == 1
    assert "generator/host/apply.py: FAILED open or read" in outcome.out


@pytest.mark.parametrize("path", ["service/core/more.py", "generator/yaml.py", "wheels/more.whl", "msgspec.py"])
def test_a_file_that_was_added_is_refused_by_name(path: str, wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    (directory / path).symlink_to("/dev/null")
    (directory / "service/__pycache__").mkdir()
    (directory / "service/__pycache__/hub.pyc").touch()
    (directory / "notes").touch()
    outcome = installer(directory)
    assert outcome.code == 1
    assert outcome.err.endswith(f"remove them. Nothing was changed.\n  {path}\n")
    assert not (directory / ".venv").exists()


def test_a_truncated_list_of_sums_is_refused(wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    sums = (directory / "SHA256SUMS").read_text()
    (directory / "SHA256SUMS").write_text(sums[:-150])
    assert installer(directory).code == 1


def environment(directory: Path) -> Outcome:
    """What the installer does after the sums, and before it becomes `wsbundle install`."""
    command = [sys.executable, "-IB", "generator/environment.py", ".venv", "requirements/service.txt"]
    return process(command, cwd=directory, env={**ENVIRONMENT, "PYTHONPATH": str(directory)})


def test_a_host_with_another_python_is_told_what_to_make(wheels: Path, tmp_path: Path) -> None:
    (wheels / "targets").write_text("3.9 x86_64\n3.10 riscv64\n")
    directory = unpacked(packed(wheels), tmp_path)
    machine = os.uname().machine
    assert environment(directory) == (
        1,
        "",
        f"wsbundle: this archive has wheels for Python 3.9 x86_64, 3.10 riscv64, and this host has {HERE} {machine}; "
        f'make one for it: make bundle ARGS="--python {HERE} --machine {machine}". Nothing was changed.\n',
    )
    assert not (directory / ".venv").exists()


@pytest.mark.slow
def test_a_wheel_that_is_not_the_locked_one_is_not_installed(wheels: Path, tmp_path: Path) -> None:
    directory = unpacked(packed(wheels), tmp_path)
    wheel = directory / "wheels/tiny-1.0-py3-none-any.whl"
    (directory / "requirements/service.txt").write_text(lock_of(wheel))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    outcome = environment(directory)
    assert outcome.code == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in outcome.err
    assert "wsbundle: setting up .venv failed" in outcome.err
    assert not (directory / ".venv/ready").exists()


@pytest.mark.parametrize("python", ["3.9", "3", "2.7", "3.11.2", "three"])
def test_a_python_that_the_service_cannot_run_on_is_refused(python: str, here: Path) -> None:
    outcome = wsbundle("bundle", "-f", str(ROOT / "deploy.yaml"), "--python", "3.11", "--python", python)
    assert outcome.code == 2
    assert f"--python {python} is not a Python that the service runs on; give one from 3.10 on" in outcome.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("output", ["pipe", "link", "directory"])
def test_an_archive_takes_the_place_of_no_device_and_no_directory(output: str, here: Path) -> None:
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("directory").mkdir()
    outcome = wsbundle("bundle", "-f", str(ROOT / "deploy.yaml"), "-o", output)
    assert (outcome.code, outcome.err) == (2, f"-o {output} is not a regular file; name another\n")
    assert Path(output).exists()
    assert not Path(output).is_file()


def test_a_source_date_that_is_no_number_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    outcome = wsbundle("bundle", "-f", str(ROOT / "deploy.yaml"))
    assert outcome.code == 2
    assert "SOURCE_DATE_EPOCH is 'yesterday'; give it seconds since 1970, or unset it" in outcome.err


@pytest.mark.slow
def test_wheels_that_cannot_be_had_leave_nothing_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(here)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    outcome = wsbundle("bundle", "-f", str(ROOT / "deploy.yaml"))
    assert outcome.code == 1
    assert "Not all wheels were found for Python 3.11 x86_64; nothing was written." in outcome.err
    assert list(here.iterdir()) == []


# All of it, with the real requirements


@pytest.fixture(scope="module")
def index_is_near(tmp_path_factory: pytest.TempPathFactory) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "h11==0.16.0"]
    if subprocess.run(
        [*command, "--dest", tmp_path_factory.mktemp("near")], capture_output=True, check=False
    ).returncode:
        pytest.skip("pip reaches no package index from here")


@pytest.mark.slow
@pytest.mark.usefixtures("index_is_near")
def test_two_runs_give_the_same_bytes_and_a_working_command_without_any_index(here: Path) -> None:
    for output in ("one.tar.gz", "two.tar.gz"):
        outcome = wsbundle("bundle", "-f", str(ROOT / "deploy.yaml"), "--python", HERE, "-o", output)
        assert outcome.code == 0, outcome.err
    content = (here / "one.tar.gz").read_bytes()
    assert content == (here / "two.tar.gz").read_bytes()
    assert (here / "one.tar.gz").stat().st_mode & 0o077 == 0
    (name,) = {word for word in outcome.out.split() if word.startswith("queue-websocket-")}
    assert process(["tar", "xzf", "one.tar.gz"], cwd=here) == (0, "", "")
    locks = ["requirements/generator.txt", "requirements/service.txt"]
    nowhere = {**ENVIRONMENT, "PYTHONPATH": str(here / name), "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    command = [sys.executable, "-IB", "generator/environment.py", ".venv", *locks]
    made = process(command, cwd=here / name, env=nowhere, timeout=300)
    assert made.code == 0, made.err
    checked = process([".venv/bin/wsbundle", "check"], cwd=here / name, env={"PATH": ENVIRONMENT["PATH"]})
    assert checked.code == 0, checked.err
