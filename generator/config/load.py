"""From deploy.yaml, its overlay and `--set` to one checked `Deploy`, or every fault at once.

Later sources win key by key: deploy.yaml, then deploy.<env>.yaml, then each `--set key=value` in turn.
"""

import os
from collections.abc import Iterable

import msgspec

from generator.config.check import Checked, check
from generator.config.document import Located, MappingNode, Origin, is_nothing, parse
from generator.config.project import Project
from generator.config.rule import Rule
from generator.config.rules import RULES
from generator.config.schema import Deploy
from generator.program import COMMAND
from service.declaration import Fault

# Far above any deploy.yaml; a log file named by mistake is refused before it is parsed.
MOST_BYTES = 1024 * 1024


class ConfigError(Exception):
    """The configuration cannot be used; `faults` has all that is wrong, each with its origin."""

    def __init__(self, faults: Iterable[Located]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(map(str, self.faults)))


class Loaded(msgspec.Struct, frozen=True):
    """A checked deployment; `origins` has, for every key that was given, where; `warnings` do not stop anything.

    `file` stands in `directory`; `project` is the application's, once `generator.config.sources` has looked for it.
    """

    deploy: Deploy
    origins: dict[str, Origin]
    warnings: list[Located]
    directory: str = ""
    file: str = ""
    project: Project | None = None


def load(path: str, env: str | None = None, assignments: Iterable[str] = ()) -> Loaded:
    """Load `path` (messages name it as it is written), the overlay for `env` beside it, and `key=value` assignments.

    Raises:
        ConfigError: with every fault of every source.
    """
    merged = MappingNode({}, {}, Origin(path, 1, 1))
    faults: list[Located] = []
    for source in [path] + ([overlay_path(path, env)] if env is not None else []):
        document, found = _document(source, required=source == path)
        faults += found
        merged = merge(merged, document)
    for assignment in assignments:
        document, found = _assignment(assignment)
        faults += found
        merged = merge(merged, document)
    directory, file = os.path.split(os.path.abspath(path))
    return msgspec.structs.replace(_checked(merged, faults), directory=directory, file=file)


def load_text(text: str, source: str) -> Loaded:
    """Load the text of a single deploy.yaml; `source` is the name that its faults carry.

    Raises:
        ConfigError: with every fault.
    """
    document, faults = _read(text, source, required=True)
    return _checked(document, faults)


def overlay_path(path: str, env: str) -> str:
    """`deploy.prod.yaml` for `deploy.yaml` and `prod`."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.{env}{suffix}"


def merge(base: MappingNode, over: MappingNode) -> MappingNode:
    """Both mappings as one: `over` wins key by key, sections are merged, lists are replaced."""
    values, keys = dict(base.values), dict(base.keys)
    for name, value in over.values.items():
        below = values.pop(name, None)  # a key that is given later also comes later
        if isinstance(below, MappingNode) and (isinstance(value, MappingNode) or is_nothing(value)):
            # A section that holds nothing, or comments only, says nothing about the one below.
            value = merge(below, value) if isinstance(value, MappingNode) else below
        values[name], keys[name] = value, over.keys[name]
    return MappingNode(values, keys, base.origin)


def _checked(merged: MappingNode, faults: list[Located]) -> Loaded:
    checked = check(merged, Deploy, faults)
    faults = checked.faults
    warnings: list[Located] = []
    for rule in RULES:
        for key, fault in found_by(rule, checked):
            at = Located(checked.origin_of(key, *rule.keys), key, fault)
            (warnings if rule.warns else faults).append(at)
    if faults:
        raise ConfigError(sorted(faults, key=lambda fault: fault.origin))
    return Loaded(checked.deploy, checked.origins, warnings)


def found_by(rule: Rule, checked: Checked) -> list[tuple[str, Fault]]:
    """What a rule finds; if one of its settings is wrong in itself, what it finds whatever that was meant to be."""
    findings = [list(rule.check(deploy, checked.origins)) for deploy in checked.ways(rule.keys)]
    return [each for each in findings[0] if all(each in others for others in findings)] if findings else []


def _document(path: str, required: bool) -> tuple[MappingNode, list[Located]]:
    """One file as a mapping; `required` says whether an empty one is a fault (an overlay may be empty)."""
    nothing = MappingNode({}, {}, Origin(path, 1, 1))
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        missing = isinstance(error, FileNotFoundError)
        fix = (
            f"write one with `{COMMAND} init DOMAIN`, or name another with -f"
            if required
            else "create it, or leave --env out"
        )
        fault = Fault(f"cannot be read: {reason}", fix if missing else "make it a readable file")
        return nothing, [Located(Origin(path), "", fault)]
    if len(data) > MOST_BYTES:
        fault = Fault(f"is longer than {MOST_BYTES} bytes", "name a deploy.yaml with -f")
        return nothing, [Located(Origin(path), "", fault)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8-sig")) + 1
        fault = Fault(f"holds the byte 0x{data[error.start]:02x}, which is not UTF-8", "save the file as UTF-8")
        return nothing, [Located(Origin(path, line, column), "", fault)]
    return _read(text, path, required)


def _read(text: str, source: str, required: bool) -> tuple[MappingNode, list[Located]]:
    nothing = MappingNode({}, {}, Origin(source, 1, 1))
    root, faults = parse(text, source)
    if isinstance(root, MappingNode):
        return MappingNode(root.values, root.keys, nothing.origin), faults
    if root is None or is_nothing(root):
        if required and not faults:
            faults = [Located(nothing.origin, "", Fault("is empty", "write at least `domain:` with your host name"))]
        return nothing, faults
    return nothing, [
        *faults,
        Located(root.origin, "", Fault("is not a mapping of settings", "write `key: value` lines")),
    ]


def _assignment(assignment: str) -> tuple[MappingNode, list[Located]]:
    """`ping.interval=20` as the mapping {ping: {interval: 20}}, with `--set ping.interval` as its origin."""
    key, equals, text = assignment.partition("=")
    origin = Origin(f"--set {key}")
    nothing = MappingNode({}, {}, origin)
    if not equals or not key or not all(key.split(".")):
        fault = Fault("is not key=value", "write it as --set ping.interval=20")
        return nothing, [Located(Origin(f"--set {assignment}"), "", fault)]
    if not text.lstrip().startswith(("'", '"', "[", "{")) and (" #" in text or "\n" in text):
        # YAML would take the rest for a comment, and two lines for one.
        return nothing, [Located(origin, key, Fault("holds # or a line break outside of quotes", "put it in quotes"))]
    value, faults = parse(f"{text}\n", origin.source)
    faults = [Located(origin, key, fault.fault) for fault in faults]
    if value is None:
        return nothing, faults or [Located(origin, key, Fault("has no value", "write one behind the ="))]
    *sections, name = key.split(".")
    mapping = MappingNode({name: value}, {name: origin}, origin)
    for section in reversed(sections):
        mapping = MappingNode({section: mapping}, {section: origin}, origin)
    return mapping, faults
