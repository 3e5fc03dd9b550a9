"""The old files as text: what each is, and what it says; all that cannot be read is reported at once."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
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


def read_source(path: str, kind: Kind | None = None) -> Source:
    """Read a file. What it is follows from its name and text, unless `kind` says it.

    Raises:
        BadSource: it cannot be read, or it is something else.
    """
    text = _text(path)
    is_known, kind = kind is not None, kind or _kind_of(path, text)
    if kind is None:
        what = "is neither a unit, nor a supervisor program, an nginx site, a gunicorn.conf.py or an .env"
        raise BadSource(path, Fault(what, "name one of these"))
    try:
        entries = tuple(_READERS[kind](text, path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else path
        raise BadSource(where, Fault(f"is not Python: {error.msg}", "fix that line")) from None
    except (RecursionError, MemoryError, ValueError):
        raise BadSource(path, Fault("is too deep, or has a number that is too long", "write it otherwise")) from None
    if not entries and not is_known:
        raise BadSource(path, Fault("says nothing: it is empty, or comments only", "leave it out"))
    return Source(path, kind, entries)


def read_all(
    paths: Iterable[str], kind_of: Callable[[str], Kind | None] = lambda path: None
) -> tuple[list[Source], list[BadSource]]:
    """Each file once, of the kind that is said or else seen; and those that cannot be read."""
    sources, faults = [], []
    for path in dict.fromkeys(paths):
        try:
            sources.append(read_source(path, kind_of(path)))
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
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"holds the byte 0x{data[error.start]:02x}, which is not UTF-8"
        raise BadSource(f"{path}:{line}", Fault(what, "save the file as UTF-8")) from None


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


def _site(text: str, path: str) -> Iterator[Entry]:
    """The directives of nginx, with the blocks that they are in.

    Raises:
        BadSource: a brace or a semicolon is missing.
    """
    context: list[tuple[str, int]] = []
    for item in statements(text, path):
        if isinstance(item, End):
            if not context:
                raise BadSource(f"{path}:{item.line}", Fault("has a } that closes nothing", "remove it"))
            context.pop()
            continue
        line = int(item.where.rpartition(":")[2])
        if not item.whole:
            what = f"{item.words[0]} has no ; at its end"
            raise BadSource(item.where, Fault(what, "write one: `nginx -t` says where"))
        value = " ".join(item.words[1:])
        said = " ".join(item.words) + (" {" if item.opens else ";")
        blocks = tuple(f"{words}#{number}" for words, number in context)
        yield Entry(path, line, item.last, blocks, item.words[0], value, said)
        if item.opens:
            context.append((" ".join(item.words), line))
    if context:
        words, number = context[-1]
        raise BadSource(f"{path}:{number}", Fault(f"{words} {{ is never closed", "write the missing }"))


_READERS: dict[Kind, Callable[[str, str], Iterator[Entry]]] = {
    "unit": systemd.entries,
    "program": supervisor.entries,
    "site": _site,
    "gunicorn": gunicorn.entries,
    "environment": shell.entries,
}
