"""The host around it: DNS, disk, clock, what was edited, and what the journal says."""

import ctypes
import os
import re
import time
from typing import NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from generator.config.schema import Deploy, domains, serves_app
from generator.doctor.checks import Verdict, check, failed, look, ok, unseen, warning
from generator.doctor.of_nginx import logged
from generator.doctor.patient import Patient, needs_root
from generator.doctor.wire import AGENT, ask, connected
from generator.host import facts
from generator.host.belongings import directories_of
from generator.host.drift import drifts
from generator.host.programs import run
from generator.host.provide import ROOT
from generator.host.status import is_as_deployed
from generator.host.transaction import is_under_way
from generator.program import AS_ROOT

_PLACES = ("/", "/opt", "/var/log", "/var/lib", "/run", "/tmp")
# Below this, programs of the host begin to fail; below the share, somebody should look.
_NEEDED_BYTES = 100 * 1024 * 1024
_LOW = 0.1
_RESTARTED_S = 600  # what an end was preceded by stands in the journal before the new start
_UNSYNCHRONIZED = 5  # TIME_ERROR: adjtimex(2)
_SKEW_S = 60.0


class Names(NamedTuple):
    """Where each domain leads, the addresses of this host, and the domains that nginx takes for another site's."""

    leads_to: dict[str, frozenset[str]]
    ours: frozenset[str]
    unserved: tuple[str, ...] = ()


@look()
def the_names(patient: Patient) -> Names:
    ours = {*facts.addresses(), *facts.HERE}
    names = domains(patient.deploy)
    leads_to = {name: frozenset(facts.addresses_of(name)) for name in names}
    return Names(leads_to, frozenset(ours), tuple(name for name in names if not _is_served(patient, name)))


def _is_served(patient: Patient, name: str) -> bool:
    """Whether a client that asks nginx for a name gets this site; where nobody gets in, `message` says so."""
    agent = f"{AGENT} {uuid4()}"
    try:
        answer = ask(connected(replace(patient.endpoint, domain=name)), "/doctor", name, User_Agent=agent)
        if serves_app(patient.deploy):  # which answers as it likes
            return logged(patient, agent) is not None
        return b"WebSocket endpoint only" in answer.body
    except OSError:
        return True


@check("domain", see=the_names, expects=lambda deploy: f"{' and '.join(domains(deploy))} lead here")
def domain(deploy: Deploy, seen: Names) -> Verdict:
    """Each domain leads to this host, or to the load balancer in front, and there to this site."""
    to = {name: f"to {', '.join(sorted(there))}" if there else "nowhere" for name, there in seen.leads_to.items()}
    said = "; ".join(f"{name} leads {where}" for name, where in to.items())
    if lost := [name for name, there in seen.leads_to.items() if not there]:
        return failed(said, f"add a DNS record for {' and '.join(lost)}; until then clients do not find it")
    if seen.unserved:
        what = f"{said}; nginx takes {' and '.join(seen.unserved)} for another site's"
        return failed(what, f"{AS_ROOT} install; sudo nginx -T | grep server_name shows whose it is")
    astray = [name for name, there in seen.leads_to.items() if not there & seen.ours]
    if not astray or deploy.nginx.trusted_proxies:
        return ok(said)
    what = f"{said}; of {' and '.join(astray)} that is none of this host's"
    return warning(what, "right behind a router; else change the DNS record")


class Room(NamedTuple):
    """The share and the bytes that are free for programs without privileges, of bytes and of files."""

    share: float
    free: int
    files: float


@look()
def the_disks(patient: Patient) -> dict[str, Room]:
    found: dict[int, tuple[str, Room]] = {}
    for path in filter(os.path.isdir, (*_PLACES, *directories_of(patient.deploy.name))):
        status, device = os.statvfs(path), os.stat(path).st_dev
        files = status.f_favail / status.f_files if status.f_files else 1.0
        room = Room(status.f_bavail / max(1, status.f_blocks), status.f_bavail * status.f_frsize, files)
        found.setdefault(device, (path, room))
    return dict(found.values())


@check("disk", "name", see=the_disks, expects="100 MiB and a tenth are free everywhere")
def disk(_: Deploy, seen: dict[str, Room]) -> Verdict:
    """There is room on every file system that the service, nginx and the journal write to."""
    rows = {path: f"{path}: {room.free // 1024**2} MiB ({room.share:.0%}) free" for path, room in seen.items()}
    full = [path for path, room in seen.items() if _is_full(room)]
    if full:
        fix = "sudo du -xh --max-depth=2 PATH | sort -h | tail; sudo journalctl --vacuum-size=200M; sudo apt-get clean"
        return failed("; ".join(f"{rows[path]}, FULL" for path in full), fix.replace("PATH", full[0]))
    low = [path for path, room in seen.items() if min(room.share, room.files) < _LOW]
    if low:
        return warning(
            "; ".join(rows[path] for path in low), f"make room: sudo du -xh --max-depth=2 {low[0]} | sort -h | tail"
        )
    return ok("; ".join(rows.values()))


def _is_full(room: Room) -> bool:
    return room.files < 0.01 or (room.free < _NEEDED_BYTES and room.share < _LOW)


class Clock(NamedTuple):
    """Whether something keeps the clock right; by how many seconds something on this host is from the future."""

    is_kept: bool
    behind_s: float
    evidence: str


class _Timex(ctypes.Structure):
    """Of <sys/timex.h>: only asked with no mode, so that nothing is set; the rest is room for what we do not read."""

    _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 256)]


@look()
def the_clock(patient: Patient) -> Clock:
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(_Timex()))
    witnesses = {"the program itself": (ROOT / "pyproject.toml").stat().st_mtime}
    number = patient.store.current
    if number is not None:
        witnesses["the last installation"] = patient.store.generation(number).installed_at
    youngest = max(witnesses, key=witnesses.__getitem__)
    return Clock(state != _UNSYNCHRONIZED, witnesses[youngest] - time.time(), youngest)


@check("clock", "tls", "auth", see=the_clock, expects="right, and something keeps it so")
def clock(_: Deploy, seen: Clock) -> Verdict:
    """The clock is right: certificates and tokens are checked against it."""
    fix = "sudo timedatectl set-ntp true; timedatectl shows whether that works"
    if seen.behind_s > _SKEW_S:
        return failed(f"it is at least {_span(seen.behind_s)} behind: {seen.evidence} is younger", fix)
    if not seen.is_kept:
        return warning("nothing synchronizes it", fix)
    return ok("synchronized")


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"


@look()
def the_edits(patient: Patient) -> list[str]:
    needs_root()
    return [] if is_under_way() else [f"/{drift.path} {drift.what}" for drift in drifts(patient.store)]


@check("drift", "name", see=the_edits, expects="every file is as it was installed")
def drift(_: Deploy, seen: list[str]) -> Verdict:
    """No file was edited, replaced, removed or given another owner or mode by hand."""
    fix = f"move an edit into deploy.yaml, then {AS_ROOT} install --overwrite; {AS_ROOT} status shows the difference"
    return failed("; ".join(seen), fix) if seen else ok("none differs")


class Deployed(NamedTuple):
    """Whether the host has what deploy.yaml asks for, and whether a change has stopped half-way."""

    is_same: bool
    is_unfinished: bool


@look()
def the_deployment(patient: Patient) -> Deployed:
    number, store = patient.store.current, patient.store
    is_same = number is not None and is_as_deployed(patient.deploy, patient.project, store, store.generation(number))
    return Deployed(is_same, store.pending is not None and not is_under_way())


@check("deployed", "name", see=the_deployment, expects="deploy.yaml as it is")
def deployed(_: Deploy, seen: Deployed) -> Verdict:
    """What is installed is what deploy.yaml asks for, and no change was cut short."""
    if seen.is_unfinished:
        return failed("a change was cut short", f"{AS_ROOT} install undoes it first")
    fix = f"{AS_ROOT} plan shows it, {AS_ROOT} install does it"
    return ok("installed") if seen.is_same else warning("deploy.yaml asks for something else than what runs", fix)


@look()
def the_log(patient: Patient) -> list[str]:
    """Warnings and errors since the service was started; where systemd had to start it again, of what came before."""
    needs_root()
    deploy = patient.deploy
    if deploy.manager == "supervisor":
        said = run("tail", "-n", "500", f"/var/log/{deploy.name}/{deploy.name}.log").output.splitlines()
        return [line for line in said if re.search(r"\b(WARNING|ERROR|CRITICAL)\b|\"level\": ?\"(warning|error)", line)]
    before = _RESTARTED_S if int(patient.unit.get("NRestarts") or 0) else 0
    since = time.time() - 86_400 if patient.unit.get("MainPID", "0") == "0" else patient.started - before
    return facts.log_of(patient.store.units, since, 200, "warning").splitlines()


@check("journal", "name", "log", see=the_log, expects="no warning since it was started")
def journal(deploy: Deploy, seen: list[str]) -> Verdict:
    """The service has logged no warning since it was started."""
    if not seen:
        return ok("none")
    where = f"journalctl -u {deploy.name} -p warning" if deploy.manager == "systemd" else "docs/logs.md"
    # Lines that come again and again, such as those of systemd at every start, hide no other.
    last = list(dict.fromkeys(reversed(seen)))[4::-1]
    return warning(f"{len(seen)} lines, the last ones: " + " | ".join(last), f"read them: {where}")


unseen("replaces", "`wsbundle plan` names what is still there of it")
