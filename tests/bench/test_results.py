"""The file of results: what is added is read again, and what cannot be read is named."""

import datetime
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import programs, results
from bench.__main__ import PARTS, main
from bench.figures import Outcome
from bench.machine import FETCHED, PACKAGES, versions
from bench.results import ResultsError, keep, read
from tests.bench.results_of import figure, kept, run
from tests.modules import ROOT, imports
from tests.programs import needs

FIGURES = [figure(3.0, 3.1, 2.9, reference=(1.0, 1.0, 1.0)), figure(7.0, better="less", case="fast, idle")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "build" / "results.jsonl"


def test_what_is_kept_is_read_again(file: Path) -> None:
    keep(run(27), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    keep(run(28), "servers", Outcome("", FIGURES[:1], "full"), 0.05, file)
    assert read(file) == [*(kept(each, run(27)) for each in FIGURES), kept(FIGURES[0], run(28))]


def test_before_the_first_run_there_is_nothing(file: Path) -> None:
    assert read(file) == []


def test_each_figure_is_a_line(file: Path) -> None:
    keep(run(27), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    first, second = file.read_text().splitlines()
    assert first.startswith('{"format":1,"run":{"time":"2026-11-27T14:03:00Z","commit":"0')
    assert '"figure":{"case":"fast, idle"' in second


def test_a_line_that_was_not_finished_is_told_and_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(run(27), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    file.write_bytes(file.read_bytes()[:-10])
    assert read(file) == [kept(FIGURES[0], run(27))]
    assert f"{file}:2: left out: a run was killed while it wrote this line" in capsys.readouterr().err


def test_the_next_run_writes_over_a_line_that_was_not_finished(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(run(27), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    file.write_bytes(file.read_bytes()[:-10])
    keep(run(28), "servers", Outcome("", FIGURES[:1], "full"), 0.05, file)
    assert read(file) == [kept(FIGURES[0], run(27)), kept(FIGURES[0], run(28))]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format":1', '"format":2'),
        ('"format":1,', ""),
        ('"format":1', '"format":1,"more":0'),
        ('"case":', '"place":'),
        ('"unit":"1/s"', '"unit":"1/s","digits":2'),
        ('"better":"more"', '"better":"equal"'),
        ('"is_clean":true', '"is_clean":"yes"'),
        ('"kernel"', '"system"'),
        ('"others":0.05,', ""),
        ("3.1", '"3.1"'),
        ("}", ""),
        ("fast", "\udcff"),
    ],
)
def test_a_line_that_is_not_ours_is_refused_with_its_place(file: Path, old: str, new: str) -> None:
    keep(run(27), "servers", Outcome("", FIGURES[:1], "full"), 0.05, file)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new), errors="surrogateescape")
    with pytest.raises(ResultsError, match=rf"{re.escape(str(file))}:1: .*; remove the line, or move the file away"):
        read(file)


def _keep_often(file: Path, day: int) -> None:
    for _ in range(50):
        keep(
            run(day),
            "servers",
            Outcome("", [figure(float(day), case=f"case {number}") for number in range(20)], "full"),
            0.05,
            file,
        )


@pytest.mark.slow
def test_two_runs_at_once_do_not_mix(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_keep_often, args=(file, day)) for day in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = read(file)
    assert len(lines) == 2 * 50 * 20
    for start in range(0, len(lines), 20):
        together = lines[start : start + 20]
        assert len({line.run.time for line in together}) == 1
        assert [line.figure.case for line in together] == [f"case {number}" for number in range(20)]


def test_a_full_disk_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(run(27), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    before, write = file.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda opened, text: write(opened, text[:40]))
    with pytest.raises(OSError, match="the disk is full; the figures of servers are not kept"):
        keep(run(28), "servers", Outcome("", FIGURES, "full"), 0.05, file)
    assert file.read_bytes() == before


@needs("git")
def test_a_run_names_its_commit_and_whether_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (results.this_run().commit, results.this_run().is_clean) == ("unknown", False)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    found = results.this_run()
    assert re.fullmatch("[0-9a-f]{40}", found.commit)
    assert found.is_clean
    assert datetime.datetime.now(datetime.timezone.utc) - found.time < datetime.timedelta(minutes=1)
    (tmp_path / "new").touch()
    assert not results.this_run().is_clean


def test_what_others_are_made_of_is_named_with_its_version() -> None:
    peers = {name.partition(".")[0] for path in (ROOT / "bench" / "peers").glob("*.py") for name in imports(path)}
    assert peers - {*sys.stdlib_module_names, "bench"} <= {*PACKAGES, *FETCHED}
    named = versions()
    assert {"Python", *PACKAGES, *FETCHED.values()} <= named.keys()
    assert ("node" in named) == ("ws" in named)
    assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)+", version) for version in named.values())


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PATH", str(tmp_path))
    assert versions().keys() == {"Python", *PACKAGES, *FETCHED.values()}


def test_what_a_run_measures_is_kept_and_compared(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*values: float) -> None:
        monkeypatch.setitem(PARTS, "render", lambda options: Outcome("a table", [figure(*values)], "3 rounds"))

    monkeypatch.setattr(results, "FILE", file)
    monkeypatch.setattr("bench.machine.others", lambda *_: 0.0)
    measured(100.0, 101.0, 99.0)
    assert main(["render"]) == 0
    assert "Nothing to compare with" in capsys.readouterr().out
    measured(70.0, 71.0, 69.0)
    assert main(["render"]) == 0
    said = capsys.readouterr().out
    assert "a table" in said
    assert "- worse: render: fast, W=1: done per CPU second: 70 1/s, was 100" in said
    assert len(read(file)) == 2


def test_nothing_is_measured_while_the_file_cannot_be_read(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_asked(options: object) -> Outcome:
        raise AssertionError

    monkeypatch.setattr(results, "FILE", file)
    monkeypatch.setitem(PARTS, "render", not_asked)
    file.parent.mkdir()
    file.write_text("{}\n")
    assert main(["render"]) == 1
    assert f"{file}:1: " in capsys.readouterr().err
