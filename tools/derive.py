"""Derive deploy.yaml, deploy.schema.json and docs/settings.md from the declarations: `make docs`."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from generator.config.rules import RULES
from generator.config.schema import ESSENTIAL, Deploy
from generator.explain import shown
from generator.rendering.agreement import AGREEMENTS
from service.declaration import REQUIRED, Setting, settings_of

ROOT = Path(__file__).parent.parent
SCHEMA = "deploy.schema.json"
_SAMPLE_DOMAIN = "ws.example.com"
_WIDTH = 100


def derived() -> dict[str, str]:
    """The derived files by path, relative to the project."""
    return {"deploy.yaml": sample(), SCHEMA: schema(), "docs/settings.md": settings_page()}


def sample() -> str:
    """deploy.yaml: the essential settings live, all others commented at their defaults."""
    settings = list(settings_of(Deploy))
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        "# One deployment of the notification center. `make check` checks this file, `make render` renders it;",
        "# `wsbundle explain KEY` says more about each setting, and docs/settings.md has them all.",
        "",
    ]
    names = dict.fromkeys(_top(setting) for setting in settings)
    for name in ESSENTIAL:
        lines += _block(name, [setting for setting in settings if _top(setting) == name], live=True)
    lines += [
        "# All that follows is optional, and stands here at its default, or with an example where there is none.",
        "# Take the # away from a line, and from the section above it, to change it.",
        "",
    ]
    for name in names:
        if name not in ESSENTIAL:
            lines += _block(name, [setting for setting in settings if _top(setting) == name], live=False)
    return "\n".join(lines[:-1]) + "\n"


def _top(setting: Setting) -> str:
    return setting.key.partition(".")[0]


def _block(name: str, settings: list[Setting], live: bool) -> list[str]:
    """The lines of one top-level key, and an empty one."""
    mark = "" if live else "#"
    if settings[0].key == name:
        (setting,) = settings
        return [*_words(setting, ""), f"{mark}{name}: {_sample_value(setting)}", ""]
    lines = [f"{name}:"]
    for setting in settings:
        lines += [*_words(setting, "  "), f"  {setting.key.partition('.')[2]}: {_sample_value(setting)}"]
    return [*(mark + line for line in lines), ""]


def _words(setting: Setting, indent: str) -> list[str]:
    unit = f" In {setting.extra['unit']}." if "unit" in setting.extra else ""
    text = setting.description + unit
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _sample_value(setting: Setting) -> str:
    if setting.key == "domain":
        return _SAMPLE_DOMAIN
    if setting.default is None:
        return str(setting.extra["example"])
    if isinstance(setting.default, str) and setting.choices == () and " " in setting.default:
        return json.dumps(setting.default, ensure_ascii=False)
    return shown(setting.default)


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
    settings = list(settings_of(Deploy))
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
