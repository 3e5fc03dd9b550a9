"""The state of a host, read without changing anything."""

import errno
import grp
import json
import os
import pwd
import re
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import Error as ConfigParserError
from configparser import RawConfigParser
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from hashlib import md5
from ipaddress import ip_address
from pathlib import Path

import msgspec

from generator.config.addresses import EVERY, LOOPBACK, MAPPED
from generator.host.neighbours import Surroundings
from generator.host.programs import has, run
from generator.paths import HIDDEN_PLACES
from generator.readers.nginx import DEFAULT_SITE, HOST
from generator.readers.nginx_http2 import version_in
from generator.readers.nginx_sites import Listen, Server, servers

PYTHON = "/usr/bin/python3"
_START_PATIENCE_S = 30.0
NGINX_GROUP = "www-data"
"""Who may connect to the sockets of a deployment: nginx, on Debian."""
HERE = (*LOOPBACK, "127.0.1.1")
"""What leads to this host itself: Debian's installer writes the last one beside the host's name."""
UNLIMITED = 1 << 30  # files: more than any kernel opens


class Listener(msgspec.Struct, frozen=True):
    """Who holds an address: a process, `""` where it cannot be seen."""

    address: str
    holder: str
    unit: str = ""
    """The service that the process belongs to, where systemd started it."""
    is_for_nginx: bool = False
    """Whether clients come to it: no other one will do."""


class Carries(msgspec.Struct, frozen=True):
    """How many connections an nginx takes: so many in each of its worker processes."""

    worker_connections: int
    worker_processes: int


class Account(msgspec.Struct, frozen=True):
    """A user of the host. Source: passwd(5)."""

    uid: int
    comment: str
    home: str
    shell: str

    @property
    def can_log_in(self) -> bool:
        return not self.shell.endswith(("/nologin", "/false"))

    @property
    def is_a_person(self) -> bool:
        """Debian numbers those from 1000 on; nobody has the largest number. Source: Debian Policy, section 9.2.2."""
        return 1000 <= self.uid < 65_534 and self.can_log_in


class Place(msgspec.Struct, frozen=True):
    """A directory in which an installation writes, with what matters of its file system."""

    path: str
    free_bytes: int
    free_files: int
    """How many more it may have: its free inodes; many where it is not limited by them."""
    mounted: str = ""
    """`noexec`, `read-only`, or nothing."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A host as `generator.host.obstacles` wants to know it."""

    is_root: bool
    system: str
    version: str
    like: tuple[str, ...]
    """The systems that this one is made from: `ID_LIKE` of os-release(5)."""
    systemd_version: int
    nginx_version: tuple[int, ...]
    has_systemd: bool
    missing_packages: tuple[str, ...]
    python_version: tuple[int, ...]
    places: tuple[Place, ...]
    """One for each file system to which an installation writes."""
    makes_runtime: bool
    """Whether the change needs more than a few files below /opt."""
    free_for_data: int
    """Bytes of the file system below /var/lib on which mailboxes are."""
    mailbox_bytes: int
    """The space that the files of the mailboxes take already."""
    engine_bytes: int
    """The space that the files of the engine that is served here take already."""
    memory_bytes: int
    has_route: bool
    taken: tuple[Listener, ...]
    has_host: bool
    primary_group: str
    account: Account | None
    """The service's user, if it existed before us; one that we made is not reported."""
    runs_as_account: bool
    has_group: bool
    """Whether a group of the user's name is there and the user is not."""
    masked: tuple[str, ...]
    """Services of packages that this one needs, and that systemd may not start."""
    disabled: tuple[str, ...]
    """Those of them that do not start at boot, and certbot's timer where that does not and is needed."""
    has_programs: bool
    """Whether supervisor reads the programs of deployments, if one is to serve here."""
    foreign: tuple[str, ...]
    linked: tuple[str, ...]
    """Directories that are links, where the service, or nginx, would not start with one."""
    supervisors_files: int | None
    nginx_fault: str
    missing_includes: tuple[str, ...]
    has_ipv6: bool
    not_here: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()
    """Addresses of our site that another host may have, and that may come here."""
    no_directories: tuple[str, ...]
    """Those of `needs.write` that there are not; a unit that names one does not start."""
    around: Surroundings
    own_main_context: dict[str, tuple[str, str]]
    nginx_carries: Carries | None
    nginx_outsider: str
    """The user that nginx runs as, where our sockets are not open to it; else nothing."""
    cores: int
    has_foreign_default_site: bool
    astray: tuple[str, ...]
    """The domains that do not lead to this host."""
    closed_ports: tuple[int, ...]
    """Those that clients need, and that ufw closes."""
    clock_behind_s: float
    not_by_hand: tuple[str, ...] = ()
    """Those of `replaces` that are a deployment's own."""


def operating_system(file: Path = Path("/etc/os-release")) -> tuple[str, str, tuple[str, ...]]:
    """`("linuxmint", "22", ("ubuntu", "debian"))`; Debian's testing has no version. Source: os-release(5)."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", "", ()
    values = {name: text.strip("\"'") for name, equals, text in (line.partition("=") for line in lines) if equals}
    return values.get("ID", ""), values.get("VERSION_ID", ""), tuple(values.get("ID_LIKE", "").split())


def systemd_version() -> int:
    """0 where it cannot be asked."""
    found = re.match(r"systemd (\d+)", run("systemctl", "--version").output)
    return int(found[1]) if found else 0


def nginx_version() -> tuple[int, ...]:
    """None where nginx is missing."""
    return version_in(run("nginx", "-v").output)


def missing_packages(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those Debian packages that are not installed."""
    outcome = run("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted)
    installed = {line.split()[0] for line in outcome.output.splitlines() if line.endswith(" installed")}
    return tuple(package for package in wanted if package not in installed)


def is_as_packaged(path: Path, package: str) -> bool:
    """Whether a configuration file is there, and nobody has edited it since its package brought it."""
    listed = run("dpkg-query", "--show", "--showformat", "${Conffiles}", package).output
    digests = {words[0]: words[1] for line in listed.splitlines() if len(words := line.split()) > 1}
    return path.is_file() and digests.get(str(path)) == md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def python_version() -> tuple[int, ...]:
    """Of the system's own Python, which runs the service; none where there is no Python."""
    outcome = run(PYTHON, "-c", "import sys; print(*sys.version_info[:3])")
    return tuple(int(part) for part in outcome.output.split()) if outcome.succeeded else ()


def made_for(venv: Path) -> tuple[int, ...]:
    """The Python of a virtual environment, such as (3, 11); nothing where there is none. Source: PEP 405."""
    try:
        found = re.search(r"(?m)^version *= *(\d+)\.(\d+)", (venv / "pyvenv.cfg").read_text(encoding="utf-8"))
    except OSError:
        return ()
    return (int(found[1]), int(found[2])) if found else ()


def places(*paths: str) -> tuple[Place, ...]:
    """Directories, whether they exist yet or not; of those on one file system the first. Source: statvfs(3)."""
    found: dict[tuple[int, str], Place] = {}
    for path in paths:
        there = path if os.path.exists(path) else "/"
        status = os.statvfs(there)
        flags = status.f_flag
        mounted = "read-only" if flags & os.ST_RDONLY else "noexec" if flags & os.ST_NOEXEC else ""
        # Some, such as Btrfs, say that they have no inodes at all.
        files = status.f_favail if status.f_files else sys.maxsize
        place = Place(path, status.f_bavail * status.f_frsize, files, mounted)
        found.setdefault((os.stat(there).st_dev, mounted), place)
    return tuple(found.values())


def linked(name: str, manager: str, *directories: str) -> tuple[str, ...]:
    """Those directories of a deployment that are links; also what leads its code to where systemd hides all."""
    found, home = dict.fromkeys(filter(os.path.islink, directories)), f"/opt/{name}"
    if manager == "systemd" and os.path.realpath(home).startswith(HIDDEN_PLACES):
        found[home if os.path.islink(home) else "/opt"] = None
    return tuple(found)


def without_directory(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if not os.path.isdir(path))


def bytes_in(directory: Path) -> int:
    """The space that the files of a directory take; 0 if it does not exist, or only root may look."""
    try:
        return sum(path.stat().st_size for path in directory.glob("*") if path.is_file())
    except PermissionError:
        return 0


def has_route() -> bool:
    """Whether packets have a way out of this host. Source: proc_net(5), route and ipv6_route."""
    try:
        routes = [line.split() for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]]
        if any(route[1] == "00000000" for route in routes):
            return True
        routes = [line.split() for line in Path("/proc/net/ipv6_route").read_text(encoding="ascii").splitlines()]
    except OSError:
        return False
    return any(route[0] == "0" * 32 and route[1] == "00" and route[-1] != "lo" for route in routes)


def holder_of(host: str, port: int) -> str | None:
    """Who listens where `host` and `port` would be bound: a unit, or `NAME (process ID)`; `""` where only root sees it.

    None where nobody does.
    """
    if _bind(host, port) != errno.EADDRINUSE:
        return None
    ours = addresses_of(host)

    def meets(address: str) -> bool:  # another program may have the port at another address
        return address in ours or not {address, *ours}.isdisjoint(EVERY)

    for words in map(str.split, run("systemctl", "list-sockets", "--no-legend", "--no-pager").output.splitlines()):
        address, _, number = words[0].rpartition(":") if words[1:] else ("", "", "")
        if number == str(port) and meets(address.strip("[]")):
            return words[1]
    sockets = {found for address, at, found in _listening() if at == port and meets(address)}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # of a server, the main process
        with suppress(OSError):  # it has ended, or is another user's
            if _descriptors(pid) & sockets:
                return f"{Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()} (process {pid})"
    return ""


def bound_by_nginx() -> tuple[tuple[str, int], ...]:
    """Where the nginx that systemd has started listens now; only root can tell."""
    with suppress(OSError):
        held = _descriptors(main_process("nginx.service"))
        return tuple(sorted({(address, port) for address, port, found in _listening() if found in held}))
    return ()


def main_process(unit: str) -> int:
    """The process that systemd has started for a unit; 0 where none runs, or systemd does not answer."""
    said = run("systemctl", "show", "--value", unit, "--property", "MainPID")
    return int(said.output) if said.succeeded and said.output.isdecimal() else 0


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there, at an address of this host."""
    return _bind(host, port) == 0


def _descriptors(process: int) -> set[str]:
    """What a process has open, as it stands in /proc/PID/fd."""
    found = set()
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(f"/proc/{process}/fd/{descriptor}"))
    return found


def _listening() -> Iterator[tuple[str, int, str]]:
    """The addresses and ports of TCP that are listened to, each with its socket, as it stands in /proc/PID/fd.

    Source: proc_net(5); 0A is TCP_LISTEN.
    """
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with suppress(FileNotFoundError), open(f"/proc/net/{table}", encoding="ascii") as lines:  # no IPv6 at all
            for words in map(str.split, lines):
                address, _, number = words[1].rpartition(":")
                if words[3] == "0A":
                    numbers = (int(address[at : at + 8], 16) for at in range(0, len(address), 8))
                    packed = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
                    host = socket.inet_ntop(family, packed).removeprefix(MAPPED)
                    yield host, int(number, 16), f"socket:[{words[9]}]"


def unit_of(holder: str) -> str:
    """The service that a process of `holder_of` belongs to; nothing where it is none."""
    units = re.findall(r"/system\.slice/(?:\S+/)?([^/\s]+\.service)", _groups_of(holder))
    return units[0] if units else ""


def is_our_nginx(holder: str) -> bool:
    """Whether that is the nginx which systemd starts and reloads: there may be another, or one started by hand."""
    return holder.startswith("nginx ") and re.search(r"(?m)/nginx\.service(/|$)", _groups_of(holder)) is not None


def _groups_of(holder: str) -> str:
    """Source: cgroups(7)."""
    found = re.search(r"\(process (\d+)\)", holder)
    try:
        return Path(f"/proc/{found[1]}/cgroup").read_text(encoding="utf-8") if found else ""
    except OSError:
        return ""


def has_address(host: str) -> bool:
    """Whether an address is one of this host."""
    return _bind(host, 0) not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_elsewhere(host: str) -> bool:
    """Whether nginx may listen at an address that this host does not have: a standby has one that comes to it later.

    Source: the kernel's ip-sysctl, "ip_nonlocal_bind".
    """
    family = "ipv6" if ":" in host else "ipv4"
    try:
        is_allowed = Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False
    return is_allowed and not (host in (*EVERY, *addresses()) or ip_address(host).is_loopback)


def has_ipv6() -> bool:
    """Whether there is IPv6 at all: with `ipv6.disable=1` on the kernel's command line there is not."""
    return _bind("::1", 0) != errno.EAFNOSUPPORT


def addresses() -> tuple[str, ...]:
    """Those of this host that others can reach, IPv4 and IPv6; none where iproute2 is missing."""
    shown = run("ip", "-json", "address", "show", "scope", "global")
    links = json.loads(shown.output or "[]") if shown.succeeded else []
    found = [address for link in links for address in link.get("addr_info", ())]
    ready = [each for each in found if "local" in each and not each.get("tentative") and not each.get("dadfailed")]
    return tuple(dict.fromkeys(str(each["local"]) for each in ready))


@cache
def addresses_of(domain: str) -> frozenset[str]:
    """Where a name leads to. Asked once: where no server answers, as behind a firewall, that takes 20 s."""
    try:
        return frozenset(str(entry[4][0]) for entry in socket.getaddrinfo(domain, None))
    except (OSError, UnicodeError):
        return frozenset()


def _bind(host: str, port: int) -> int:
    """The error number of an attempt; 0 where it succeeds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno or 0
    return 0


def nginx_fault() -> str:
    """Why nginx would refuse its current configuration; nothing if it is sound or nginx is missing."""
    outcome = run("nginx", "-t", "-q")
    if outcome.succeeded or outcome.code == 127:
        return ""
    found = re.search(r"\[emerg\] (?:\d+#\d+: )?(.+)", outcome.output)
    fault = found[1] if found else outcome.output
    missing = re.match(r'open\(\) "([^"]+)" failed \(2:', fault)
    leads = os.path.realpath(missing[1]) if missing and os.path.islink(missing[1]) else ""
    return f"{fault}, a link to {leads}" if leads else fault


def naming(*paths: str) -> list[str]:
    """The files of its configuration, as nginx reads them, that name one of these paths; comments aside."""
    read = re.split(r"(?m)^# configuration file (.+):$", run("nginx", "-T", "-q").output)
    named = re.compile(rf"(?m)^[^#\n]*({'|'.join(map(re.escape, paths))})")
    return [file for file, text in zip(read[1::2], read[2::2], strict=True) if named.search(text)]


def nginx_carries(main: str) -> Carries:
    """The settings of an nginx.conf. Source: ngx_core_module, "worker_connections" and "worker_processes"."""
    directives = re.sub(r"#.*", "", main)
    found = dict(re.findall(r"\b(worker_connections|worker_processes)\s+(\w+)\s*;", directives))
    connections, processes = found.get("worker_connections", ""), found.get("worker_processes", "")
    cores = os.cpu_count() or 1
    # Others, such as `1k`, nginx itself refuses, and says so better.
    return Carries(
        int(connections) if connections.isdecimal() else 512,
        cores if processes == "auto" else int(processes) if processes.isdecimal() else 1,
    )


def nginx_outsider(main: str) -> str:
    """The user of an nginx.conf, if it is not in the group `NGINX_GROUP`; nothing if it is, or if the file names none.

    Its own group is the one that is named behind it, or has its name. Source: ngx_core_module, "user".
    """
    found = re.search(r"(?m)^\s*user\s+([\w.-]+)(?:\s+([\w.-]+))?\s*;", re.sub(r"#.*", "", main))
    if found is None:
        return ""
    user, group = found[1], found[2] or found[1]
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return ""  # nginx refuses it itself
    own = group_of(group)
    groups = os.getgrouplist(user, entry.pw_gid if own is None else own)
    return "" if entry.pw_uid == 0 or group_of(NGINX_GROUP) in groups else user


def account_of(user: str) -> Account | None:
    """A user of the host; None where there is none."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gecos, entry.pw_dir, entry.pw_shell)


# All in one session, as PAM notes each in the journal.
_CLOSED = 'for path; do test "$0" "$path" || printf "%s\\n" "$path"; done'


def closed_to(user: str, *paths: str, way: str = "-r") -> list[str]:
    """Those files that a user of the host cannot read, or that are not there; with `-x`, the directories to enter.

    Only root can ask for another user. Source: test(1).
    """
    if not paths:
        return []
    told = run("runuser", "-u", user, "--", "sh", "-c", _CLOSED, way, *paths)
    said = told.output.splitlines()  # also what else sh says, such as that its own directory is gone
    return [path for path in paths if not told.succeeded or path in said]


def group_of(name: str) -> int | None:
    """The number of a group; None where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def supervisors_files(configuration: Path = Path("/etc/supervisor/supervisord.conf")) -> int | None:
    """How many files supervisor lets a program open; None where it is not installed, or sets no limit.

    The hard limit, which only root could raise. Source: proc_pid_limits(5); supervisord(8), "minfds".
    """
    if not has("supervisorctl"):
        return None
    pid = main_process("supervisor.service")
    with suppress(OSError):
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii") if pid else ""
        if found := re.search(r"(?m)^Max open files +\w+ +(\w+)", limits):
            return int(found[1]) if found[1].isdecimal() else None
    at_start = run("systemctl", "show", "--property=LimitNOFILE", "--value", "supervisor.service").output
    with suppress(OSError):
        wanted = re.search(r"(?m)^ *minfds *= *(\d+)", configuration.read_text(errors="replace"))
        if at_start.isdecimal() and wanted:
            return max(int(at_start), int(wanted[1]))
    return int(at_start) if at_start.isdecimal() else None


def supervisor_reads_programs(configuration: Path = Path("/etc/supervisor/supervisord.conf")) -> bool:
    """Whether supervisor reads what is in conf.d, or is not installed yet. Source: supervisord, "[include]"."""
    parser = RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    with suppress(ConfigParserError):  # supervisor itself refuses it
        parser.read(configuration, encoding="utf-8")
    here = str(configuration.parent)
    files = parser.get("include", "files", fallback="").replace("%(here)s", here).split()
    reads = any(fnmatch(f"{here}/conf.d/a.conf", os.path.join(here, each)) for each in files)
    return reads or not configuration.exists()


def primary_group(user: str) -> str:
    """The name of a user's own group; nothing where there is no such user."""
    try:
        number = pwd.getpwnam(user).pw_gid
    except KeyError:
        return ""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def surroundings(*domains: str) -> Surroundings:
    """The surroundings of a site of this host's nginx, and the addresses by which clients reach its domains."""
    with ThreadPoolExecutor() as asking:  # at once: where no server answers, each takes that long
        ours, leads = addresses(), set().union(*asking.map(addresses_of, domains))
    named = tuple(address for address in ours if address in leads)
    return Surroundings(sites(), ours, named)


def sites() -> tuple[Server, ...]:
    """What this host's nginx serves, or will once it is installed."""
    main = HOST / "nginx.conf"
    return tuple(servers(main)) if main.exists() else (default_site_of_the_package(),)


def default_site_of_the_package() -> Server:
    """The one that comes with nginx where that is not installed yet, or comes back."""
    where = f"/{DEFAULT_SITE}:22"
    listens = tuple(Listen(where, host, 80, ("default_server",)) for host in ("0.0.0.0", "::"))
    return Server(where, "http", listens, ("_",))


def resolves_here(domain: str) -> bool:
    """Whether a name leads to an address of this host."""
    return bool(addresses_of(domain) & {*addresses(), *HERE})


def masked(*units: str) -> tuple[str, ...]:
    """Those units that the operator has masked. Source: systemctl(1), "mask"."""
    return tuple(unit for unit in units if os.path.realpath(f"/etc/systemd/system/{unit}") == os.devnull)


def disabled(*units: str) -> tuple[str, ...]:
    """Those units that do not start at boot by themselves. Source: systemctl(1), "is-enabled"."""
    return tuple(unit for unit in units if run("systemctl", "is-enabled", unit).output.endswith("disabled"))


def is_active(unit: str) -> bool:
    return run("systemctl", "is-active", "--quiet", unit).succeeded


def runs(name: str, manager: str) -> bool:
    """Whether the manager keeps a deployment running."""
    if manager == "supervisor":
        return "RUNNING" in program_state(name)
    return is_active(f"{name}.service") and is_active(f"{name}.socket")


def program_state(name: str) -> str:
    """The state of a program in supervisor, once it is settled.

    It calls a program STARTING until that has lived for `startsecs`; until then it may yet fail.
    """
    deadline = time.monotonic() + _START_PATIENCE_S
    while "STARTING" in (said := run("supervisorctl", "status", name).output) and time.monotonic() < deadline:
        time.sleep(0.2)
    return said


def drop_ins(unit: str) -> list[str]:
    """The files that change what a unit says, whoever made them. Source: systemd.unit(5)."""
    return run("systemctl", "show", "--property=DropInPaths", "--value", unit).output.split()


def log_of(units: tuple[str, ...], since: float, lines: int = 20, least: str = "") -> str:
    """The last lines that units wrote to the journal since a moment, in seconds since the epoch.

    Only those that are at least so severe, where that is given.
    """
    which = [f"--unit={unit}" for unit in units] + [f"--priority={least}"] * bool(least)
    return last_of_the_journal(which, since, lines)


def last_of_the_journal(which: Iterable[str], since: float, lines: int) -> str:
    """The last lines since a moment, in seconds since the epoch, of what journalctl(1) finds by these words."""
    # The newest first: otherwise systemd 252 shows as many of the first lines where it is told --since.
    shown = ("--no-pager", "-q", "-o", "cat", "--reverse", "-n", str(lines), f"--since=@{since:.6f}")
    return "".join(f"{line}\n" for line in reversed(run("journalctl", *shown, *which).output.splitlines()))
