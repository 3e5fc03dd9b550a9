"""systemd's own tools: the units, how far they confine the service, the system user and the directories."""

import re
from collections.abc import Iterator
from pathlib import Path

from generator.readers.entry import Entry, on_one_line
from generator.readers.processes import Program, Running, find_program
from generator.readers.tree import files_in, located, put, put_all
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle, File

UNITS = Subject("systemd-analyze", "systemd units")
CONFINEMENT = Subject("systemd-analyze", "systemd confinement")
USER = Subject("systemd-sysusers", "system user")
DIRECTORIES = Subject("systemd-tmpfiles", "directories")

# As `systemd-analyze security` counts, from 0 to 10. A Unix socket needs no network, which is half a point.
EXPOSURE_LIMIT = 0.4
# An engine that is reached over TCP needs the network of the host, as does an application with `needs.network`.
EXPOSURE_LIMIT_WITH_NETWORK = 1.4

# Users and groups that every Debian and Ubuntu has.
_DEBIANS = ("root", "adm", "www-data")

_UNIT_DIRECTORY = "etc/systemd/system"
_COMMAND = re.compile(r"^(\s*Exec\w+\s*=\s*[-@+:!|]*\"?)(/[^\s\"]+)", re.MULTILINE)
_OTHER_UNIT = re.compile(r"[\w@.-]+\.(?:target|service|socket|slice|timer|mount|path)\b")
# `/etc/…/q.service:5: Unknown key 'Fooo' in section [Service], ignoring.`, or, where it is not about one line,
# `q.service: Command /opt/x is not executable: …`. So says systemd 252; 249 said `Unknown key name`.
_COMPLAINT = r"^(?P<path>\S+?\.(?:service|socket|conf))(?::(?P<line>\d+))?: (?P<message>.*)$"
_LOCATED = r"^(?P<path>/\S+?):(?P<line>\d+): (?P<message>.*)$"
_OVERALL = re.compile(r"Overall exposure level for \S+: (\d+\.\d+)")
_SECTION = re.compile(r"\[([^\]]+)\]\s*$")
_WEAKNESS = r"^✗ (?P<name>\S+)\s.*?\s(?P<points>\d+\.\d+)\s*$"


def units(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`systemd-analyze verify`, with unknown keys and missing dependencies as faults."""
    files = files_in(bundle, _UNIT_DIRECTORY)
    if not files:
        return []
    if not (analyze := find_program("systemd-analyze")):
        return [UNITS.not_installed()]
    paths = _put_units(bundle, files, root)
    # Only our units and stubs of what they name: 10 ms where the host's whole tree takes 27, and the host's own
    # faults are not ours.
    environment = {"SYSTEMD_UNIT_PATH": str(root / _UNIT_DIRECTORY), "SYSTEMD_LOG_LEVEL": "warning"}
    strict = "--recursive-errors=yes"  # without it an unknown key exits 0
    outcome = yield Program([analyze, "verify", "--man=no", strict, *paths], environment)
    if "unrecognized option" in outcome.output:  # before systemd 250; what it prints is the same
        outcome = yield Program([analyze, "verify", "--man=no", *paths], environment)
    if outcome.failure:
        return [UNITS.not_checked(f"systemd-analyze {outcome.failure}")]
    faults = [_of_file(fault, files) for fault in located(outcome.output, root, _COMPLAINT)]
    if outcome.status and not faults:
        return [UNITS.not_checked(f"systemd-analyze failed: {outcome.output.strip()}")]
    return [UNITS.judged(faults)]


def confinement(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`systemd-analyze security`: how much of the host the service could reach if it were taken over."""
    files = files_in(bundle, _UNIT_DIRECTORY)
    services = [file for file in files if file.path == f"{_UNIT_DIRECTORY}/{bundle.name}.service"]
    if not services:
        return []
    if not (analyze := find_program("systemd-analyze")):
        return [CONFINEMENT.not_installed()]
    _put_units(bundle, files, root)
    environment = {"SYSTEMD_UNIT_PATH": str(root / _UNIT_DIRECTORY)}
    service = str(root / services[0].path)
    outcome = yield Program([analyze, "security", "--offline=true", "--no-pager", service], environment)
    if outcome.failure:
        return [CONFINEMENT.not_checked(f"systemd-analyze {outcome.failure}")]
    if not (overall := _OVERALL.search(outcome.output)):
        return [CONFINEMENT.not_checked(_why_no_exposure(outcome.output))]
    exposure = float(overall[1])
    limit = _exposure_limit(files)
    faults = []
    if exposure > limit:
        faults.append(Fault(services[0].path, None, _too_exposed(exposure, limit, outcome.output)))
    return [CONFINEMENT.judged(faults, exposure)]


def user(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`systemd-sysusers --dry-run`, on an empty root: no user of this host matters."""
    files = files_in(bundle, "etc/sysusers.d") + files_in(bundle, "usr/lib/sysusers.d")
    if not files:
        return []
    if not (sysusers := find_program("systemd-sysusers")):
        return [USER.not_installed()]
    empty = root / "root"
    empty.mkdir()
    outcome = yield Program([sysusers, "--dry-run", f"--root={empty}", *put_all(root, files)])
    return [_located_verdict(USER, outcome.output, outcome.status, outcome.failure, root)]


def directories(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`systemd-tmpfiles --clean`, which reads every line, on an empty root, where nothing is old enough to go."""
    files = files_in(bundle, "etc/tmpfiles.d") + files_in(bundle, "usr/lib/tmpfiles.d")
    if not files:
        return []
    if not (tmpfiles := find_program("systemd-tmpfiles")):
        return [DIRECTORIES.not_installed()]
    empty = root / "root"
    users = {*_DEBIANS, *users_of(bundle)}
    put(empty, "etc/passwd", "".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for uid, name in enumerate(sorted(users))))
    put(empty, "etc/group", "".join(f"{name}:x:{gid}:\n" for gid, name in enumerate(sorted(users))))
    outcome = yield Program([tmpfiles, "--clean", f"--root={empty}", *put_all(root, files)])
    return [_located_verdict(DIRECTORIES, outcome.output, outcome.status, outcome.failure, root)]


def entries(text: str, path: str) -> Iterator[Entry]:
    """What a unit says. A line that is neither the head of a section nor an assignment has no name.

    Source: systemd.syntax(7): a backslash at its end continues a line, past comments in between.
    """
    section: tuple[str, ...] = ()
    lines, first = list[str](), 0
    numbered = list(enumerate(text.split("\n"), start=1))
    for number, line in numbered:
        if line.lstrip().startswith(("#", ";")) or (not line.strip() and not lines):
            continue
        first = first if lines else number
        lines.append(line.removesuffix("\\"))
        if line.endswith("\\") and number < len(numbered):
            continue
        whole, lines = on_one_line(" ".join(lines)) if len(lines) > 1 else lines[0].strip(), []
        if head := _SECTION.match(whole):
            section = (head[1],)
        name, equals, value = whole.partition("=")
        named = (name.strip(), value.strip()) if equals and not head else ("", whole)
        yield Entry(path, first, number, section, *named, whole)


def users_of(bundle: Bundle) -> set[str]:
    """The system users that the bundle itself creates."""
    texts = [file.text for directory in ("etc", "usr/lib") for file in files_in(bundle, f"{directory}/sysusers.d")]
    return {name for text in texts for name in re.findall(r"^u!?\s+(\S+)", text, re.MULTILINE)}


def _put_units(bundle: Bundle, files: list[File], root: Path) -> list[str]:
    """Our units with commands that exist here, and what they need around them; where the units are now."""
    paths = [str(put(root, file.path, _COMMAND.sub(_existing, file.text))) for file in files]
    directory = root / _UNIT_DIRECTORY
    named = {name for file in files for name in _OTHER_UNIT.findall(file.text)}
    extended = {Path(file.path).parent.name.removesuffix(".d") for file in files if file.path.endswith(".conf")}
    for name in {"sysinit.target", "basic.target", "shutdown.target", "sockets.target"} | named | extended:
        # What carries our name is in the bundle, or it is a fault.
        if not name.startswith(bundle.name) and not (directory / name).exists():
            command = "[Service]\nExecStart=/bin/sh\n" if name.endswith(".service") else ""
            put(root, f"{_UNIT_DIRECTORY}/{name}", f"[Unit]\nDescription=stub\n{command}")
    drop_ins = {str(directory / name) for name in extended}
    return sorted({path for path in paths if not path.endswith(".conf")} | drop_ins)


def _existing(command: re.Match[str]) -> str:
    """The release that ExecStart names stands on the host, not necessarily here."""
    return command[0] if Path(command[2]).exists() else command[1] + "/bin/sh"


def _of_file(fault: Fault, files: list[File]) -> Fault:
    """The file of a fault that only names its unit."""
    for file in files:
        if file.path.endswith(f"/{fault.path}"):
            return Fault(file.path, fault.line, fault.message)
    return fault


def _exposure_limit(files: list[File]) -> float:
    if any(re.search(r"^RestrictAddressFamilies=.*AF_INET", file.text, re.MULTILINE) for file in files):
        return EXPOSURE_LIMIT_WITH_NETWORK
    return EXPOSURE_LIMIT


def _why_no_exposure(output: str) -> str:
    if "unrecognized option" in output:
        return "systemd-analyze before 250 cannot judge a unit that is not installed"
    return f"systemd-analyze failed: {output.strip()}"


def _too_exposed(exposure: float, limit: float, output: str) -> str:
    weaknesses = sorted(re.finditer(_WEAKNESS, output, re.MULTILINE), key=lambda weakness: -float(weakness["points"]))
    worst = ", ".join(f"{weakness['name']} {weakness['points']}" for weakness in weaknesses[:6])
    return f"exposure {exposure} is above {limit}; most of it from {worst}"


def _located_verdict(subject: Subject, output: str, status: int, failure: str | None, root: Path) -> Verdict:
    if failure:
        return subject.not_checked(f"{subject.tool} {failure}")
    faults = located(output, root, _LOCATED)
    if status and not faults:
        return subject.not_checked(f"{subject.tool} failed: {output.strip()}")
    return subject.judged(faults)
