"""What a runtime is made of: a change in it restarts the service, and a change in anything else must not."""

import shutil
from pathlib import Path

import pytest

from generator.host import provide
from generator.host.provide import runtime_id
from generator.host.succession import SHARED_MODULES
from tests.generator.front_door import ROOT

CLIENTS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "service/client.py", *(ROOT / "clients").rglob("*"))
    if path.is_file() and not {"__pycache__", "node_modules"} & {*path.parts}
)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("service", "clients", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.setattr(provide, "ROOT", tmp_path)
    return tmp_path


def test_a_change_in_a_client_restarts_nothing(copy: Path) -> None:
    before = runtime_id()
    assert len(CLIENTS) > 3
    for path in CLIENTS:
        with (copy / path).open("ab") as file:
            file.write(b"\n")
    assert runtime_id() == before
    assert not {str(path) for path in CLIENTS} & set(SHARED_MODULES)


@pytest.mark.parametrize("path", ["service/app.py", "service/core/hub.py", "requirements/service.txt"])
def test_a_change_in_what_runs_is_another_runtime(path: str, copy: Path) -> None:
    before = runtime_id()
    with (copy / path).open("ab") as file:
        file.write(b"\n")
    assert runtime_id() != before
