"""sh: the .env file, which supervisor's programs source, and the scripts of the bundle."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from generator.paths import Paths
from generator.readers.entry import Entry
from generator.readers.processes import Program, Running, find_program
from generator.readers.tree import files_in, located, put, put_all
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle, File

ENVIRONMENT = Subject("sh", "environment file")
SCRIPTS = Subject("sh", "scripts")

# Lines that systemd, sh and python-dotenv read alike. They run nothing, so sh may read them safely.
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?:'(?P<plain>[^']*)'|\"(?P<double>[^\"\\$`]*)\")")
# `/…/script: 5: Syntax error: …` of dash; bash says `line 5:`.
_LOCATED = r"^(?P<path>/[^\s:]+): (?:line )?(?P<line>\d+): (?P<message>.*)$"


def environment(bundle: Bundle, root: Path, wanted: Mapping[str, str] | None) -> Running[list[Verdict]]:
    """The variables that sh takes from .env, compared with `wanted` if that is known."""
    file = next((file for file in bundle.files if file.path == Paths(bundle.name).env), None)
    if not file:
        return []
    lines, faults = _assignments(file)
    if faults:
        return [ENVIRONMENT.judged(faults)]
    sh, env = find_program("sh"), find_program("env")
    if not sh or not env:
        return [ENVIRONMENT.not_installed()]
    path = str(put(root, file.path, file.text))
    source = f'set -a; . "$1"; exec {env} -0'
    outcome = yield Program([sh, "-c", source, "sh", path])
    if outcome.failure:
        return [ENVIRONMENT.not_checked(f"sh {outcome.failure}")]
    if outcome.status:
        said = located(outcome.output, root, _LOCATED)
        return [ENVIRONMENT.judged(said or [Fault(file.path, None, outcome.output.strip())])]
    found = dict(entry.partition("=")[::2] for entry in outcome.output.split("\0"))
    said = [
        Fault(file.path, line, f"sh reads {name} as {found.get(name)!r}, not {value!r}")
        for name, (line, value) in lines.items()
        if found.get(name) != value
    ]
    if wanted is not None:
        said += _differences(file.path, {name: value for name, (_, value) in lines.items()}, wanted, lines)
    return [ENVIRONMENT.judged(said)]


def entries(text: str, path: str) -> Iterator[Entry]:
    """What an .env says, as systemd reads it, and `export` before it. What is no assignment has no name.

    Source: systemd.exec(5), "EnvironmentFile=".
    """
    numbered = iter(enumerate(text.split("\n"), start=1))
    for number, line in numbered:
        said, last = line.strip(), number
        if not said or said[0] in "#;":
            continue
        found = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", said)
        name, value = (found[1], found[2]) if found else ("", said)
        quote = value[:1] if value[:1] in ("'", '"') else ""
        while found and quote and quote not in value[1:] and (following := next(numbered, None)):
            last, value = following[0], f"{value}\n{following[1]}".rstrip()
        if len(value) > 1 and quote and value[-1] == quote:
            value = value[1:-1]
        yield Entry(path, number, last, (), name, value, said)


def scripts(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`sh -n`: finds every syntax error, but no misspelt command."""
    files = [file for file in files_in(bundle, "etc") if file.text.startswith("#!/bin/sh")]
    if not files:
        return []
    if not (sh := find_program("sh")):
        return [SCRIPTS.not_installed()]
    faults = []
    for path in put_all(root, files):
        outcome = yield Program([sh, "-n", path])
        if outcome.failure:
            return [SCRIPTS.not_checked(f"sh {outcome.failure}")]
        said = located(outcome.output, root, _LOCATED)
        if outcome.status and not said:
            said = [Fault(path.removeprefix(f"{root}/"), None, outcome.output.strip())]
        faults += said
    return [SCRIPTS.judged(faults)]


def _assignments(file: File) -> tuple[dict[str, tuple[int, str]], list[Fault]]:
    """Each variable with its line and value, and the lines that not every reader of .env takes alike."""
    lines: dict[str, tuple[int, str]] = {}
    faults = []
    for number, line in enumerate(file.text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        assignment = _ASSIGNMENT.fullmatch(line)
        if not assignment:
            faults.append(
                Fault(file.path, number, "is not a NAME='value' that systemd, sh and python-dotenv read alike")
            )
        elif assignment["name"] in lines:
            faults.append(Fault(file.path, number, f"{assignment['name']} is given twice"))
        else:
            lines[assignment["name"]] = number, assignment["plain"] or assignment["double"] or ""
    return lines, faults


def _differences(
    path: str, found: Mapping[str, str], wanted: Mapping[str, str], lines: Mapping[str, tuple[int, str]]
) -> list[Fault]:
    faults = [Fault(path, None, f"{name} is missing") for name in wanted if name not in found]
    for name, value in found.items():
        line = lines[name][0]
        if name not in wanted:
            faults.append(Fault(path, line, f"{name} is not asked for"))
        elif value != wanted[name]:
            faults.append(Fault(path, line, f"{name} is {value!r} where {wanted[name]!r} is asked for"))
    return faults
