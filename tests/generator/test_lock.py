"""What is newer than what is locked, and what is known of it."""

import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.generator.wheel_maker import make_wheel
from tools.lock import ROOT, advisories, changes, check, locked, main, records, versions

LOCK = """
tiny==1.0 \\
    --hash=sha256:aa
Other.Name[extra]==2.0 ; python_full_version < '3.11' \\
    --hash=sha256:bb
other-name==3.0 ; python_full_version >= '3.11' \\
    --hash=sha256:cc
    # via tiny
"""


def record(**affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": "Other_Name", **affected.pop("package", {})}
    return {
        "id": "PYSEC-1",
        "aliases": ["GHSA-x", "CVE-1"],
        "summary": "Bad",
        "affected": [{"package": package, **affected}],
    }


def ranges(*events: dict[str, str], kind: str = "ECOSYSTEM") -> list[dict[str, Any]]:
    return [{"type": kind, "events": list(events)}]


def named(*found: dict[str, Any]) -> list[str]:
    return [str(advisory) for advisory in advisories(found, [versions(LOCK)])]


def test_a_lock_may_have_a_package_in_several_versions() -> None:
    assert versions(LOCK) == {"tiny": {"1.0"}, "other-name": {"2.0", "3.0"}}


def test_what_has_changed_is_said_once_with_the_lists_that_it_is_in() -> None:
    before = {"one": versions("a==1.0\nb==1\n"), "other": versions("a==1.0\nb==1\n")}
    after = {"one": versions("a==1.10\nb==1\n"), "other": versions("a==1.10\nc==2\n")}
    assert list(changes(before, after)) == [
        "a 1.0 -> 1.10 (one, other)",
        "b 1 is gone (other)",
        "c 2 is new (other)",
    ]


def test_an_advisory_names_the_release_and_the_first_one_without_it() -> None:
    known = record(ranges=ranges({"introduced": "0"}, {"fixed": "2.0.1"}, {"introduced": "3"}, {"fixed": "3.5"}))
    assert named(known) == [
        "other-name 2.0: CVE-1, Bad; fixed in 2.0.1",
        "other-name 3.0: CVE-1, Bad; fixed in 3.5",
    ]


@pytest.mark.parametrize(
    ("affected", "which"),
    [
        ({"versions": ["2.0"]}, ["2.0"]),
        ({"ranges": ranges({"introduced": "2.5"})}, ["3.0"]),
        ({"ranges": ranges({"introduced": "0"}, {"last_affected": "2.0"})}, ["2.0"]),
        ({"ranges": ranges({"introduced": "0"}, {"fixed": "2.0"})}, []),
        ({"ranges": ranges({"fixed": "2.5"}, {"introduced": "0"})}, ["2.0"]),
        ({"ranges": ranges({"introduced": "0"}, {"fixed": "not a version"})}, ["2.0", "3.0"]),
        ({"ranges": ranges({"introduced": "0"}, kind="GIT")}, []),
        ({"versions": ["2.0"], "ranges": [{"type": "ECOSYSTEM"}]}, ["2.0"]),
        ({"versions": ["2.0"], "package": {"ecosystem": "npm"}}, []),
        ({"versions": ["2.0"], "package": {"name": "another"}}, []),
    ],
)
def test_a_release_is_affected_as_the_record_says(affected: dict[str, Any], which: list[str]) -> None:
    assert [line.split()[1].rstrip(":") for line in named(record(**affected))] == which


def test_an_advisory_that_was_withdrawn_is_none() -> None:
    assert named({**record(versions=["2.0"]), "withdrawn": "2026-01-01T00:00:00Z"}) == []


@pytest.mark.parametrize("form", ["zip", "directory", "file"])
def test_an_export_may_be_an_archive_a_directory_or_a_record(form: str, tmp_path: Path) -> None:
    text, path = json.dumps(record(versions=["2.0"])), tmp_path / "export"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("PYSEC-1.json", text)
    elif form == "directory":
        path.mkdir()
        (path / "PYSEC-1.json").write_text(text)
    else:
        path.write_text(text)
    assert len(named(*records(path))) == 1


NPM = json.dumps({"id": "GHSA-x", "affected": [{"package": {"ecosystem": "npm", "name": "tiny"}}]})


@pytest.mark.parametrize("text", ["", "{}", "[]", "all.zip", '{"affected": null}', '{"affected": [0]}', NPM])
def test_what_is_no_export_is_refused_by_name(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.zip").write_text(text)
    assert main(["--check", "--advisories", str(tmp_path / "all.zip")]) == 2
    assert main(["--check", "--advisories", str(tmp_path / "none.zip")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"lock: {tmp_path}/{name}.zip: ") for line, name in zip(told, ("all", "none"), strict=True)]
    assert all(line.endswith("; give an export of OSV for PyPI") for line in told)


def test_an_export_that_is_empty_or_damaged_is_no_good_news(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(record()))
    whole = (tmp_path / "all.zip").read_bytes()
    (tmp_path / "all.zip").write_bytes(whole.replace(b'PYSEC-1",', b'PYSEC-2",'))
    (tmp_path / "empty").mkdir()
    for name, why in (("all.zip", "Bad CRC-32"), ("empty", "it has no record of a package from PyPI")):
        with pytest.raises(ValueError, match=why):
            list(records(tmp_path / name))


@pytest.mark.slow
def test_uv_says_what_is_newer_and_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/tiny.in").write_text(f"--no-index\n--find-links {tmp_path}\ntiny\n")
    (tmp_path / "requirements/tiny.txt").write_text("tiny==0.9\n")
    make_wheel(tmp_path, needs="")
    (tmp_path / "export").write_text(json.dumps({**record(versions=["0.9"], package={"name": "tiny"})}))
    assert check(tmp_path, None, ["tiny"]) == 3
    assert check(tmp_path, tmp_path / "export", ["tiny"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        *("newer: tiny 0.9 -> 1.0 (tiny)", "newer: tiny 0.9 -> 1.0 (tiny)"),
        "advisory: tiny 0.9: CVE-1, Bad; no release is without it",
    ]
    assert (tmp_path / "requirements/tiny.txt").read_text() == "tiny==0.9\n"
    (tmp_path / "requirements/tiny.in").write_text("nothing-of-this-name\n--no-index\n")
    with pytest.raises(subprocess.CalledProcessError):
        check(tmp_path, None, ["tiny"])


def test_our_own_lists_are_read_whole() -> None:
    for name, found in locked(ROOT).items():
        lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
        pins = {line.split()[0] for line in lines if re.match(r"[\w.-]+(\[.*\])?==", line)}
        assert sum(len(each) for each in found.values()) == len(pins)
