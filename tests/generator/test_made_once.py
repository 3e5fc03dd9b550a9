"""Directories that are made once: when they are made again, and what is there if that fails."""

from collections.abc import Callable
from pathlib import Path

import pytest

from generator.host.made_once import is_whole, make_once
from generator.host.programs import StepFailed
from generator.host.store import READY
from generator.report import Report


def fill_of(directory: Path, text: str = "code") -> Callable[[], None]:
    def fill() -> None:
        (directory / "part").mkdir()
        (directory / "part/module.py").write_text(text)
        (directory / "link").symlink_to("part")

    return fill


def fail() -> None:
    raise StepFailed("no room")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "runtimes/abc"
    make_once(directory, fill_of(directory), Report())
    return directory


def test_what_is_whole_is_not_made_again(made: Path) -> None:
    assert is_whole(made)
    make_once(made, lambda: pytest.fail("made again"), Report())


def test_what_python_compiles_by_itself_is_no_damage(made: Path) -> None:
    (made / "part/__pycache__").mkdir()
    (made / "part/__pycache__/module.pyc").touch()
    assert is_whole(made)


@pytest.mark.parametrize("damage", ["lost", "cut", "added", "not to its end", "its record"])
def test_what_is_damaged_is_made_again(made: Path, damage: str) -> None:
    module = made / "part/module.py"
    if damage == "lost":
        module.unlink()
    elif damage == "cut":
        module.write_text("cod")
    elif damage == "added":
        (made / "part/more.py").touch()
    elif damage == "its record":
        (made / READY).write_bytes(b"\xff")
    else:
        (made / READY).unlink()
    assert not is_whole(made)
    make_once(made, fill_of(made), Report())
    assert is_whole(made)
    assert [path.name for path in made.parent.iterdir()] == ["abc"]


def test_what_cannot_be_made_again_is_as_before(made: Path) -> None:
    (made / "link").unlink()

    def fail_halfway() -> None:
        (made / "half").touch()
        fail()

    with pytest.raises(StepFailed, match="no room"):
        make_once(made, fail_halfway, Report())
    assert (made / "part/module.py").exists()
    assert not (made / "half").exists()
    assert [path.name for path in made.parent.iterdir()] == ["abc"]


def test_what_was_killed_while_it_was_made_again_is_as_before_if_that_fails_once_more(made: Path) -> None:
    made.rename(made.with_suffix(".damaged"))
    made.mkdir()

    with pytest.raises(StepFailed, match="no room"):
        make_once(made, fail, Report())
    assert (made / "part/module.py").exists()


def test_a_mark_without_text_is_of_an_earlier_release(made: Path) -> None:
    (made / READY).write_text("")
    assert is_whole(made)


def test_a_first_one_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no room"):
        make_once(tmp_path / "abc", fail, Report())
    assert not list(tmp_path.iterdir())
