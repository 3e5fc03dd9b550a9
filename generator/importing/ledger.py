"""The account of an import: what each line of the old files became, and the settings that are claimed by them."""

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from generator.readers.entry import Entry

Verdict = Literal["taken over", "wrong", "replaced", "not supported", "another's"]
Said = tuple[Verdict, str]
TAKEN: Verdict = "taken over"
HEAD: Said = (TAKEN, "as the head of what is below it")
_NO_SUCH = "there is no such setting"
# What a secret stands behind: variables, and names that say what it is; and the one in a URL.
_SECRET = re.compile(
    r"(?i)((?:^|\s)(?:environment|raw_env)\s*=|[\w-]*(?:passw|secret|token|authorization|api_?key|credential)\w*[\s=:]+).*"
)
_IN_A_URL = re.compile(r"://[^\s/@]*:[^\s/@]*@")


def without_secrets(text: str) -> str:
    """A line as it may be shown: what may be a secret is left out."""
    return _SECRET.sub(r"\1...", _IN_A_URL.sub("://...@", text))


class Item(msgspec.Struct, frozen=True):
    """What became of an entry, or of a part of it, such as an option of a command. It takes `line` to `last`."""

    file: str
    line: int
    last: int
    text: str
    verdict: Verdict
    why: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


class Claim(NamedTuple):
    """A value for a setting, and the place that asks for it."""

    value: Any
    where: str


class Conflict(msgspec.Struct, frozen=True):
    """Places that ask for different values of one thing, and how it ends."""

    what: str
    claims: tuple[tuple[str, str], ...]
    end: str

    def __str__(self) -> str:
        (value, where), *others = self.claims
        there = ", ".join(f"{value} in {where}" for value, where in others)
        return f"{self.what} is {value} in {where}, and {there}; {self.end}"


class Ledger:
    """Every entry gets at least one item, and every part of it one only."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.claims: dict[str, list[Claim]] = {}
        self.conflicts: list[Conflict] = []
        self.obstacles: list[tuple[str, str]] = []
        """What `replaces` would take away with the old files and must not: where, and what."""

        self.others: list[str] = []
        """Where something of another begins in a file of the old service, which so cannot go."""

    def take(self, entry: Entry, key: str, value: Any, part: str = "") -> None:
        """Claim a setting. The first claim counts."""
        self.claims.setdefault(key, []).append(Claim(value, entry.where))
        self.add(entry, TAKEN, key, part)

    def add(self, entry: Entry, verdict: Verdict, why: str, part: str = "") -> None:
        item = Item(entry.path, entry.line, entry.last, without_secrets(part or entry.text), verdict, why)
        if item not in self.items:
            self.items.append(item)

    def refuse(self, key: str, why: str) -> None:
        """List what was taken for a setting after all: it will not do."""
        self.items = [
            msgspec.structs.replace(item, verdict="wrong", why=f"{key}: {why}")
            if item.verdict == TAKEN and (item.why == key or item.why.startswith(f"{key}."))
            else item
            for item in self.items
        ]

    def forget_others(self) -> None:
        """What a site has in common with another one, in a file that both include, is judged as its own."""
        own = {(item.file, item.line, item.text) for item in self.items if item.verdict != "another's"}
        self.items = [
            item for item in self.items if item.verdict != "another's" or (item.file, item.line, item.text) not in own
        ]

    def close(self, entries: Iterable[Entry]) -> None:
        """Nothing is silent: what nobody has judged is listed as not supported."""
        judged = {(item.file, item.line) for item in self.items}
        for entry in entries:
            if (entry.path, entry.line) not in judged:
                # In an .env it may be a line of a key.
                part = "" if entry.name or entry.context else "..."
                self.add(entry, "not supported", _NO_SUCH if entry.name else "cannot be read", part)
        order = {path: number for number, path in enumerate(dict.fromkeys(item.file for item in self.items))}
        self.items.sort(key=lambda item: (order[item.file], item.line))

    def value(self, key: str, default: Any = None) -> Any:
        """What the first claim says."""
        return self.claims[key][0].value if key in self.claims else default

    def where(self, key: str) -> str:
        return self.claims[key][0].where if key in self.claims else ""

    def compare(self, what: str, claims: Iterable[Claim], end: str = "") -> None:
        """Name a conflict, where claims differ; without an `end` the first claim counts."""
        found = list(dict.fromkeys((str(claim.value), claim.where) for claim in claims))
        if len({value for value, _ in found}) > 1:
            self.conflicts.append(Conflict(what, tuple(found), end or f"{found[0][0]} is taken"))
