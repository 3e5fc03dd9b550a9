"""The servers of an nginx configuration and where they listen, with file and line, as nginx reads them.

Source: "Configuration file's structure" in nginx's beginner's guide; ngx_http_core_module, "listen" and "server_name".
Text that is not configuration, such as the Lua of other modules, is skipped as far as its braces match.
"""

import re
import socket
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

import msgspec

from generator.paths import SHARED

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|([{};])|((?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\$\{[^}]*\}|\\.|[^\s{};])+)""", re.DOTALL
)
_MODULES = ("http", "stream", "mail")
_DEEPEST = 10
_SHARED_NAME = SHARED.rpartition("/")[2]
ONCE = ("worker_rlimit_nofile", "worker_shutdown_timeout")
"""The directives that it sets."""


class Listen(msgspec.Struct, frozen=True):
    """One address on which a server of nginx waits: a number of IPv4 or IPv6, and a port."""

    where: str
    host: str
    port: int
    options: tuple[str, ...] = ()

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_for_all(self) -> bool:
        """Whether it waits on every address of its family."""
        return self.host in ("0.0.0.0", "::")


class Server(msgspec.Struct, frozen=True):
    """A `server { }`. `where` is `FILE:LINE`; `module` is http, stream or mail; `includes` are files of its own."""

    where: str
    module: str
    listens: tuple[Listen, ...]
    names: tuple[str, ...]
    includes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.where.rpartition(":")[0]


class Directive(NamedTuple):
    """A directive, from its first line to that of its end; one that is not `whole` has neither `;` nor a block."""

    words: list[str]
    where: str
    opens: bool
    last: int
    whole: bool = True


class End(NamedTuple):
    """The closing brace of a block."""

    line: int


def servers(main: Path) -> list[Server]:
    """The servers of a configuration in the order in which nginx reads them; of files that we may read."""
    found: list[Server] = []
    context: list[str] = []
    listens: list[Listen] = []
    names: list[str] = []
    files: dict[str, None] = {}
    begins, encrypts, listens_by_default = "", False, True
    for item in _directives(main, main.parent, _DEEPEST):
        if isinstance(item, Directive) and context[1:2] == ["server"]:
            files[item.where.rpartition(":")[0]] = None
        if isinstance(item, End):
            if context[1:] == ["server"]:
                module = context[0]
                default = list(listens_of([], begins)) if module == "http" and listens_by_default else []
                options = ("ssl",) if encrypts else ()  # until nginx 1.25 that could be said of the server, too
                there = (
                    Listen(each.where, each.host, each.port, each.options + options) for each in listens or default
                )
                files.pop(begins.rpartition(":")[0], None)
                found.append(Server(begins, module, tuple(there), tuple(names), tuple(files)))
            context = context[:-1]
        elif item.opens:
            context.append(item.words[0] if item.words else "")
            if context[1:] == ["server"] and context[0] in _MODULES:
                listens, names, files, begins, encrypts, listens_by_default = [], [], {}, item.where, False, True
        elif context[1:] == ["server"] and item.words[0] == "listen":
            listens += listens_of(item.words[1:], item.where)
            listens_by_default = False
        elif context[1:] == ["server"] and item.words[0] == "server_name":
            names += (name if name.startswith("~") else name.lower() for name in item.words[1:])
        elif context[1:] == ["server"] and item.words == ["ssl", "on"]:
            encrypts = True
    return found


def places(main: Path, directive: str) -> list[str]:
    """The places of a directive, as `FILE:LINE`, in the order in which nginx reads them."""
    there = (item for item in _directives(main, main.parent, _DEEPEST) if isinstance(item, Directive))
    return [item.where for item in there if item.words[0] == directive]


def own_main_context(main: Path) -> dict[str, tuple[str, str]]:
    """Those of the directives of our shared file that the operator has set: where, and the value.

    nginx takes each once. So where one of them is there already, our file makes way, and both are the operator's.
    """
    return {
        item.words[0]: (item.where, item.words[1])
        for item in _outside_of_blocks(main)
        if item.words[0] in ONCE and len(item.words) == 2 and f"/{_SHARED_NAME}:" not in item.where
    }


def error_log(main: Path) -> Path | None:
    """Where nginx writes what concerns it as a whole; None where that is not a file."""
    for item in _outside_of_blocks(main):
        if item.words[0] == "error_log" and len(item.words) > 1:
            return Path(item.words[1]) if item.words[1].startswith("/") else None
    return Path("/var/log/nginx/error.log")  # compiled into Debian's packages


def _outside_of_blocks(main: Path) -> Iterator[Directive]:
    """The directives of the main context."""
    depth = 0
    for item in _directives(main, main.parent, _DEEPEST):
        if isinstance(item, End):
            depth -= 1
        elif item.opens:
            depth += 1
        elif depth == 0:
            yield item


def _directives(path: Path, prefix: Path, deeper: int) -> Iterator[Directive | End]:
    """The directives of a file and of those that it includes."""
    try:
        # A pipe, or a device, may have no end.
        text = path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return
    for item in statements(text, str(path)):
        if isinstance(item, End):
            yield item
        elif item.words[:1] == ["include"] and len(item.words) == 2 and not item.opens and deeper:
            for included in sorted(glob(str(prefix / item.words[1]))):
                yield from _directives(Path(included), prefix, deeper - 1)
        elif item.whole:
            yield item


def statements(text: str, path: str) -> Iterator[Directive | End]:
    """What a file says itself: its directives, `include` among them, and where its blocks end."""
    words: list[str] = []
    where, line, at = "", 1, 0
    for token in _TOKEN.finditer(text):
        line += text.count("\n", at, token.start())
        at = token.start()
        if token[2]:
            where = where if words else f"{path}:{line}"
            words.append(_unquoted(token[2]))
        elif token[1] == "}":
            yield End(line)
        elif token[1] and words:
            yield Directive(words, where, token[1] == "{", line)
            words = []
    if words:
        yield Directive(words, where, opens=False, last=line, whole=False)


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] in "\"'" and word[-1] == word[0] else word


def listens_of(words: list[str], where: str) -> Iterator[Listen]:
    """The addresses of one `listen`; a server without any listens on port 80 of IPv4."""
    address, options = (words[0], tuple(words[1:])) if words else ("80", ())
    if address.startswith("unix:") or "quic" in options or "udp" in options:
        return
    host, port = "*", address
    if not re.fullmatch(r"\d+(-\d+)?", address):
        found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+)(?:-\d+)?)?", address)
        if found is None:
            return
        host, port = found[1], found[2] or "80"
    for number in _numbers(host):
        yield Listen(where, number, int(port.partition("-")[0]), options)


def _numbers(host: str) -> list[str]:
    if host == "*":
        return ["0.0.0.0"]
    text = host.strip("[]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return [socket.inet_ntop(family, socket.inet_pton(family, text))]
        except OSError:
            continue
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(text, None)})
    except (OSError, UnicodeError):
        return []
