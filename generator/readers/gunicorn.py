"""gunicorn's own settings and their validators, on gunicorn.conf.py, without the application.

`gunicorn --check-config` would need the application, and says 0 to a misspelt setting.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from generator.paths import Paths
from generator.readers.entry import Entry, on_one_line
from generator.readers.processes import Call, Running, stand_in_for
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle

SETTINGS = Subject("gunicorn", "gunicorn settings")

# gunicorn.config imports them, and takes a third of its time for it: plugins, dates and a command line.
_NOT_NEEDED = ("importlib.metadata", "email.utils", "argparse")


class _Complaint(msgspec.Struct):
    name: str
    message: str


def settings(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """Every name in gunicorn.conf.py is a setting, and every value one that its validator takes."""
    file = next((file for file in bundle.files if file.path == Paths(bundle.name).gunicorn), None)
    if not file:
        return []
    try:
        compile(file.text, file.path, "exec")
    except (SyntaxError, ValueError) as error:
        return [SETTINGS.judged([Fault(file.path, getattr(error, "lineno", None), f"is not Python: {error}")])]
    if not find_spec("gunicorn"):
        return [SETTINGS.not_installed()]
    outcome = yield Call(lambda: _complaints(file.text, _NOT_NEEDED))
    if outcome.status or outcome.output != "[]":
        outcome = yield Call(lambda: _complaints(file.text, ()))
    if outcome.failure:
        return [SETTINGS.not_checked(f"gunicorn {outcome.failure}")]
    if outcome.status:
        return [SETTINGS.judged([Fault(file.path, None, outcome.output)])]
    complaints = msgspec.json.decode(outcome.output, type=list[_Complaint])
    lines = _lines(file.text) if complaints else {}
    return [
        SETTINGS.judged([Fault(file.path, lines[each.name], each.message) for each in complaints if each.name in lines])
    ]


def entries(text: str, path: str) -> Iterator[Entry]:
    """What a gunicorn.conf.py says, read as data: nothing of it is run. What is no assignment has no name.

    Raises:
        SyntaxError, ValueError: it is not Python.
    """
    import ast  # only who reads a file that is not ours pays for it

    lines = text.split("\n")
    for statement in ast.parse(text).body:
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        source = on_one_line("\n".join(lines[first - 1 : last]))
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""
        value = getattr(statement, "value", None) if name and not isinstance(statement, ast.For) else None
        if value is None:
            yield Entry(path, first, last, (type(statement).__name__,), "", source, source)
        else:
            yield Entry(path, first, last, (), name, ast.unparse(value), source)


def _lines(text: str) -> dict[str, int]:
    """Where the file defines each name; not what it imports, which gunicorn rightly ignores."""
    import ast  # only a fault pays for it

    lines: dict[str, int] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.FunctionDef):
            lines[statement.name] = statement.lineno
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                lines[node.id] = node.lineno
    return lines


def _complaints(text: str, not_needed: Sequence[str]) -> str:
    """In a fork: run the file and hand gunicorn what it defines. A list of `_Complaint` as JSON."""
    stand_in_for(not_needed)
    library: Any = import_module("gunicorn.config")
    values: dict[str, Any] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), values)
    known = {setting.name for setting in library.KNOWN_SETTINGS}
    config = library.Config()
    complaints = []
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if name not in known:
            complaints.append(_Complaint(name, f"{name} is not a setting of gunicorn, which would ignore it"))
            continue
        try:
            config.set(name, value)
        except Exception as error:
            complaints.append(_Complaint(name, f"{name}: {error}"))
    return msgspec.json.encode(complaints).decode()
