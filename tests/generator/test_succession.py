"""Whether workers of two codes understand each other, and the manager both."""

import shutil
from pathlib import Path

import pytest

from generator.host.provide import ROOT
from generator.host.succession import SHARED_MODULES, shared, states
from service.core.handover import VERSION


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "service", tmp_path / "service")
    return tmp_path


@pytest.mark.parametrize("module", SHARED_MODULES)
def test_a_module_that_is_shared_must_be_the_same(module: str, copy: Path) -> None:
    assert shared(copy) == shared(ROOT)
    changed = copy / module
    changed.write_text(f"{changed.read_text()}\n# New.\n")
    assert shared(copy) != shared(ROOT)
    changed.unlink()
    assert shared(copy) != shared(ROOT)


def test_all_other_code_may_differ(copy: Path) -> None:
    for path in (copy / "service").rglob("*.py"):
        if str(path.relative_to(copy)) not in SHARED_MODULES:
            path.write_text("# Other.\n")
    assert shared(copy) == shared(ROOT)


def test_the_states_of_clients_have_a_version_which_older_code_lacks(copy: Path) -> None:
    assert states(copy) == str(VERSION)
    (copy / "service/core/handover.py").unlink()
    assert states(copy) == ""
