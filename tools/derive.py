"""Derive deploy.yaml, deploy.schema.json and docs/settings.md from the declarations: `make docs`."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from generator.config.rules import RULES
from generator.config.schema import Deploy
from generator.explain import SETTINGS, shown
from generator.rendering.agreement import AGREEMENTS
from generator.sample import sample
from service.declaration import REQUIRED, Setting

ROOT = Path(__file__).parent.parent
SCHEMA = "deploy.schema.json"


def derived() -> dict[str, str]:
    """The derived files by path, relative to the project."""
    return {"deploy.yaml": deploy_yaml(), SCHEMA: schema(), "docs/settings.md": settings_page()}


def deploy_yaml() -> str:
    """The sample, with the schema that stands beside it."""
    return f"# yaml-language-server: $schema={SCHEMA}\n" + sample("ws.example.com", "make")


def schema() -> str:
    """The JSON Schema (draft 2020-12) of deploy.yaml, for completion and checking in editors."""
    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    document |= msgspec.json.schema(Deploy)
    for section in document["$defs"].values():
        section["properties"] = {name: _as_loaded(declared) for name, declared in section["properties"].items()}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _as_loaded(declared: dict[str, Any]) -> dict[str, Any]:
    """The declaration of one key, with what the loader also takes: an empty section, and a number as text."""
    if "$ref" in declared:
        return {"anyOf": [{"$ref": declared["$ref"]}, {"type": "null"}], "default": declared["default"]}
    if declared.get("type") == "object":
        return {
            **declared,
            "type": ["object", "null"],
            "additionalProperties": _as_loaded(declared["additionalProperties"]),
        }
    if declared.get("type") == "string" and "pattern" not in declared:
        return {**declared, "type": ["string", "number", "boolean"]}
    return declared


def settings_page() -> str:
    """docs/settings.md: every setting, every rule, every agreement."""
    settings = list(SETTINGS.values())
    lines = [
        "# Settings",
        "",
        "<!-- Derived from service/settings.py, generator/config/schema.py, generator/config/rules.py and",
        "generator/rendering/agreement.py by `make docs`; edit those. -->",
        "",
        "What `deploy.yaml` may say. Only `domain` must be given; everything else has a default.",
        "`wsbundle explain KEY` prints the same in the terminal, `wsbundle show --origin` what is in force and",
        "where it was given.",
        "",
    ]
    sections = dict.fromkeys(setting.key.rpartition(".")[0] for setting in settings)
    for section in sections:
        lines += [
            f"## {section or 'The deployment'}",
            "",
            "| setting | takes | default | meaning |",
            "|---|---|---|---|",
        ]
        lines += [_row(setting) for setting in settings if setting.key.rpartition(".")[0] == section]
        lines.append("")
    lines += [
        "## In the environment of the service",
        "",
        "The rendered `.env` carries what the running service reads; `python -m service` reads the same variables",
        "anywhere.",
        "",
        "| variable | setting |",
        "|---|---|",
        *(f"| `{s.extra['env']}` | `{s.key}` |" for s in settings if "env" in s.extra),
        "",
        "## Rules between settings",
        "",
        "A deploy.yaml that breaks one is refused, or warned about where it says so.",
        "",
        "| rule | settings | reason |",
        "|---|---|---|",
    ]
    for rule in RULES:
        keys = ", ".join(f"`{key}`" for key in rule.keys)
        lines.append(f"| `{rule.name}`{' (warns)' if rule.warns else ''} | {keys} | {rule.reason} |")
    lines += [
        "",
        "## Agreements between the rendered files",
        "",
        "Read from the files themselves at every render, before anything is written.",
        "",
        "| agreement | reason |",
        "|---|---|",
        *(f"| `{agreement.name}` | {agreement.reason} |" for agreement in AGREEMENTS),
    ]
    return "\n".join(lines) + "\n"


def _row(setting: Setting) -> str:
    default = "required" if setting.default is REQUIRED else f"`{shown(setting.default)}`"
    if setting.default is None:
        default = "none"
    return f"| `{setting.key}` | {setting.expects} | {default} | {setting.description} |"


def main() -> int:
    """Write what is stale."""
    for path, text in derived().items():
        file = ROOT / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
