"""supervisor's own parser, and the check for unknown options that it lacks: `stopwaitsec=40` it ignores."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from generator.readers.entry import Entry, on_one_line
from generator.readers.processes import Call, Running, stand_in_for
from generator.readers.systemd import users_of
from generator.readers.tree import files_in, put
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle, File

PROGRAM = Subject("supervisor", "supervisor program")

# Where Debian and Ubuntu install it: the one that will run the program, so it goes before one of ours.
DISTRIBUTION = Path("/usr/lib/python3/dist-packages")
# supervisor.options imports them, and takes most of its time for it: plugins and remote control.
_NOT_NEEDED = (
    "http.client",
    "importlib.metadata",
    "pkg_resources",
    "supervisor.http",
    "supervisor.xmlrpc",
    "xmlrpc.client",
)

_MAIN = "[supervisord]\n[include]\nfiles = etc/supervisor/conf.d/*.conf\n"
_SECTION = re.compile(r"\[(?P<name>[^\]]*)\]")
_OPTION = re.compile(r"(?P<name>[^\s;#\[=:][^=:]*?)\s*[=:]")
_COMMENT = re.compile(r"\s*[;#]")
_NAMED = r"for '(?:[\w:-]+\.)?(\w+)'"
_CONTEXT = r" in section '[^']*' \(file: '[^']*'\)$"


class Reading(msgspec.Struct):
    """How supervisor read a file: its complaint, the options it asked for, in their order, and the commands."""

    error: str | None
    asked: list[str]
    commands: list[str]


def program(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`ServerOptions.realize`, which supervisord itself starts with."""
    files = files_in(bundle, "etc/supervisor/conf.d", ".conf")
    if not files:
        return []
    if not (where := _installed()):
        return [PROGRAM.not_installed()]
    faults = [fault for file in files for fault in _sections_and_repeats(file)]
    main = put(root, "supervisord.conf", _MAIN)
    for file in files:
        put(root, file.path, file.text)
    users = users_of(bundle)
    outcome = yield Call(lambda: _realize(main, users, where, _NOT_NEEDED))
    if outcome.status or '"error":null' not in outcome.output:
        outcome = yield Call(lambda: _realize(main, users, where, ()))
    if outcome.failure or outcome.status:
        return [PROGRAM.not_checked(f"supervisor {outcome.failure or 'failed: ' + outcome.output}")]
    reading = msgspec.json.decode(outcome.output, type=Reading)
    if reading.error is not None:
        faults.append(_refused(reading, files))
    else:
        faults += [fault for file in files for fault in _unknown(file, reading.asked)]
        faults += [_bad_command(command, files) for command in reading.commands if not _splits(command)]
    return [PROGRAM.judged(faults)]


def _installed() -> Path | None:
    """The directory to import supervisor from."""
    if (DISTRIBUTION / "supervisor").is_dir():
        return DISTRIBUTION
    spec = find_spec("supervisor")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _realize(main: Path, users: set[str], where: Path, not_needed: Sequence[str]) -> str:
    """In a fork: let supervisor read, on a machine that need not have the deployment's users and directories.

    A `Reading` as JSON.
    """
    import os

    os.environ.clear()
    os.environ.update({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"})  # as its unit does
    sys.path.insert(0, str(where))
    stand_in_for(not_needed)
    library: Any = import_module("supervisor.options")
    datatypes: Any = import_module("supervisor.datatypes")
    asked: list[str] = []
    saneget = library.UnhosedConfigParser.saneget

    def recorded(self: Any, section: str, option: str, *arguments: Any, **named: Any) -> Any:
        if section.startswith("program:"):
            asked.append(option)
        return saneget(self, section, option, *arguments, **named)

    library.UnhosedConfigParser.saneget = recorded
    library.name_to_uid = _leniently(library.name_to_uid, users)
    datatypes.existing_dirpath = str
    options = library.ServerOptions()
    errors: list[str] = []
    options.usage = lambda message: _stop(errors, message)
    try:
        options.realize(["-c", str(main)])
    except _StopReading:
        return msgspec.json.encode(Reading(errors[0], asked, [])).decode()
    groups = options.configroot.supervisord.process_group_configs
    commands = [process.command for group in groups for process in group.process_configs]
    return msgspec.json.encode(Reading(None, asked, commands)).decode()


class _StopReading(Exception):
    """Where supervisor would print its usage and exit."""


def _stop(errors: list[str], message: object) -> None:
    errors.append(str(message))
    raise _StopReading


def _leniently(name_to_uid: Callable[[str], int], users: set[str]) -> Callable[[str], int]:
    return lambda name: 0 if name in users else name_to_uid(name)


def entries(text: str, path: str) -> Iterator[Entry]:
    """What a file of supervisor's says. A line that is neither the head of a section nor an option has no name.

    Source: Python's configparser: a line that begins with a blank continues the value before it, and `;` or `#` behind
    a blank begins a comment.
    """
    section: tuple[str, ...] = ()
    entry: Entry | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or _COMMENT.match(line):
            continue
        said = re.split(r"\s[;#]", line)[0].strip()
        if line[0].isspace() and entry is not None and entry.name:
            value = f"{entry.value}\n{said}".strip()
            entry = entry._replace(last=number, value=value, text=on_one_line(f"{entry.text} {said}"))
            continue
        if entry is not None:
            yield entry
        if header := _SECTION.match(line):
            section = (header["name"],)
        option = None if header else _OPTION.match(line)
        value = said[option.end() :].strip() if option else said
        name = option["name"].strip().lower() if option else ""
        entry = Entry(path, number, number, section, name, value, said)
    if entry is not None:
        yield entry


def _options(file: File) -> list[tuple[int, str, str]]:
    """Line, section and name of every option."""
    there = entries(file.text, file.path)
    return [(each.line, each.context[0] if each.context else "", each.name) for each in there if each.name]


def _sections_and_repeats(file: File) -> list[Fault]:
    """Faults that supervisor's parser ignores: other sections, and an option given twice, of which the last wins."""
    faults = []
    for number, line in enumerate(file.text.split("\n"), start=1):
        header = _SECTION.match(line)
        if header and not header["name"].startswith("program:"):
            what = f"[{header['name']}] in an included file changes all of supervisor, not this program"
            faults.append(Fault(file.path, number, what))
    seen = set()
    for number, section, name in _options(file):
        if (section, name) in seen:
            faults.append(Fault(file.path, number, f"{name} is given twice"))
        seen.add((section, name))
    return faults


def _unknown(file: File, asked: list[str]) -> list[Fault]:
    return [
        Fault(file.path, number, f"{name} is not an option of a program; supervisor would ignore it")
        for number, section, name in _options(file)
        if section.startswith("program:") and name not in asked
    ]


def _refused(reading: Reading, files: list[File]) -> Fault:
    """supervisor names no line: it is that of the option in its message, else of the one it asked for last."""
    message = re.sub(_CONTEXT, "", reading.error or "")
    named = re.search(_NAMED, message)
    option = named[1] if named else reading.asked[-1] if reading.asked else ""
    if "key/value pairs" in message:
        option = "environment"
    for file in files:
        for number, _, name in _options(file):
            if name == option:
                return Fault(file.path, number, message)
    return Fault(files[0].path, None, message)


def _splits(command: str) -> bool:
    """supervisor splits the command only when it starts it, and then gives up."""
    import shlex

    try:
        return bool(shlex.split(command))
    except ValueError:
        return False


def _bad_command(command: str, files: list[File]) -> Fault:
    for file in files:
        for number, _, name in _options(file):
            if name == "command":
                return Fault(file.path, number, f"supervisor cannot split this command into words: {command}")
    return Fault(files[0].path, None, f"supervisor cannot split this command into words: {command}")
