"""An environment that fits no more is set up again: by another Python, or in a checkout that was copied or moved."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.generator.front_door import ENVIRONMENT, MAKERS, ROOT, Outcome, process

MAIN = "import sys\ndef run():\n    print({!r}, sys.version_info[:2])\n    return 0\n"
HERE = "{}.{}".format(*sys.version_info)


def others() -> list[Path]:
    """Other supported Pythons of this machine."""
    versions = [f"3.{minor}" for minor in range(10, 15) if minor != sys.version_info[1]]
    of_pyenv = Path(sys.base_prefix).parent
    found = [next(of_pyenv.glob(f"{version}.*/bin/python{version}"), None) for version in versions]
    found += [Path(path) for version in versions if (path := shutil.which(f"python{version}")) and "shims" not in path]
    return [path for path in found if path is not None]


@pytest.fixture
def another() -> Path:
    if not others():
        pytest.skip("this machine has one supported Python")
    return others()[-1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    directory = tmp_path / "checkout"
    (directory / "generator").mkdir(parents=True)
    for module in MAKERS:
        shutil.copy(ROOT / f"generator/{module}.py", directory / "generator")
    (directory / "generator/__main__.py").write_text(MAIN.format("original"))
    (directory / "service").mkdir()
    shutil.copy(ROOT / "service/__init__.py", directory / "service")
    (directory / "pyproject.toml").touch()
    (directory / "requirements.txt").write_text("# none\n")
    return directory


def make(checkout: Path, python: Path | str = sys.executable) -> Outcome:
    command = [python, "-IB", "generator/environment.py", ".venv", "requirements.txt"]
    outcome = process(command, cwd=checkout, env={"PATH": ENVIRONMENT["PATH"]}, timeout=300)
    assert outcome.code == 0, outcome.err
    return outcome


def wsbundle(checkout: Path) -> Outcome:
    return process([checkout / ".venv/bin/wsbundle"], cwd="/", env={"PATH": ENVIRONMENT["PATH"]})


@pytest.mark.slow
def test_another_python_sets_it_up_again_and_the_same_one_does_not(checkout: Path, another: Path) -> None:
    assert "Setting up .venv (once)" in make(checkout).err
    assert make(checkout).err == ""
    assert wsbundle(checkout).out == f"original ({HERE.replace('.', ', ')})\n"
    version = another.name.removeprefix("python")
    said = make(checkout, another).err
    assert f"Setting up .venv (again: it was made for Python {HERE}, and this is Python {version})" in said
    assert wsbundle(checkout).out == f"original ({version.replace('.', ', ')})\n"
    assert make(checkout, another).err == ""


@pytest.mark.slow
def test_a_python_that_is_replaced_under_it_meets_words_and_no_traceback(checkout: Path, another: Path) -> None:
    make(checkout)
    link = checkout / ".venv/bin/python"
    python = link.resolve()
    link.unlink()
    link.symlink_to(another)
    outcome = wsbundle(checkout)
    version = another.name.removeprefix("python")
    assert outcome.code == 1
    assert outcome.err.startswith(f"wsbundle: {checkout}/.venv was not made for this Python, {version} (No module")
    assert f"run `make check` in {checkout}: that sets it up again" in outcome.err
    link.unlink()
    link.symlink_to("/nowhere/python3")
    assert "again: the Python that it was made with is gone" in make(checkout, python).err
    assert wsbundle(checkout).code == 0


def test_a_link_is_refused_before_anything_that_it_leads_to_is_touched(checkout: Path) -> None:
    theirs = checkout.with_name("theirs")
    theirs.mkdir()
    (theirs / "ready").write_text("of another checkout\n")
    (checkout / ".venv").symlink_to(theirs)
    command = [sys.executable, "-IB", "generator/environment.py", ".venv", "requirements.txt"]
    outcome = process(command, cwd=checkout, env={"PATH": ENVIRONMENT["PATH"]})
    assert outcome.code == 1
    assert outcome.err.startswith("wsbundle: .venv is a link")
    assert f"make VENV={theirs}" in outcome.err
    assert (theirs / "ready").read_text() == "of another checkout\n"


@pytest.mark.slow
def test_a_copy_of_a_checkout_never_runs_the_originals_code(checkout: Path) -> None:
    make(checkout)
    copy = checkout.with_name("copy")
    shutil.copytree(checkout, copy, symlinks=True)
    (copy / "generator/__main__.py").write_text(MAIN.format("copy"))
    outcome = wsbundle(copy)
    assert outcome.code == 1
    assert (
        f"{copy}/.venv is not complete, or was copied or moved, and would run what is in {checkout}/.venv"
        in outcome.err
    )
    assert f"again: it was made for {checkout}, and this is another place" in make(copy).err
    assert wsbundle(copy).out.startswith("copy ")
    assert wsbundle(checkout).out.startswith("original ")
    assert make(checkout).err == ""


def test_one_of_an_earlier_release_is_set_up_again(checkout: Path) -> None:
    from generator.environment import _stale

    (checkout / ".venv").mkdir()
    assert _stale(checkout / ".venv", []) == "once"
    (checkout / ".venv/ready").touch()
    assert str(_stale(checkout / ".venv", [])).startswith("again: it was made for an earlier release, and this is Py")


def test_make_asks_each_time_whether_it_still_fits() -> None:
    outcome = process(["make", "--dry-run", "check", "VENV=", "PYTHON="], cwd=ROOT, env={**os.environ})
    assert (
        "python3 -IB generator/environment.py .venv requirements/generator.txt requirements/service.txt" in outcome.out
    )
