"""What stays in an application's environment."""

import subprocess
import sys
from pathlib import Path

import pytest

from generator.host.programs import StepFailed
from generator.host.requirements import _in_full, _named_by, _needs_setuptools


@pytest.fixture
def python(tmp_path: Path) -> str:
    """That of an empty environment."""
    command = [sys.executable, "-I", "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(command, check=True)
    return str(tmp_path / "venv/bin/python")


def bring(python: str, requires: str) -> None:
    [site] = Path(python).parent.parent.glob("lib/python3*/site-packages")
    (site / "tiny-1.0.dist-info").mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Dist: {requires}\n"
    (site / "tiny-1.0.dist-info/METADATA").write_text(metadata)


def test_setuptools_stays_where_something_needs_it(python: str) -> None:
    assert not _needs_setuptools(python, "")
    assert _needs_setuptools(python, "tiny==1.0\nsetuptools==80.0\n")
    for requires in ("setuptools", "setuptools>=40", 'setuptools (>40); python_version >= "3"'):
        bring(python, requires)
        assert _needs_setuptools(python, "tiny==1.0\n")
    for requires in ("setuptools-scm", "setuptools_rust>=1", 'setuptools>=40; extra == "tests"'):
        bring(python, requires)
        assert not _needs_setuptools(python, "tiny==1.0\n")


def test_variables_that_stand_in_a_file_of_requirements_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDEX_TOKEN", "secret")
    monkeypatch.delenv("OTHER_TOKEN", raising=False)
    assert _named_by(
        "--index-url https://${INDEX_TOKEN}@a.org/simple\na==1 # ${OTHER_TOKEN}\nb==1 $HOME ${lower}\n"
    ) == {"INDEX_TOKEN": "secret"}
    with pytest.raises(StepFailed, match="names the variable OTHER_TOKEN, which is not set"):
        _named_by("--index-url https://${INDEX_TOKEN}:${OTHER_TOKEN}@a.org/simple\n")


def test_pip_finds_the_files_that_the_caller_names_though_it_is_started_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("wheels", "15", "ca.pem"):
        (tmp_path / name).touch()
    index = "https://a.org/wheels"
    asked = {"PIP_FIND_LINKS": f"wheels {index} gone", "SSL_CERT_FILE": "ca.pem", "PIP_TIMEOUT": "15", "TOKEN": "15"}
    found = {"PIP_FIND_LINKS": f"{tmp_path}/wheels {index} gone", "SSL_CERT_FILE": f"{tmp_path}/ca.pem"}
    assert _in_full(asked) == {**asked, **found}
