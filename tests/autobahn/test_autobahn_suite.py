"""What is made of the reports of Autobahn|Testsuite. The testsuite itself: `make test-autobahn`."""

import json
from pathlib import Path

import pytest

from tests.autobahn.autobahn_suite import MissingError, Outcome, faults, installed, python27, read_outcomes
from tests.autobahn.run_autobahn import table, with_table

GOOD = Outcome("1.1.1", "OK", "OK")
BAD = Outcome("7.1.5", "FAILED", "WRONG CODE")


def test_outcomes_are_read_in_the_order_of_the_cases() -> None:
    cases = {"10.1.1": ("OK", "OK"), "2.1": ("NON-STRICT", "INFORMATIONAL")}
    index = {"ours": {name: {"behavior": one, "behaviorClose": other} for name, (one, other) in cases.items()}}
    assert read_outcomes(json.dumps(index)) == [
        Outcome("2.1", "NON-STRICT", "INFORMATIONAL"),
        Outcome("10.1.1", "OK", "OK"),
    ]


def test_a_run_in_which_all_passes_has_no_fault() -> None:
    assert list(faults("fast", [GOOD, Outcome("2.2", "INFORMATIONAL", "OK")], {})) == []


@pytest.mark.parametrize(("behavior", "close"), [("FAILED", "OK"), ("UNIMPLEMENTED", "OK"), ("OK", "UNCLEAN")])
def test_everything_else_fails(behavior: str, close: str) -> None:
    assert list(faults("fast", [Outcome("1.1.1", behavior, close)], {})) == [
        f"fast: case 1.1.1: {behavior}, close {close}"
    ]


def test_no_case_at_all_is_a_fault() -> None:
    assert list(faults("fast", [], {})) == ["fast: no case ran"]


def test_an_allowed_case_may_fail_and_leaves_the_list_when_it_passes() -> None:
    allowed = {"standalone": {"7.1.5": "why"}}
    assert list(faults("standalone", [BAD], allowed)) == []
    assert list(faults("fast", [BAD], allowed)) == ["fast: case 7.1.5: FAILED, close WRONG CODE"]
    passed = BAD._replace(behavior="OK", behavior_close="OK")
    assert list(faults("standalone", [passed], allowed)) == ["standalone: case 7.1.5 passes now; take it off ALLOWED"]


def test_the_table_counts_each_case_once() -> None:
    assert table({"fast": [GOOD, BAD]}).splitlines()[-1] == "| fast shell | 2 | 1 | 0 | 0 | 1 |"


def test_the_table_replaces_what_stands_between_its_marks() -> None:
    page = "a\n<!-- autobahn: begin -->\nold\n<!-- autobahn: end -->\nb\n"
    assert with_table(page, "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="once"):
        with_table("no marks", "new")


def test_without_python_2_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYTHON27", raising=False)
    with pytest.raises(MissingError, match=r"pyenv install 2\.7\.18"):
        python27()


def test_when_it_cannot_be_installed_it_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip = tmp_path / "python2.7"
    pip.write_text("#!/bin/sh\necho no network >&2; exit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr("tests.autobahn.autobahn_suite.BUILD", tmp_path)
    with pytest.raises(MissingError, match="no network"):
        installed(str(pip))
