"""What is derived from the declarations: that it is fresh, complete, and true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from generator.config.check import check
from generator.config.document import MappingNode, parse
from generator.config.load import load_text
from generator.config.rules import RULES
from generator.config.schema import ESSENTIAL, Deploy
from generator.rendering.agreement import AGREEMENTS
from service.declaration import REQUIRED, settings_of
from service.settings import Settings
from tests.generator.front_door import ROOT
from tools import derive

SETTINGS = {setting.key: setting for setting in settings_of(Deploy)}
# They have no default, so the sample shows an example.
WITH_EXAMPLE = {key for key, setting in SETTINGS.items() if setting.default is None}


def uncommented(keys: set[str]) -> str:
    """The sample with these settings and their sections taken out of their comments, as an operator would."""
    lines = []
    section = ""
    for line in derive.deploy_yaml().splitlines():
        if re.match(r"#?\w+:", line):
            section = line.lstrip("#").partition(":")[0]
        name = line.removeprefix("#").strip().partition(":")[0]
        wanted = section in keys or f"{section}.{name}" in keys
        opens = name == section and any(key.startswith(f"{section}.") for key in keys)
        lines.append(line.removeprefix("#") if re.match(r"#(\w|  )", line) and (wanted or opens) else line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", derive.derived())
def test_a_derived_file_is_fresh(path: str) -> None:
    """If it is not: `make docs`."""
    assert (ROOT / path).read_text(encoding="utf-8") == derive.derived()[path]


def test_only_what_is_stale_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(derive, "ROOT", tmp_path)
    assert derive.main() == 0
    assert capsys.readouterr().out == "wrote deploy.yaml\nwrote deploy.schema.json\nwrote docs/settings.md\n"
    assert derive.main() == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "deploy.yaml").write_text("stale")
    assert derive.main() == 0
    assert capsys.readouterr().out == "wrote deploy.yaml\n"
    assert (tmp_path / "docs/settings.md").read_text(encoding="utf-8") == derive.settings_page()


def test_the_sample_as_it_stands_is_the_default_deployment() -> None:
    assert load_text(derive.deploy_yaml(), "deploy.yaml").deploy == Deploy(domain="ws.example.com")


def test_the_sample_shows_every_setting_once_the_essential_ones_live_and_first() -> None:
    everything = uncommented(set(SETTINGS))
    root, _ = parse(everything, "deploy.yaml")
    assert isinstance(root, MappingNode)
    assert set(check(root, Deploy).origins) == set(SETTINGS)
    assert tuple(yaml.safe_load(derive.deploy_yaml())) == ESSENTIAL
    assert tuple(root.keys)[: len(ESSENTIAL)] == ESSENTIAL


def test_the_sample_with_every_default_uncommented_is_still_the_default_deployment() -> None:
    loaded = load_text(uncommented(set(SETTINGS) - WITH_EXAMPLE), "deploy.yaml")
    assert loaded.deploy == Deploy(domain="ws.example.com")
    assert set(loaded.origins) == set(SETTINGS) - WITH_EXAMPLE


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_a_single_line_of_the_sample_can_be_uncommented(key: str) -> None:
    """With its section. What rules say of an example beside the defaults is not its own fault."""
    root, faults = parse(uncommented({key}), "deploy.yaml")
    assert isinstance(root, MappingNode)
    checked = check(root, Deploy, faults)
    assert checked.faults == []
    assert key in checked.origins


def test_every_setting_is_explained_in_the_docs_with_its_default() -> None:
    rows = [line.split(" | ") for line in derive.settings_page().splitlines() if line.startswith("| `")]
    described = {row[0].removeprefix("| ").strip("`"): row[1:] for row in rows if len(row) == 4}
    assert set(described) == set(SETTINGS)
    for key, (takes, default, meaning) in described.items():
        setting = SETTINGS[key]
        assert (takes, meaning) == (setting.expects, f"{setting.description} |")
        assert (default in ("required", "none")) == (setting.default in (REQUIRED, None))


def test_every_variable_rule_and_agreement_is_in_the_docs() -> None:
    page = derive.settings_page()
    assert all(f"| `{setting.extra['env']}` | `{setting.key}` |\n" in page for setting in settings_of(Settings))
    assert all(f"| `{rule.name}`{' (warns)' * rule.warns} | " in page for rule in RULES)
    assert all(f"| {rule.reason} |\n" in page for rule in RULES)
    assert all(f"| `{agreement.name}` | {agreement.reason} |\n" in page for agreement in AGREEMENTS)


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(derive.schema())
    return loaded


def test_the_schema_is_a_schema_and_accepts_the_sample() -> None:
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(yaml.safe_load(derive.deploy_yaml()))


def test_the_schema_describes_every_setting_for_completion() -> None:
    definitions = schema()["$defs"]
    top = definitions["Deploy"]["properties"]
    for key, setting in SETTINGS.items():
        section, _, name = key.rpartition(".")
        declared = definitions[top[section]["anyOf"][0]["$ref"][8:]]["properties"][name] if section else top[name]
        assert declared["description"] == setting.description
        assert ("default" in declared) == (setting.default is not REQUIRED)


def test_the_sample_names_the_schema_to_editors() -> None:
    first = derive.deploy_yaml().splitlines()[0]
    assert first == "# yaml-language-server: $schema=deploy.schema.json"
    assert (ROOT / "deploy.schema.json").exists()
