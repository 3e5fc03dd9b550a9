"""Network-free: pip finds a wheel of nothing in a directory."""

import re
from pathlib import Path

import pytest

from generator.packing.wheelhouse import Target, download, requirements_for
from generator.program import LOCKS
from generator.report import CommandError
from tests.generator.front_door import ROOT
from tests.generator.wheel_maker import lock_of, make_wheel

DEBIAN_12 = Target("3.11", "x86_64")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all that pip knows."""
    directory = tmp_path / "index"
    directory.mkdir()
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(directory)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return directory


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    directory = tmp_path / "wheels"
    directory.mkdir()
    return directory


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


@pytest.mark.slow
def test_what_is_locked_is_downloaded_and_the_targets_are_written_beside_it(index: Path, wheels: Path) -> None:
    wheel = make_wheel(index)
    download([Target("3.13", "x86_64"), DEBIAN_12], [lock_of(wheel)], wheels)
    assert names(wheels) == ["targets", wheel.name]
    assert (wheels / "targets").read_text() == "3.11 x86_64\n3.13 x86_64\n"


@pytest.mark.slow
def test_several_targets_share_a_directory(index: Path, wheels: Path) -> None:
    tags = ["cp311-cp311-manylinux2014_x86_64", "cp313-cp313-manylinux_2_28_x86_64"]
    made = [make_wheel(index, tag=tag) for tag in tags]
    hashes = [lock_of(wheel).split("--hash=")[1].split()[0] for wheel in made]
    lock = f"tiny==1.0 --hash={hashes[0]} --hash={hashes[1]}\n"
    download([DEBIAN_12, Target("3.13", "x86_64")], [lock], wheels)
    assert names(wheels) == ["targets", *(wheel.name for wheel in made)]


@pytest.mark.slow
def test_a_wheel_that_is_not_the_locked_one_is_refused(index: Path, wheels: Path) -> None:
    lock = re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", lock_of(make_wheel(index)))
    with pytest.raises(CommandError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        download([DEBIAN_12], [lock], wheels)


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["cp312-cp312-manylinux2014_x86_64", "cp311-cp311-manylinux2014_aarch64"])
def test_a_target_without_a_wheel_is_told_with_pips_own_words(index: Path, wheels: Path, tag: str) -> None:
    lock = lock_of(make_wheel(index, tag=tag))
    with pytest.raises(CommandError) as caught:
        download([DEBIAN_12], [lock], wheels)
    first, *rest = str(caught.value).splitlines()
    assert first == "Not all wheels were found for Python 3.11 x86_64; nothing was written."
    assert rest[-1] == "  ERROR: No matching distribution found for tiny==1.0"


@pytest.mark.slow
def test_a_source_package_is_no_wheel(index: Path, wheels: Path) -> None:
    lock = lock_of(make_wheel(index))
    (index / "tiny-1.0-py3-none-any.whl").rename(index / "tiny-1.0.tar.gz")
    with pytest.raises(CommandError, match="Not all wheels"):
        download([DEBIAN_12], [lock], wheels)


@pytest.mark.parametrize(
    ("marker", "target"),
    [
        ("python_full_version < '3.11'", Target("3.10", "x86_64")),
        ("python_full_version >= '3.11'", DEBIAN_12),
        ("python_version >= '3.13'", Target("3.13", "x86_64")),
        ("sys_platform == 'linux' and platform_machine == 'aarch64'", Target("3.11", "aarch64")),
        ("implementation_name == 'cpython'", DEBIAN_12),
    ],
)
def test_markers_are_judged_for_the_target(tmp_path: Path, marker: str, target: Target) -> None:
    lock = lock_of(make_wheel(tmp_path), marker)
    assert requirements_for(target, [lock]) == [f"tiny==1.0 {re.findall('--hash=.*', lock)[0]}\n"]


@pytest.mark.parametrize("marker", ["python_full_version < '3.11'", "sys_platform == 'win32'", "os_name == 'nt'"])
def test_what_is_meant_for_others_is_left_out(tmp_path: Path, marker: str) -> None:
    assert requirements_for(DEBIAN_12, [lock_of(make_wheel(tmp_path), marker)]) == []


def test_what_two_files_lock_is_named_once(tmp_path: Path) -> None:
    lock = lock_of(make_wheel(tmp_path))
    assert len(requirements_for(DEBIAN_12, [lock, lock])) == 1


PYTHONS = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("python", PYTHONS)
def test_of_our_own_requirements_each_package_is_named_in_one_version(python: str) -> None:
    locks = [(ROOT / lock).read_text() for lock in LOCKS]
    lines = requirements_for(Target(python, "x86_64"), locks)
    packages = [line.partition("==")[0] for line in lines]
    assert len(packages) == len(set(packages))
    assert {"jinja2", "msgspec", "packaging", "pyyaml", "uvicorn", "websockets"} <= set(packages)
    assert ("typing-extensions" in packages) == (python == "3.10")
    assert all(re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+\n", line) for line in lines)
