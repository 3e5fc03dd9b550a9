"""What the benchmark needs and how to get it, and how it is asked."""

import os
from pathlib import Path

import pytest

from bench import load, programs
from bench.__main__ import main
from bench.programs import MissingError
from bench.servers import load_cpus, server_cpus


@pytest.fixture
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PATH", str(tmp_path))
    monkeypatch.setattr(programs, "BUILD", tmp_path / "build")


@pytest.mark.usefixtures("_bare_machine")
def test_without_a_compiler_it_says_how_to_get_one() -> None:
    with pytest.raises(MissingError, match=r"cc is not installed; .*: apt-get install -y gcc libc6-dev libssl-dev"):
        load.program()


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
        load.program()


@pytest.mark.parametrize("arguments", [["everything"], ["--only", "nginx"], ["--connections", "many"]])
def test_what_it_does_not_know_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cpus", "taken", "server", "its_load"),
    [
        ({0}, 1, [0], [0]),
        ({0, 1}, 1, [0], [1]),
        ({0, 1}, 2, [0, 1], [0, 1]),
        ({2, 3, 5, 7}, 2, [2, 3], [7]),
    ],
)
def test_the_load_has_a_cpu_of_its_own_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, cpus: set[int], taken: int, server: list[int], its_load: list[int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cpus)
    assert (server_cpus(taken), load_cpus(taken)) == (server, its_load)


def test_two_cpus_are_not_measured_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(MissingError, match="2 CPUs are needed, and there is 1"):
        server_cpus(2)
