"""The variables of the old service: where they were given, and what became of them."""

import shlex
from collections.abc import Iterable
from typing import Any

import msgspec

from generator.config.schema import VariableName
from generator.importing.ledger import Ledger, Verdict
from generator.importing.options import claim, judge, name_of
from generator.importing.starts import Start, options_in
from generator.readers.entry import Entry

_ITS_OWN = ("PYTHON", "LD_", "LISTEN_", "NOTIFY_", "WATCHDOG_", "XDG_", "VIRTUAL_ENV")
_EXACTLY = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "IFS", "TERM")
# The old guide's, which only its own start command reads, and what they would mean now.
_GUIDES = {"LOG_LEVEL": "log.level", "WORKERS": "workers", "WEBSOCKET_HOST": "host", "WEBSOCKET_PORT": "port"}


class Variable(msgspec.Struct, frozen=True):
    name: str
    value: str
    entry: Entry


def assignments(entry: Entry) -> list[Variable]:
    """Those of one `Environment=`, which may have several in quotes."""
    try:
        words = shlex.split(entry.value)
    except ValueError:
        return []
    found = [word.partition("=") for word in words]
    return [Variable(name, value.replace("%%", "%"), entry) for name, equals, value in found if equals]


def of_supervisor(entry: Entry) -> list[Variable]:
    """Those of `environment=`: names and values in quotes, with commas between. Source: supervisor.datatypes."""
    lexer = shlex.shlex(entry.value, posix=True)
    lexer.wordchars += "/.+-():%@{}$*?!&^~[]|<>"
    lexer.whitespace_split = False
    try:
        words = list(lexer)
    except ValueError:
        return []
    found = []
    for name, equals, value in zip(words, words[1:], words[2:], strict=False):
        if equals == "=" and name not in ("=", ","):
            found.append(Variable(name, "" if value == "," else value.replace("%%", "%"), entry))
    return found


def in_file(entries: Iterable[Entry]) -> list[Variable]:
    """Those of an .env."""
    return [Variable(entry.name, entry.value, entry) for entry in entries if entry.name]


def judge_variables(ledger: Ledger, variables: Iterable[Variable], start: Start | None, is_center: bool) -> None:
    """Say what becomes of each. Of one that is given twice the last counts, as for systemd."""
    given = list(variables)
    last = {variable.name: variable for variable in given}
    for variable in given:
        # The value may be a secret, and this is shown.
        part = f"{variable.name}=..."
        if last[variable.name] is not variable:
            ledger.add(variable.entry, "wrong", f"given again in {last[variable.name].entry.where}, which counts", part)
        else:
            _judge(ledger, variable, start, is_center, part)


def _judge(ledger: Ledger, variable: Variable, start: Start | None, is_center: bool, part: str) -> None:
    name, value, entry = variable.name, variable.value, variable.entry
    if start is not None and name in start.used:
        ledger.add(entry, "taken over", "put into the command that starts it", part)
    elif name == "WEB_CONCURRENCY":
        claim(ledger, entry, "workers", value, part)
    elif name == "GUNICORN_CMD_ARGS" or name.startswith("UVICORN_"):
        _judge_options(ledger, variable, part)
    elif name in _EXACTLY or name.startswith(_ITS_OWN):
        ledger.add(entry, "replaced", "the service runs in an environment of its own", part)
    elif is_center:
        ledger.add(entry, *_of_the_center(name), part)
    elif name in ("LOG_LEVEL", "WORKERS"):
        claim(ledger, entry, _GUIDES[name], value, part)
    elif name.startswith("WEBSOCKET_"):
        ledger.add(entry, "not supported", "variables of that name are those of wsbundle's own settings", part)
    elif is_a(name, VariableName):
        ledger.take(entry, f"env.{name}", value, part)
    else:
        ledger.add(entry, "wrong", "is not the name of a variable", part)


def _judge_options(ledger: Ledger, variable: Variable, part: str) -> None:
    """Variables that are options."""
    if variable.name == "GUNICORN_CMD_ARGS":
        for option, text in options_in(variable.value):
            name = name_of("gunicorn", option)
            judge(ledger, variable.entry, "gunicorn", name, text, f"{option} {text}".strip())
    else:
        name = variable.name.removeprefix("UVICORN_").lower().replace("_", "-")
        judge(ledger, variable.entry, "uvicorn", name, variable.value, part)


def _of_the_center(name: str) -> tuple[Verdict, str]:
    if name in _GUIDES:
        return "wrong", f"nothing reads it; write `{_GUIDES[name]}` if it was meant"
    return "not supported", "the notification center reads no such variable"


def is_a(text: str, kind: Any) -> bool:
    """Whether a text fits a type of the declaration."""
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True
