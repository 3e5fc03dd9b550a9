"""YAML with positions: a text becomes a tree in which every key and value knows its place.

The scalars keep their text, so that the setting that reads one decides what it may be (`service.declaration.read`).
"""

import re
from typing import TypeAlias

import msgspec
import yaml

from service.declaration import Fault, scalar, shorten

_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # without libyaml the pure parser gives the same, slower

# YAML 1.2.2, section 5.1: the characters of a stream, without the line breaks that libyaml sees and most editors do
# not: they would make settings of the rest of a comment. Not compiled here: printable text never needs it.
_UNPRINTABLE = "\r(?!\n)|[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
_DEFAULT_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}

# libyaml's composer recurses on the C stack, which ends near 25,000 levels without an exception to catch.
_OPENERS = ("[", "{", "- ", "? ", ": ")
_MOST_OPENERS = 10_000

# libyaml's words for the faults that people make, and the fix for each.
_MENDS = (
    ("mapping values are not allowed", "put a blank behind the first colon, quotes around others, and align the lines"),
    ("could not find expected ':'", "write `key: value`"),
    ("did not find expected key", "align this line with the keys above it"),
    ("did not find expected '-' indicator", "align this line with the list above it"),
    ("found unexpected end of stream", "close the quote"),
    ("did not find expected ',' or", "close the bracket, or put a comma between the values"),
    ("did not find expected node content", "put the value in quotes, or close the bracket before it"),
    ("found unexpected ':'", "put the value in quotes"),
    ("undefined alias", "put the value in quotes: a plain * starts an alias"),
    ("alphabetic or numeric character", "put the value in quotes: a plain * or & has another meaning"),
    ("another document", "keep one: remove the line `---`"),
    ("cannot start any token", "put the value in quotes"),
    ("unknown escape character", "double the backslash, or use single quotes"),
    ("YAML document", "remove the line"),
    ("directive", "remove the line"),
)
# Noticed only lines below the quote, the bracket or the word that lacks its other half.
_BEGAN_EARLIER = ("could not find expected ':'", "found unexpected end of stream", "did not find expected ',' or")


class Origin(msgspec.Struct, frozen=True, order=True):
    """A place: a file with line and column, both from 1, or a source that has no lines (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Scalar(msgspec.Struct, frozen=True):
    text: str
    quoted: bool
    origin: Origin


class ListNode(msgspec.Struct, frozen=True):
    items: tuple["Node", ...]
    origin: Origin


class MappingNode(msgspec.Struct, frozen=True):
    """`keys` has the origin of each key; `values` what it says. Both in the order of the text."""

    values: dict[str, "Node"]
    keys: dict[str, Origin]
    origin: Origin


Node: TypeAlias = Scalar | ListNode | MappingNode


def is_nothing(node: Node) -> bool:
    """Whether a value was left out: `limits:` with nothing behind it, or null."""
    return isinstance(node, Scalar) and not node.quoted and scalar(node.text) is None


class Located(msgspec.Struct, frozen=True):
    """A fault and where it is: `deploy.yaml:4:7: port: 87650 is too large; use ...`."""

    origin: Origin
    key: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.fault}" if self.key else f"{self.origin}: {self.fault}"


def parse(text: str, source: str) -> tuple[Node | None, list[Located]]:
    """The tree of one YAML document, and its faults. The tree is None where the text is empty or cannot be read.

    A `source` that is a word of the command line (it starts with `-`) has no lines.
    """
    if not text.replace("\n", "").isprintable() and (unprintable := re.search(_UNPRINTABLE, text)):
        fault = Fault(f"holds the character {unprintable[0]!a}", "remove it")
        return None, [Located(_origin_of(text, unprintable.start(), source), "", fault)]
    too_much = Fault("has too many entries, or nests them too deeply", "write it as the sample does")
    too_deep = [Located(Origin(source), "", too_much)]
    if sum(map(text.count, _OPENERS)) > _MOST_OPENERS:
        return None, too_deep
    try:
        root = yaml.compose(text, Loader=_Loader)
        builder = _Builder(source)
        return (builder.node(root, ""), builder.faults) if root else (None, [])
    except yaml.MarkedYAMLError as error:
        return None, [_syntax_fault(error, text, source)]
    except RecursionError:
        return None, too_deep


class _Builder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.faults: list[Located] = []
        self.seen: set[int] = set()

    def origin(self, node: yaml.Node) -> Origin:
        return _origin(self.source, node.start_mark.line, node.start_mark.column)

    def node(self, node: yaml.Node, key: str, at: Origin | None = None) -> Node:
        origin = self.origin(node)
        if id(node) in self.seen:
            return self.alias(node, key, at or origin)
        self.seen.add(id(node))
        if node.tag not in _DEFAULT_TAGS:
            self.faults.append(Located(origin, key, Fault(f"has the tag {node.tag}", "remove the tag")))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key, origin)
        if isinstance(node, yaml.SequenceNode):
            return ListNode(tuple(self.node(item, f"{key}[{i}]", origin) for i, item in enumerate(node.value)), origin)
        return _scalar(node, origin)

    def alias(self, node: yaml.Node, key: str, at: Origin) -> Node:
        """Refused: aliases let ten lines become a billion values, and give one value two positions."""
        self.faults.append(Located(at, key, Fault("is an alias of another value", "write it out")))
        if isinstance(node, yaml.MappingNode):
            return MappingNode({}, {}, at)
        return ListNode((), at) if isinstance(node, yaml.SequenceNode) else _scalar(node, at)

    def mapping(self, node: yaml.MappingNode, key: str, origin: Origin) -> MappingNode:
        mapping = MappingNode({}, {}, origin)
        for name_node, value_node in node.value:
            at = self.origin(name_node)
            name = name_node.value
            if not isinstance(name, str) or not name.isprintable() or not name:
                self.faults.append(Located(at, key, Fault("has a key that is not a word", "write `key: value`")))
                continue
            path = f"{key}.{name}" if key else name
            value = self.node(value_node, path, at)
            if name in mapping.keys:
                first = f", first in line {mapping.keys[name].line}" if at.line else ""
                self.faults.append(Located(at, path, Fault(f"is given twice{first}", "keep one")))
                continue
            mapping.keys[name], mapping.values[name] = at, value
        return mapping


def _scalar(node: yaml.Node, origin: Origin) -> Scalar:
    return Scalar(node.value, bool(getattr(node, "style", None)), origin)


def _origin(source: str, line: int, column: int) -> Origin:
    """`line` and `column` count from 0, as libyaml counts."""
    return Origin(source) if source.startswith("-") else Origin(source, line + 1, column + 1)


def _origin_of(text: str, offset: int, source: str) -> Origin:
    line_start = text.rfind("\n", 0, offset) + 1
    return _origin(source, text.count("\n", 0, offset), offset - line_start)


def _syntax_fault(error: yaml.MarkedYAMLError, text: str, source: str) -> Located:
    problem = (error.problem or "is not YAML").removeprefix("but ")
    mark = error.context_mark if problem.startswith(_BEGAN_EARLIER) else error.problem_mark
    mark = mark or error.problem_mark or error.context_mark
    if mark is None:
        return Located(Origin(source), "", Fault(problem, "check the file"))
    line = "".join(text.split("\n")[mark.line : mark.line + 1])
    if re.match(" *\t", line):
        origin = _origin(source, mark.line, line.index("\t"))
        return Located(origin, "", Fault("YAML does not indent with tabs", "use spaces"))
    fix = next((fix for words, fix in _MENDS if words in problem), "check the lines above and this one")
    shown = f" at {shorten(line.strip())}" if line.strip() else ""
    return Located(_origin(source, mark.line, mark.column), "", Fault(f"{problem}{shown}", fix))
