"""The command that starts the old service: which server, which application, and its options one by one."""

import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import msgspec

Server = Literal["uvicorn", "gunicorn", "standalone"]

# What the notification center was started by: the callables of its modules, and its scripts.
_CENTER = re.compile(r"(?:.*\.)?(?:web\.server|service\.(?:app|server)):app")
_CENTER_SCRIPT = re.compile(r"(?:.*/)?(?:web|service)/server\.py|service(?:\.server)?|web\.server")
_CENTERS_DIRECTORY = re.compile(r".*/(?:web|service)/?")
# Those that take no value.
_FLAGS = {
    *("--reload", "--proxy-headers", "--no-proxy-headers", "--access-log", "--no-access-log", "--factory"),
    *("--use-colors", "--no-use-colors", "--server-header", "--no-server-header", "--date-header", "--no-date-header"),
    *("--reset-contextvars", "--version", "--help", "-D", "--daemon", "-R", "--preload", "--check-config"),
    *("--print-config", "--capture-output", "--enable-stdio-inheritance", "--no-sendfile", "--reuse-port", "--spew"),
    *("--no-control-socket", "--initgroups", "--suppress-ragged-eofs", "--do-handshake-on-connect"),
    *("--strip-header-spaces", "--disable-redirect-access-to-syslog", "-v", "-h"),
}
_SHELLS = ("sh", "bash", "dash")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_OF_SUPERVISOR = re.compile(r"%\((\w+)\)[sd]")


class Start(msgspec.Struct, frozen=True):
    """A command, taken apart. `target` is `module:attribute`, a script, or nothing where gunicorn.conf.py names it.

    `options` are names as they are written, and values; `used` the variables that were put in.
    """

    server: Server
    target: str
    options: tuple[tuple[str, str], ...]
    used: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    """The variables that are not set anywhere."""
    directory: str = ""
    """Where a shell or an option goes before the application is imported; nothing where neither says it."""

    def is_center(self, directory: str) -> bool:
        """Whether it starts the notification center, in this directory."""
        if self.server == "standalone":
            return bool(_CENTER_SCRIPT.fullmatch(self.target)) or self._is_beside(directory, "server.py")
        return bool(_CENTER.fullmatch(self.target)) or self._is_beside(directory, "server:app")

    def _is_beside(self, directory: str, target: str) -> bool:
        return self.target == target and bool(_CENTERS_DIRECTORY.fullmatch(directory))


def start_of(command: str, variables: Mapping[str, str]) -> Start | None:
    """What a command of a unit or a program starts; None where that is no server of ASGI applications.

    Variables are put in as systemd and supervisor do. Source: systemd.service(5), "Command lines".
    """
    used: set[str] = set()
    missing: set[str] = set()

    def put_in(found: re.Match[str]) -> str:
        name = next(filter(None, found.groups()), "")
        name = name.removeprefix("ENV_") if found.re is _OF_SUPERVISOR else name
        (used if name in variables else missing).add(name)
        return variables.get(name, found[0])

    text = _OF_SUPERVISOR.sub(put_in, _VARIABLE.sub(put_in, command.lstrip("-@:+!|"))).replace("%%", "%")
    try:
        words, directory = _unwrapped(shlex.split(text))
    except ValueError:
        return None
    found = _server(words)
    if found is None:
        return None
    server, rest = found
    target, options = _taken_apart(rest)
    gone = [value for name, value in options if name in ("--chdir", "--app-dir")]
    return Start(server, target, options, frozenset(used), frozenset(missing), gone[-1] if gone else directory)


def options_in(words: str) -> tuple[tuple[str, str], ...]:
    """Those of GUNICORN_CMD_ARGS."""
    try:
        return _taken_apart(shlex.split(words))[1]
    except ValueError:
        return ()


def _unwrapped(words: list[str]) -> tuple[list[str], str]:
    """Without env(1), and the last command of a shell; and where that has gone before it.

    Raises:
        ValueError: a quote is not closed.
    """
    directory = ""
    while words:
        name = words[0].rpartition("/")[2]
        if name in _SHELLS and len(words) > 2 and re.fullmatch(r"-\w*c", words[1]):
            words = shlex.split(words[2].replace("&&", " ; ").replace(";", " ; "))
            ends = [number for number, word in enumerate(words[:-1]) if word == ";"]
            gone = [after for before, after in pairwise(words) if before == "cd"]
            directory = gone[-1] if gone else directory
            words = words[ends[-1] + 1 :] if ends else words
        elif name in ("env", "exec", "nice", "time") or re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
            words = words[3:] if words[1:2] == ["-n"] else words[1:]
        else:
            break
    return words, directory


def _server(words: list[str]) -> tuple[Server, list[str]] | None:
    """Which server, and the words behind it; with `standalone` the script is the first of them."""
    name = words[0].rpartition("/")[2] if words else ""
    if name in ("uvicorn", "gunicorn"):
        return ("uvicorn" if name == "uvicorn" else "gunicorn"), words[1:]
    if not re.fullmatch(r"python[\d.]*", name):
        return None
    rest = words[1:]
    while rest and rest[0] in ("-u", "-O", "-OO", "-B", "-I", "-s", "-E"):
        rest = rest[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        if rest[1] in ("uvicorn", "gunicorn"):
            return ("uvicorn" if rest[1] == "uvicorn" else "gunicorn"), rest[2:]
        rest = rest[1:]
    is_center = bool(rest) and (_CENTER_SCRIPT.fullmatch(rest[0]) or rest[0] == "server.py")
    return ("standalone", rest) if is_center else None


def _taken_apart(words: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The first word that is no option, and the options; further words are options without a name."""
    target, options, rest = "", list[tuple[str, str]](), list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            if target:
                options.append(("", word))
            target = target or word
            continue
        name, equals, value = word.partition("=")
        if not equals and re.fullmatch(r"-[a-zA-Z].+", word):  # -w4
            name, equals, value = word[:2], "=", word[2:]
        if not equals and name not in _FLAGS and rest:
            value = rest.pop(0)
        options.append((name, value))
    return target, tuple(options)
