"""What the benchmark needs and how to get it, and how it is asked."""

from pathlib import Path

import pytest

from bench import programs
from bench.__main__ import main
from bench.programs import MissingError


@pytest.fixture
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PATH", str(tmp_path))
    monkeypatch.setattr(programs, "BUILD", tmp_path / "build")


@pytest.mark.usefixtures("_bare_machine")
def test_without_a_compiler_it_says_how_to_get_one() -> None:
    with pytest.raises(MissingError, match=r"cc is not installed; .*: apt-get install -y gcc libc6-dev"):
        programs.compiled("load.c")


@pytest.mark.usefixtures("_bare_machine")
def test_without_npm_it_says_how_to_get_it() -> None:
    with pytest.raises(MissingError, match=r"npm is not installed; .*: apt-get install -y nodejs npm"):
        programs.node_modules()


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(programs, "BUILD", tmp_path / "build")
    with pytest.raises(MissingError, match=r"cc failed \(no such header\)"):
        programs.compiled("load.c")


@pytest.mark.parametrize("arguments", [["everything"], ["--only", "nginx"], ["--connections", "many"]])
def test_what_it_does_not_know_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
