"""uv makes the environment that pip would make, or does not touch it; what it is asked for follows pip's settings."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator import filling, pip, uv
from tests.generator.front_door import ENVIRONMENT, MAKERS, ROOT, Outcome, process
from tests.generator.wheel_maker import lock_of, make_wheel

UV = Path(sys.executable).with_name("uv")
CONFIGURATIONS = {
    "etc": "[global]\nindex_url = https://index.example.org/simple\n--trusted-host = a.example.org\nuser = true\n",
    "legacy": "[global]\ntimeout = 3\n[install]\nfind-links = /one\n   /other\n",
    "home": "[global]\ntimeout = 4\ncert =\n[download]\nretries = 1\n[install]\nno-index = on\n",
}


def program(directory: Path, text: str, mode: int = 0o755) -> Path:
    """Something that is called uv."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "uv").write_text(f"#!/bin/sh\n{text}\n")
    (directory / "uv").chmod(mode)
    return directory / "uv"


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Path]:
    """A directory that nobody else can change, which nothing below /tmp is for root."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        yield Path(directory)


def at_hand(directory: Path) -> str | None:
    return uv.at_hand({"PATH": f"{directory}:/usr/bin"})


# pip's settings


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"PIP_TIMEOUT": "9", "PIP_CERT": ""}, {"PIP_CONFIG_FILE": "more"}])
def test_pips_settings_are_those_that_pip_itself_lists(given: dict[str, str], tmp_path: Path) -> None:
    for name, place in (("etc", "etc/pip"), ("legacy", "home/.pip"), ("home", "home/.config/pip")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "pip.conf").write_text(CONFIGURATIONS[name])
    (tmp_path / "more").write_text("[install]\ntimeout = 5\n")
    variables = {"PATH": ENVIRONMENT["PATH"], "HOME": f"{tmp_path}/home", "XDG_CONFIG_DIRS": f"{tmp_path}/etc"}
    variables |= {name: str(tmp_path / text) if text == "more" else text for name, text in given.items()}
    # What pip makes of them, by its own parser of options: with the section of `install`, and without what is empty.
    ask = """
from pip._internal.commands import create_command
options = create_command("install").parser.get_default_values()
print(options.index_url, options.trusted_hosts, options.timeout, options.find_links, options.no_index, options.cert)
"""
    asked = process([sys.executable, "-I", "-c", ask], env=variables)
    through_us = process([sys.executable, "-I", "-c", ask], env=pip.of_pip(variables))
    assert asked.code == 0, asked.err
    assert through_us == asked


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("index-url = https://index.example.org/simple\n")
    given = {**ENVIRONMENT, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    with pytest.raises(pip.PipError, match=f"{tmp_path}/pip.conf cannot be read: File contains no section headers"):
        pip.settings(given)


def test_uv_looks_where_pip_would(tmp_path: Path) -> None:
    given = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://index.example.org/simple",
        "PIP_EXTRA_INDEX_URL": "https://one.example.org/simple  https://other.example.org/simple",
        "PIP_FIND_LINKS": "/one /other",
        "PIP_NO_INDEX": "1",
        "PIP_TRUSTED_HOST": "index.example.org",
        "PIP_DEFAULT_TIMEOUT": "7.5",
        "PIP_RETRIES": "2",
        "PIP_PROXY": "http://proxy:3128",
        "REQUESTS_CA_BUNDLE": "/etc/ssl/ours.pem",
    }
    words, variables = uv.syncing("uv", "bin/python", ["lock.txt"], given)
    assert "--no-index" in words
    assert {name: variables[name] for name in variables if name not in uv._FIXED} == {
        "UV_DEFAULT_INDEX": "https://index.example.org/simple",
        "UV_INDEX": "https://one.example.org/simple https://other.example.org/simple",
        "UV_FIND_LINKS": "/one,/other",
        "UV_INSECURE_HOST": "index.example.org",
        "UV_HTTP_TIMEOUT": "7",
        "UV_HTTP_RETRIES": "2",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://proxy:3128"),
        "SSL_CERT_FILE": "/etc/ssl/ours.pem",
    }


def test_the_callers_environment_and_settings_of_uv_do_not_count() -> None:
    given = {"VIRTUAL_ENV": "/mine", "CONDA_PREFIX": "/mine", "UV_INDEX": "https://x.example.org", "UV_PYTHON": "/mine"}
    _, variables = uv.syncing("uv", "bin/python", [], {**given, "PIP_CONFIG_FILE": os.devnull, "PATH": "/mine/bin"})
    assert set(variables) == {"PATH", *uv._FIXED}


@pytest.mark.parametrize(
    ("name", "text"), [("KEYRING_PROVIDER", "import"), ("TIMEOUT", "a while"), ("TIMEOUT", "inf"), ("RETRIES", "x")]
)
def test_what_uv_cannot_follow_pip_does(name: str, text: str) -> None:
    with pytest.raises(uv.UvError, match=r"uv cannot follow pip's settings: .*; pip makes this environment instead"):
        uv.syncing("uv", "bin/python", [], {"PIP_CONFIG_FILE": os.devnull, f"PIP_{name}": text})


# Which uv


def test_one_that_is_new_enough_is_taken_and_none_is_no_fault(tmp_path: Path) -> None:
    assert at_hand(UV.parent) == str(UV)
    assert uv.at_hand({"PATH": f"{UV.parent}", uv.SWITCH: "no"}) is None
    if not Path("/usr/local/bin/uv").exists():
        assert at_hand(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo uv 0.10.12", "is uv 0.10, and uv from 0.11 on is needed"),
        ("echo something else", "does not say its version"),
        ("exit 1", "does not say its version"),
        ("kill -9 $$", "does not say its version"),
    ],
)
def test_one_that_is_old_or_broken_is_left_to_pip(text: str, why: str, roots: Path) -> None:
    path = program(roots, text)
    with pytest.raises(uv.UvError, match=f"^{path} {why}.*; pip makes this environment instead$"):
        at_hand(roots)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is that careful")
def test_root_takes_none_that_another_user_could_change(roots: Path) -> None:
    path, link = program(roots / "theirs", "echo uv 9.9"), roots / "uv"
    link.symlink_to(path)
    assert at_hand(roots) == str(link)
    path.chmod(0o775)
    with pytest.raises(uv.UvError, match=f"{link} is not used by root, because {path} can be changed by another user"):
        at_hand(roots)
    path.chmod(0o755)
    (roots / "bin").symlink_to("theirs/../theirs")  # a directory may be a link, and a link may lead to a link
    middle = program(roots / "middle", "")
    middle.unlink()
    middle.symlink_to("../bin/uv")
    link.unlink()
    link.symlink_to("middle/uv")
    assert at_hand(roots) == str(link)
    os.chown(middle, 12345, 0, follow_symlinks=False)
    with pytest.raises(uv.UvError, match=f"because {middle} can be changed by another user"):
        at_hand(roots)
    os.chown(middle, 0, 0, follow_symlinks=False)
    os.chown(path.parent, 12345, 0)
    with pytest.raises(uv.UvError, match=f"because {path.parent} can be changed by another user"):
        at_hand(roots)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a home away")
def test_a_cache_is_in_ones_own_home_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert filling._cache() == str(tmp_path / ".cache/wsbundle/uv")
    os.chown(tmp_path, 12345, 0)  # `sudo -E`
    assert filling._cache() is None
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert filling._cache() is None


# What it makes


MAKE = [sys.executable, "-IB", str(ROOT / "generator/environment.py")]
_FILES = {
    "neat/__init__.py": "def main():\n    print('neat')\n",
    "neat/data.json": "{}",
    "neat-1.0.data/scripts/neatly": "#!python\nprint('neatly')\n",
    "neat-1.0.dist-info/entry_points.txt": "[console_scripts]\nneat = neat:main\n",
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Requirements of two wheels beside it, one with programs."""
    plain, neat = make_wheel(tmp_path, needs=""), make_wheel(tmp_path, "neat", needs="")
    with zipfile.ZipFile(neat, "a") as file:
        for name, text in _FILES.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if "/scripts/" in name else 0o100644) << 16
            file.writestr(entry, text)
        file.writestr("neat/native.so", b"\x7fELF")
    (tmp_path / "lock.txt").write_text(lock_of(plain) + lock_of(neat))
    return tmp_path / "lock.txt"


def make(directory: Path, lock: Path, path: Path | None, **variables: str) -> Outcome:
    """Make an environment with the uv of a directory, or with pip."""
    reached = {"HOME": str(lock.parent), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(lock.parent)}
    switch = {} if path else {uv.SWITCH: "no"}
    environment = {**reached, "PATH": f"{path}:{ENVIRONMENT['PATH']}", **switch, **variables}
    return process([*MAKE, str(directory), str(lock)], cwd=ROOT, env=environment, umask=0o077)


def tree(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Each file with its mode, and its content where that does not depend on who installs it, and when."""
    made = {}
    for path in directory.rglob("*"):
        name, status = str(path.relative_to(directory)), path.lstat()
        same = path.is_file() and "pip" not in path.parts and path.suffix not in (".pyc", ".txt")
        same = same and path.name not in ("RECORD", "INSTALLER", "ready") and path.parent.name != "bin"
        if path.name != "uv_cache.json" and "/pip" not in name:  # of files that no index has
            made[name] = (stat.filemode(status.st_mode), path.read_bytes() if same else b"")
    return made


WITH_UV = ("install Python packages with uv", "install pip")


def steps(outcome: Outcome) -> list[str]:
    """What was said, without the seconds."""
    return [re.sub(r"^  done   +\d+\.\d s  ", "", line) for line in outcome.err.splitlines()]


@pytest.mark.slow
def test_uv_and_pip_make_the_same_tree(lock: Path, tmp_path: Path) -> None:
    """Also where uv's own cache was filled under a umask that lets nobody else read."""
    directory = tmp_path / "venv"
    assert make(directory, lock, None).code == 0
    of_pip = tree(directory)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    fill = [str(UV), *"pip sync -q --no-index --python other --find-links . lock.txt".split()]
    subprocess.run(fill, cwd=tmp_path, env={"HOME": str(tmp_path)}, check=True, umask=0o077)
    (directory / "ready").unlink()
    outcome = make(directory, lock, UV.parent, VIRTUAL_ENV=str(tmp_path / "other"))
    assert (outcome.code, outcome.out, steps(outcome)) == (0, "", [f"Setting up {directory} (once)", *WITH_UV])
    made = [path.read_text() for path in directory.rglob("INSTALLER")]
    assert sorted(made)[-2:] == ["uv", "uv"]
    assert tree(directory) == of_pip
    assert process([directory / "bin/neat"]) == (0, "neat\n", "")
    assert process([directory / "bin/neatly"]) == (0, "neatly\n", "")
    assert process([directory / "bin/python", "-I", "-m", "pip", "--version"]).code == 0


@pytest.mark.slow
def test_a_wheel_that_is_not_the_locked_one_is_refused_by_uv_and_by_pip(lock: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "a") as file:
        file.writestr("more.py", "")
    outcome = make(tmp_path / "venv", lock, UV.parent)
    assert outcome.code == 1
    assert f"{UV} failed, see above; pip makes this environment instead" in outcome.err
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in outcome.err
    assert not (tmp_path / "venv/ready").exists()


@pytest.mark.slow
def test_uv_of_an_archive_is_unpacked_and_used(lock: Path, tmp_path: Path) -> None:
    for module in MAKERS:
        (tmp_path / "archive/generator").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / f"generator/{module}.py", tmp_path / "archive/generator")
    shutil.copytree(tmp_path, tmp_path / "archive/wheels", ignore=lambda *_: ["archive", "lock.txt"])
    with zipfile.ZipFile(tmp_path / "archive/wheels/uv-1.0-py3-none-any.whl", "w") as file:
        file.write(UV, "uv-1.0.data/scripts/uv")
    (tmp_path / "archive/wheels/targets").write_text(
        f"{sys.version_info[0]}.{sys.version_info[1]} {os.uname().machine}\n"
    )
    (tmp_path / "archive/pyproject.toml").touch()
    command = [sys.executable, "-IB", "generator/environment.py", ".venv", str(lock)]
    outcome = process(command, cwd=tmp_path / "archive", env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    assert (outcome.code, outcome.out, steps(outcome)) == (0, "", ["Setting up .venv (once)", *WITH_UV])
    assert "uv" in {path.read_text() for path in (tmp_path / "archive/.venv").rglob("INSTALLER")}
