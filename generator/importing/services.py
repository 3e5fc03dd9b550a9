"""What became of a systemd unit, or of a program of supervisor's, line by line."""

from collections.abc import Iterable
from os.path import normpath
from pathlib import PurePosixPath

import msgspec

from generator.importing.ledger import HEAD, Ledger, Said
from generator.importing.options import OWN_USER, claim_address, claim_listener, judge, name_of
from generator.importing.sources import Source
from generator.importing.starts import Start, start_of
from generator.importing.variables import Variable, assignments, of_supervisor
from generator.paths import HIDDEN_PLACES
from generator.readers.entry import Entry

_JOURNAL: Said = ("replaced", "by the journal: `journalctl -u`; nobody rotates a file that systemd appends to")
_LOG: Said = ("replaced", "by one log below /var/log, which logrotate keeps short")
_CONFINED: Said = ("replaced", "the unit confines the service further; it says what each line is for")
_RESTART: Said = ("replaced", "the unit starts it again, and gives up when that fails again and again")
_STOPS: Said = ("replaced", "it stops by SIGTERM, and has as long as drain.timeout asks for")
_QUIT: Said = ("wrong", "uvicorn's workers do not stop by it, so every stop ends by SIGKILL; SIGTERM replaces it")
_ROOT: Said = ("wrong", "it would run as root; a user of its own replaces it")
_RESOURCES: Said = ("not supported", "write it into a drop-in of the new unit: `systemctl edit`")
_IS_INSTALLED: Said = ("replaced", "code and environment are below /opt, where the service can write neither")
_COMMANDS: Said = ("not supported", "what runs beside the service is not known; write a unit of its own")

_UNIT: dict[str, Said] = {
    **dict.fromkeys(("Description", "Documentation", "SyslogIdentifier"), ("replaced", "by those of the new unit")),
    **dict.fromkeys(("StartLimitInterval", "StartLimitIntervalSec", "StartLimitBurst", "Restart"), _RESTART),
    **dict.fromkeys(("RestartSec", "StartLimitAction", "OOMPolicy"), _RESTART),
    "Type": ("replaced", "by Type=notify: a start fails if the service cannot start"),
    "NotifyAccess": ("replaced", "by that of the new unit"),
    **dict.fromkeys(("User", "Group", "SupplementaryGroups", "DynamicUser"), OWN_USER),
    **dict.fromkeys(("StandardOutput", "StandardError", "StandardInput"), _JOURNAL),
    "ExecReload": ("replaced", "`systemctl reload` replaces the workers of the new unit"),
    **dict.fromkeys(("KillMode", "KillSignal", "TimeoutStopSec", "ExecStop", "SendSIGKILL", "FinalKillSignal"), _STOPS),
    **dict.fromkeys(("TimeoutStartSec", "TimeoutSec", "WatchdogSec", "RuntimeMaxSec"), _STOPS),
    **dict.fromkeys(("ExecStartPre", "ExecStartPost", "ExecStopPost", "ExecCondition"), _COMMANDS),
    "LimitNOFILE": ("replaced", "follows from limits.connections"),
    **dict.fromkeys(("LimitNPROC", "LimitCORE", "TasksMax", "PIDFile", "RemainAfterExit"), _CONFINED),
    **dict.fromkeys(("StateDirectory", "RuntimeDirectory", "LogsDirectory", "CacheDirectory"), _CONFINED),
    **dict.fromkeys(("WantedBy", "RequiredBy"), ("replaced", "the new unit is started at boot as well")),
    "Alias": ("not supported", "the new unit has one name"),
    **dict.fromkeys(("SocketUser", "SocketGroup", "SocketMode", "DirectoryMode", "RemoveOnStop"), _CONFINED),
    **dict.fromkeys(("Accept", "Backlog", "NoDelay", "ReusePort", "Service", "Sockets"), _CONFINED),
}
_CONFINING = (
    *(
        "Protect",
        "Private",
        "Restrict",
        "Lock",
        "NoNew",
        "Capability",
        "Ambient",
        "SystemCall",
        "MemoryDeny",
        "Keyring",
    ),
    *("Remove", "UMask", "Device", "IPAddress", "ReadOnlyPaths", "Inaccessible", "ProcSubset", "NoExec", "ExecPaths"),
)
_LIMITING = ("Memory", "CPU", "IO", "Nice", "OOMScore", "Slice", "Limit", "Tasks")
_ORDER = ("After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Requisite", "Conflicts")
_OF_THE_SYSTEM = ("network.target", "network-online.target", "nss-lookup.target", "syslog.target", "time-sync.target")

_PROGRAM: dict[str, Said] = {
    "user": OWN_USER,
    "group": ("wrong", "is not an option of supervisor, which ignores it"),
    "process_name": ("replaced", "the program has the name of the deployment, without _00"),
    **dict.fromkeys(("stopasgroup", "killasgroup", "stopwaitsecs", "stopsignal"), _STOPS),
    **dict.fromkeys(("autostart", "autorestart", "startsecs", "startretries", "exitcodes", "priority"), _RESTART),
    "umask": _CONFINED,
    "redirect_stderr": _LOG,
    "loglevel": _LOG,
}
_LOGS_OF_SUPERVISOR = ("stdout_", "stderr_", "logfile")


class Service(msgspec.Struct):
    """One service: a unit with its drop-ins and its socket, or a program of a file of supervisor's."""

    name: str
    manager: str
    entries: list[Entry]
    command: Entry | None
    start: Start | None
    directory: str
    variables: list[Variable]
    env_files: list[tuple[Entry, str]]

    @property
    def is_center(self) -> bool:
        return self.start is not None and self.start.is_center(self.directory)

    @property
    def conf(self) -> str:
        """The configuration file that gunicorn is given, or finds where it is started; nothing for other servers."""
        if self.start is None or self.start.server != "gunicorn":
            return ""
        named = [value for name, value in self.start.options if name_of("gunicorn", name) == "config"]
        path = named[-1].removeprefix("file:") if named else "gunicorn.conf.py"
        return normpath(PurePosixPath(self.directory or "/", path))


def services_in(sources: Iterable[Source], variables: Iterable[Variable] = ()) -> list[Service]:
    """The services that files describe; `variables` are those of their environment files."""
    found: list[Service] = []
    units: dict[str, list[Entry]] = {}
    of_files = list(variables)
    for source in sources:
        if source.kind == "unit":
            path = PurePosixPath(source.path)
            name = path.parent.name.removesuffix(".service.d") if path.suffix == ".conf" else path.stem
            units.setdefault(name.removesuffix(".d"), []).extend(source.entries)
        elif source.kind == "program":
            heads = dict.fromkeys(entry.context for entry in source.entries if entry.context[:1])
            for (head,) in heads:
                if head.startswith(("program:", "fcgi-program:")):
                    entries = [entry for entry in source.entries if entry.context == (head,)]
                    found.append(_service(head.partition(":")[2].strip(), "supervisor", entries, of_files))
    return [*(_service(name, "systemd", entries, of_files) for name, entries in units.items()), *found]


def _service(name: str, manager: str, entries: list[Entry], of_files: list[Variable]) -> Service:
    under_systemd = manager == "systemd"
    named = {entry.name: entry for entry in entries if entry.name}
    command = named.get("ExecStart" if under_systemd else "command")
    directory = named.get("WorkingDirectory" if under_systemd else "directory")
    of_variables = [entry for entry in entries if entry.name == ("Environment" if under_systemd else "environment")]
    read = assignments if under_systemd else of_supervisor
    variables = [variable for entry in of_variables for variable in read(entry)]
    files = [(entry, entry.value.lstrip("-").strip("\"'")) for entry in entries if entry.name == "EnvironmentFile"]
    there = {each.name: each.value for each in (*variables, *(of_files if files else ()))}
    there.setdefault("program_name", name)
    start = start_of(command.value, there) if command is not None else None
    where = directory.value.lstrip("-").strip("\"'") if directory is not None else ""
    where = str(PurePosixPath(where, start.directory if start is not None else ""))
    # What begins with ~ or % only the manager knows.
    where = normpath(where) if where.startswith("/") else ""
    return Service(name, manager, entries, command, start, where, variables, files)


def judge_service(ledger: Ledger, service: Service) -> None:
    """Say what becomes of every line of a service but its variables."""
    for entry in service.entries:
        if entry.name == "":
            if entry.text.startswith("["):
                ledger.add(entry, *HEAD)
        elif entry is service.command:
            _judge_command(ledger, service, entry)
        elif service.manager == "systemd":
            _judge_unit(ledger, service, entry)
        else:
            _judge_program(ledger, service, entry)


def _judge_command(ledger: Ledger, service: Service, entry: Entry) -> None:
    start = service.start
    assert start is not None
    ledger.take(entry, "server", start.server, start.target or start.server)
    for name in sorted(start.missing):
        ledger.add(entry, "wrong", "is set in no file that was read", f"${{{name}}}")
    if start.server == "standalone":
        if start.options and start.options[0][1].isdecimal():
            claim_listener(ledger, entry, {"port": start.options[0][1]})
        return
    seen: set[str] = set()
    for option, value in start.options:
        name, part = name_of(start.server, option), f"{option} {value}".strip()
        if name in seen and name != "bind":
            ledger.add(entry, "wrong", "given twice", f"{part} (again)")
        else:
            _judge_option(ledger, entry, start, (name, value), part)
        seen.add(name)
    if start.server == "uvicorn":
        claim_listener(ledger, entry, {name_of("uvicorn", option): value for option, value in start.options})


def _judge_option(ledger: Ledger, entry: Entry, start: Start, option: tuple[str, str], part: str) -> None:
    name, value = option
    if start.server == "uvicorn" and name in ("host", "port", "uds", "fd"):
        return  # they are one thing
    if name == "bind":
        claim_address(ledger, entry, value, part)
    elif name in ("config", "env-file"):
        ledger.add(entry, "taken over", "its lines are listed by themselves", part)
    elif name in ("chdir", "app-dir"):
        ledger.add(entry, "taken over", "as the directory of the application", part)
    elif name == "":
        ledger.add(entry, "wrong", "is one word too many", part)
    else:
        judge(ledger, entry, start.server, name, value, part)


def _judge_unit(ledger: Ledger, service: Service, entry: Entry) -> None:
    name, value = entry.name, entry.value
    if name in ("Environment", "EnvironmentFile"):
        if not value:
            ledger.add(entry, "replaced", "says nothing")
        elif name == "Environment" and not assignments(entry):
            ledger.add(entry, "wrong", "assigns nothing that could be read; a quote may not be closed")
    elif name == "WorkingDirectory":
        _judge_directory(ledger, service, entry)
    elif name == "ExecStart":
        said: Said = ("wrong", "another one counts") if value else ("replaced", "says nothing")
        ledger.add(entry, *said)
    elif name in _ORDER:
        others = [unit for unit in value.split() if unit not in _OF_THE_SYSTEM and not unit.startswith(service.name)]
        said = ("replaced", "systemd opens the socket, whatever is up by then")
        if others:
            said = ("not supported", f"the new unit waits for no other: {', '.join(others)}")
        ledger.add(entry, *said)
    elif name == "ListenStream":
        claim_address(ledger, entry, value if ":" in value or value.startswith("/") else f"127.0.0.1:{value}")
    elif name == "ReadWritePaths":
        _judge_paths(ledger, service, entry)
    else:
        ledger.add(entry, *_of_unit(name, value))


def _of_unit(name: str, value: str) -> Said:
    if name == "KillSignal" and value in ("SIGQUIT", "QUIT", "3"):
        return _QUIT
    if name in ("User", "Group") and value in ("root", "0"):
        return _ROOT
    if name in _UNIT or name.startswith(_CONFINING):
        return _UNIT.get(name, _CONFINED)
    if name.startswith(_LIMITING):
        return _RESOURCES
    return "not supported", f"{name} is nothing that the new unit has"


def _judge_directory(ledger: Ledger, service: Service, entry: Entry) -> None:
    if service.is_center:
        ledger.add(entry, *_IS_INSTALLED)
    elif service.directory:
        ledger.take(entry, "app.path", service.directory)
    else:
        ledger.add(entry, "not supported", "is no absolute path; write app.path")


def _judge_paths(ledger: Ledger, service: Service, entry: Entry) -> None:
    """What the old service could write: its own code, as a rule."""
    for path in entry.value.split():
        plain = normpath(path.lstrip("-+"))
        part = f"ReadWritePaths={path}"
        if service.is_center:
            ledger.add(entry, "wrong", "it could change its own code; it writes below /var/lib alone now", part)
        elif f"{service.directory}/".startswith(f"{plain}/") or f"{plain}/".startswith(f"{service.directory}/"):
            why = "it could change its own code; let it write below /var/lib, or to a directory that needs.write names"
            ledger.add(entry, "wrong", why, part)
            ledger.obstacles.append((entry.where, f"{part}: {why}"))
        elif not f"{plain}/".startswith(("/srv/", "/var/", "/mnt/", "/media/")) or plain.startswith(HIDDEN_PLACES):
            ledger.add(entry, "not supported", "needs.write takes directories below /srv or /var", part)
        else:
            ledger.take(entry, "needs.write", plain, part)


def _judge_program(ledger: Ledger, service: Service, entry: Entry) -> None:
    name, value = entry.name, entry.value
    if name == "environment":
        return
    if name == "directory":
        _judge_directory(ledger, service, entry)
    elif name == "numprocs":
        said: Said = ("wrong", "several processes cannot share a port: all but one fail; `workers` is what was meant")
        ledger.add(entry, *(said if value != "1" else ("replaced", "as it is here")))
    elif name == "stopsignal" and value.upper() in ("QUIT", "SIGQUIT"):
        ledger.add(entry, *_QUIT)
    elif name == "user" and value == "root":
        ledger.add(entry, *_ROOT)
    elif name.startswith(_LOGS_OF_SUPERVISOR):
        ledger.add(entry, *_LOG)
    elif name in _PROGRAM:
        ledger.add(entry, *_PROGRAM[name])
    else:
        ledger.add(entry, "wrong", f"{name} is no option that supervisor knows, or none that matters now")
