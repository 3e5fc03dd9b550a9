"""What became of a gunicorn.conf.py, line by line. It is read as data: what is computed in it is computed here, or not
at all.
"""

import ast
from collections.abc import Mapping
from typing import Any

from generator.importing.ledger import Ledger
from generator.importing.options import claim_address, is_gunicorns, judge
from generator.importing.sources import Source
from generator.readers.entry import Entry

_PER_CPU = "cpu_count()"
# Of any setting; Python refuses to write numbers of thousands of digits.
_TOO_MUCH = 2**63


class NotData(Exception):
    """An expression that only running it could compute."""


def judge_file(ledger: Ledger, source: Source, variables: Mapping[str, str]) -> None:
    """Say what becomes of each line; `variables` are those of the service's environment."""
    known: dict[str, Any] = {}
    used = {node.id for entry in source.entries for node in _names_in(entry)}
    for entry in source.entries:
        if entry.name:
            _judge(ledger, entry, known, variables, used)
        elif entry.context[:1] in (("Import",), ("ImportFrom",)):
            ledger.add(entry, "replaced", "nothing of the file is run")
        elif entry.context[:1] in (("FunctionDef",), ("AsyncFunctionDef",)):
            ledger.add(entry, "not supported", "hooks of gunicorn's are not run")
        else:
            ledger.add(entry, "not supported", "only plain assignments can be read without running the file")


def worker_class_in(source: Source) -> str:
    """The worker that the file asks for; nothing where it does not say."""
    return next((entry.value.strip("'\"") for entry in source.entries if entry.name == "worker_class"), "")


def _names_in(entry: Entry) -> list[ast.Name]:
    """The names that the value of an assignment uses."""
    tree = ast.parse(entry.value if entry.name else "")
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _judge(ledger: Ledger, entry: Entry, known: dict[str, Any], variables: Mapping[str, str], used: set[str]) -> None:
    name = entry.name
    if name == "workers" and _PER_CPU in entry.value:
        ledger.take(entry, "workers", "auto")
        return
    try:
        value = _value(ast.parse(entry.value, mode="eval").body, known, variables)
    except NotData:
        ledger.add(entry, "not supported", "is computed when gunicorn starts")
        return
    known[name] = value
    if name in used and not is_gunicorns(name):
        ledger.add(entry, "taken over", "as a name for what is below it")
    elif name == "bind":
        for each in value if isinstance(value, list | tuple) else [value]:
            claim_address(ledger, entry, str(each), f"bind = {each!r}" if isinstance(value, list) else "")
    elif name == "wsgi_app":
        ledger.add(entry, "taken over", "as the application")
    elif name == "chdir":
        ledger.add(entry, "replaced", "code and environment are below /opt")
    else:
        judge(ledger, entry, "gunicorn", name, str(value))


def _value(node: ast.expr, known: Mapping[str, Any], variables: Mapping[str, str]) -> Any:
    """What an expression is, of constants, names before it, and variables of the environment.

    Raises:
        NotData: it takes more than that.
    """

    def inside(part: ast.expr) -> Any:
        return _value(part, known, variables)

    match node:
        case ast.Constant() if not isinstance(node.value, int) or node.value < _TOO_MUCH:
            return node.value
        case ast.Name() if node.id in known:
            return known[node.id]
        case ast.List() | ast.Tuple():
            return [inside(each) for each in node.elts]
        case ast.JoinedStr():
            return "".join(str(inside(_put_in(part))) for part in node.values)
        case ast.Call(func=ast.Name(id="int" | "str"), args=[argument]):
            return inside(argument)  # as text it is the same
        case ast.Call(func=function, args=[ast.Constant(value=str() as name), *default]) if _reads(function):
            return variables[name] if name in variables else inside(default[0]) if default else None
    raise NotData


def _put_in(part: ast.expr) -> ast.expr:
    """What stands in the braces of an f-string."""
    return part.value if isinstance(part, ast.FormattedValue) else part


def _reads(function: ast.expr) -> bool:
    return ast.unparse(function) in ("os.environ.get", "os.getenv", "getenv", "environ.get")
