"""The old files as text: what each is, and what it says; all that cannot be read is reported at once."""

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Literal

import msgspec

from generator.readers import gunicorn, shell, supervisor, systemd
from generator.readers.entry import Entry
from generator.readers.nginx_sites import End, statements
from service.declaration import Fault

Kind = Literal["unit", "program", "site", "gunicorn", "environment"]
_MOST_BYTES = 1024 * 1024
_FIXES: dict[type[Exception], str] = {
    FileNotFoundError: "name a file that is there",
    PermissionError: "run it with sudo",
    IsADirectoryError: "name the file in it",
}


class Source(msgspec.Struct, frozen=True):
    """A file of the old deployment."""

    path: str
    kind: Kind
    entries: tuple[Entry, ...]


class BadSource(Exception):
    """A file that cannot be read: where, and why."""

    def __init__(self, where: str, fault: Fault) -> None:
        self.where = where
        self.fault = fault
        super().__init__(f"{where}: {fault}")


Finder = Callable[[str], list[str] | None]
"""The files that an `include` of nginx means, by its pattern; None where that cannot be known."""
INCLUDED = "included"
"""The name of an `include` whose files were read: what they say follows it."""
_DEEPEST = 10


def read_source(path: str, kind: Kind | None = None, included: Finder = lambda pattern: None) -> Source:
    """Read a file. What it is follows from its name and text, unless `kind` says it.

    Raises:
        BadSource: it cannot be read, or it is something else.
    """
    text = _text(path)
    is_known, kind = kind is not None, kind or _kind_of(path, text)
    if kind is None:
        what = "is neither a unit, nor a supervisor program, an nginx site, a gunicorn.conf.py or an .env"
        raise BadSource(path, Fault(what, "name one of these"))
    if kind == "gunicorn":
        _must_be_utf8(path, text)  # Python reads its comments, too
    try:
        entries = tuple(_site(text, path, included) if kind == "site" else _READERS[kind](text, path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else path
        raise BadSource(where, Fault(f"is not Python: {error.msg}", "fix that line")) from None
    except (RecursionError, MemoryError, ValueError):
        raise BadSource(path, Fault("is too deep, or has a number that is too long", "write it otherwise")) from None
    for entry in entries:
        _must_be_utf8(entry.path, f"{entry.text} {entry.value}", entry.line)
    if not entries and not is_known:
        raise BadSource(path, Fault("says nothing: it is empty, or comments only", "leave it out"))
    return Source(path, kind, entries)


def read_named(paths: Iterable[str]) -> tuple[list[Source], list[BadSource]]:
    """Files as they were named; what one of them includes is another one of that name, and is read in its place."""
    named, included = list(dict.fromkeys(paths)), set[str]()

    def find(pattern: str) -> list[str] | None:
        found = [path for path in named if fnmatch(PurePath(path).name, PurePath(pattern).name)]
        included.update(found)
        return found or None

    sources, faults = read_all(named, included=find)
    return [each for each in sources if each.path not in included], [
        each for each in faults if each.where.partition(":")[0] not in included
    ]


def read_all(
    paths: Iterable[str],
    kind_of: Callable[[str], Kind | None] = lambda path: None,
    included: Finder = lambda pattern: None,
) -> tuple[list[Source], list[BadSource]]:
    """Each file once, of the kind that is said or else seen; and those that cannot be read."""
    sources, faults = [], []
    for path in dict.fromkeys(paths):
        try:
            sources.append(read_source(path, kind_of(path), included))
        except BadSource as fault:
            faults.append(fault)
    return sources, faults


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise BadSource(path, Fault(what, _FIXES.get(type(error), "make it a readable file"))) from None
    if len(data) > _MOST_BYTES:
        raise BadSource(path, Fault(f"is longer than {_MOST_BYTES} bytes", "name a configuration file"))
    if b"\0" in data:
        raise BadSource(path, Fault("is not text", "name a configuration file"))
    # A comment may be in Latin-1: of nginx, systemd and supervisor nobody reads it.
    return data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")


def _must_be_utf8(path: str, text: str, line: int = 1) -> None:
    found = re.search("[\udc80-\udcff]", text)
    if found:
        what = f"holds the byte 0x{ord(found[0]) - 0xDC00:02x}, which is not UTF-8"
        where = f"{path}:{line + text.count(chr(10), 0, found.start())}"
        raise BadSource(where, Fault(what, "save the file as UTF-8"))


def _kind_of(path: str, text: str) -> Kind | None:
    name = Path(path).name
    if name.endswith(".py"):
        return "gunicorn"
    if name.endswith((".service", ".socket")):
        return "unit"
    if re.search(r"(?m)^\s*\[(program|supervisord|group|fcgi-program|eventlistener|unix_http_server)[:\]]", text):
        return "program"
    if re.search(r"(?m)^\s*\[(Unit|Service|Socket|Install)\]\s*$", text):
        return "unit"
    if re.search(r"(?m)^[^#\n]*\b(server|upstream|location|map|http)\b[^;\n]*\{", text):
        return "site"
    if re.search(r"(?m)^[^#\n]*(server_name|proxy_pass|listen)\s[^;]*;", text):
        return "site"
    # One that says nothing is one as well, and reported for that.
    return "environment" if all(entry.name for entry in shell.entries(text, path)) else None


def _site(
    text: str, path: str, included: Finder, around: tuple[str, ...] = (), deeper: int = _DEEPEST
) -> Iterator[Entry]:
    """The directives of nginx, with the blocks that they are in, and those of the files that it includes.

    Raises:
        BadSource: a brace or a semicolon is missing.
    """
    heads: list[Entry] = []
    for item in statements(text, path):
        if isinstance(item, End):
            if not heads:
                raise BadSource(f"{path}:{item.line}", Fault("has a } that closes nothing", "remove it"))
            heads.pop()
            continue
        line = int(item.where.rpartition(":")[2])
        if not item.whole:
            what = f"{item.words[0]} has no ; at its end"
            raise BadSource(item.where, Fault(what, "write one: `nginx -t` says where"))
        value = " ".join(item.words[1:])
        said = " ".join(item.words) + (" {" if item.opens else ";")
        context = heads[-1].within if heads else around
        entry = Entry(path, line, item.last, context, item.words[0], value, said)
        if item.opens:
            heads.append(entry)
        there = _texts(included(value)) if entry.name == "include" and deeper else None
        yield entry if there is None else entry._replace(name=INCLUDED)
        for other, content in (there or {}).items():
            yield from _site(content, other, included, context, deeper - 1)
    if heads:
        words = heads[-1].text.removesuffix(" {")
        raise BadSource(heads[-1].where, Fault(f"{words} {{ is never closed", "write the missing }"))


def _texts(paths: list[str] | None) -> dict[str, str] | None:
    """Files with what they say; None where one cannot be read."""
    try:
        return None if paths is None else {path: _text(path) for path in paths}
    except BadSource:
        return None


_READERS: dict[str, Callable[[str, str], Iterator[Entry]]] = {
    "unit": systemd.entries,
    "program": supervisor.entries,
    "gunicorn": gunicorn.entries,
    "environment": shell.entries,
}
