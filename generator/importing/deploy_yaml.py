"""The text of an imported deploy.yaml: what differs from the defaults, and for each setting where it comes from."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from generator.config.load import ConfigError, load_text
from generator.explain import SETTINGS
from generator.quoting import yaml
from generator.report import printable, wrapped

_WIDTH = 100
# In the order in which an operator reads them.
_FIRST = ("domain", "name", "socket", "workers", "server", "manager", "tls", "replaces")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*(:\w[A-Za-z0-9_.]*)?|\d+(\.\d+){3}(/\d+)?")
_NOT_TEXT = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


class Value(NamedTuple):
    """What a setting is to be, and why."""

    value: Any
    comment: str = ""


def text_of(values: Mapping[str, Value], files: Iterable[str]) -> str:
    """The file. A setting at its default is left out, but for those without which it says little."""
    lines = [
        "# Imported from what was set up by hand:",
        *(f"#   {printable(file)}" for file in files),
        "# Only what differs from the defaults is here: `wsbundle show` prints all settings, and",
        "# `wsbundle explain KEY` explains one.",
        "",
    ]
    told = {key: each for key, each in values.items() if not _is_default(key, each.value)}
    heads = [*_FIRST, *dict.fromkeys(key.partition(".")[0] for key in told)]
    section = ""
    for key in sorted(told, key=lambda key: ("." in key, heads.index(key.partition(".")[0]))):
        value, comment = told[key]
        head, dot, name = key.partition(".")
        if dot and head != section:
            lines += ["", f"{head}:"]
        section = head if dot else ""
        indent = "  " if dot else ""
        lines += wrapped(printable(comment), _WIDTH, f"{indent}# ") if comment else []
        lines += [f"{indent}{line}" for line in _lines(name if dot else key, value)]
    return "\n".join(lines) + "\n"


def free_name(candidates: Iterable[str], is_taken: Callable[[str], bool]) -> str:
    """The first name that a deployment may have, and nobody else has."""
    for candidate in candidates:
        name = re.sub(r"[^a-z0-9]+", "-", candidate.lower()).strip("-")[:30].strip("-")
        if not is_taken(name) and _will_do(name):
            return name
    raise AssertionError("the candidates never end")


def _will_do(name: str) -> bool:
    try:
        load_text(f"domain: localhost\nname: {yaml(name)}\n", "name")
    except ConfigError:
        return False
    return True


def _is_default(key: str, value: Any) -> bool:
    setting = SETTINGS.get(key)
    return setting is not None and setting.default == value


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}:", *(f"  {_scalar(name)}: {_scalar(each)}" for name, each in value.items())]
    if isinstance(value, list | tuple):
        return [f"{key}: [{', '.join(map(_scalar, value))}]"]
    return [f"{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT
    # What is no text on one line is read as it is, and then refused by its place.
    return value if is_plain else str(yaml(value)) if value.isprintable() else json.dumps(value)
