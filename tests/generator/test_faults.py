"""Every message about a wrong deploy.yaml: each file of tests/faults opens with the messages that it must give.

The files of tests/warnings are sound, and open with what they are warned about.
"""

import shutil
from pathlib import Path

import pytest

from generator.config.check import check
from generator.config.document import MappingNode, parse
from generator.config.rules import RULES
from generator.config.schema import Deploy
from service.declaration import settings_of
from tests.generator.front_door import ROOT, wsbundle

FAULTS = sorted((ROOT / "tests" / "faults").glob("*.yaml"))
WARNINGS = sorted((ROOT / "tests" / "warnings").glob("*.yaml"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def announced(case: Path) -> list[str]:
    return [line[2:] for line in case.read_text().splitlines() if line.startswith("# deploy.yaml:")]


def faulty_keys(case: Path) -> set[str]:
    return {message.split(": ")[1].partition("[")[0] for message in announced(case)}


def broken_rules(case: Path) -> set[str]:
    root, faults = parse(case.read_text(), "deploy.yaml")
    if not isinstance(root, MappingNode):
        return set()
    checked = check(root, Deploy, faults)
    asked = [rule for rule in RULES if checked.sound.issuperset(rule.keys)]
    return {rule.name for rule in asked if any(rule.check(checked.deploy, checked.origins))}


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.stem)
def test_a_fault_is_told_with_its_place_and_its_fix_and_nothing_is_written(case: Path, here: Path) -> None:
    shutil.copy(case, here / "deploy.yaml")
    outcome = wsbundle("render")
    assert outcome.err.splitlines() == announced(case)
    assert (outcome.code, outcome.out) == (2, "")
    assert [file.name for file in here.iterdir()] == ["deploy.yaml"]


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case.stem)
def test_a_warning_is_told_and_stops_nothing(case: Path, here: Path) -> None:
    shutil.copy(case, here / "deploy.yaml")
    outcome = wsbundle("show")
    assert outcome.err.splitlines() == announced(case)
    assert outcome.code == 0


def test_every_rule_is_broken_by_a_file() -> None:
    assert set().union(*map(broken_rules, FAULTS + WARNINGS)) == {rule.name for rule in RULES}


def test_every_setting_has_a_fault_in_a_file() -> None:
    assert {setting.key for setting in settings_of(Deploy)} <= set().union(*map(faulty_keys, FAULTS))


def test_ten_faults_are_told_at_once() -> None:
    assert len(announced(ROOT / "tests" / "faults" / "ten-at-once.yaml")) == 10
