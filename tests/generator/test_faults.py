"""Every message about a wrong deploy.yaml: each file of tests/faults opens with the messages that it must give.

The files of tests/warnings are sound, and open with what they are warned about.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import inspect as declared

from generator.config.check import Checked, check
from generator.config.document import MappingNode, Origin, Scalar, parse
from generator.config.load import found_by, merge
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
    return {rule.name for rule in RULES if found_by(rule, checked)}


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


def ranges() -> Iterator[tuple[str, int, int]]:
    """The settings that take numbers, with the least and the largest one."""
    for setting in settings_of(Deploy):
        for kind in setting.alternatives:
            if isinstance(kind, declared.IntType | declared.FloatType):
                assert kind.ge is not None
                assert kind.le is not None
                yield setting.key, int(kind.ge), int(kind.le)


@pytest.mark.parametrize("case", FAULTS + WARNINGS, ids=lambda case: case.stem)
def test_what_is_found_beside_a_wrong_number_holds_whatever_number_was_meant(case: Path) -> None:
    root, faults = parse(case.read_text(), "deploy.yaml")
    if faults or not isinstance(root, MappingNode):
        return
    broken = broken_rules(case)
    for key, least, most in ranges():
        wrong = with_value(root, key, "-1")
        for rule in (rule for rule in RULES if key in rule.keys and rule.name in broken):
            found = found_by(rule, wrong)
            for meant in {least + 1, 2, 60, 80, 443, 8765, (least + most) // 2, most - 1} if found else ():
                if least <= meant <= most:
                    right = found_by(rule, with_value(root, key, f"{meant}"))
                    assert [each for each in found if each not in right] == [], (rule.name, key, meant)


def with_value(root: MappingNode, key: str, text: str) -> Checked:
    """The settings, one of them with another value."""
    origin = Origin("deploy.yaml", 1, 1)
    *sections, name = key.split(".")
    mapping = MappingNode({name: Scalar(text, False, origin)}, {name: origin}, origin)
    for section in reversed(sections):
        mapping = MappingNode({section: mapping}, {section: origin}, origin)
    return check(merge(root, mapping), Deploy)
