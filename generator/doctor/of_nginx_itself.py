"""nginx itself: how much it carries, whether it runs with its files as they are, and what it complains of."""

import os
import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok, warning
from generator.doctor.of_nginx import LOGS, RECENTLY_S, RELOAD
from generator.doctor.patient import Patient, Process, Unseen, children, needs_root, process
from generator.host import facts
from generator.host.programs import has, run
from generator.paths import SHARED, Paths
from generator.readers.nginx import HOST, main_text
from generator.rendering.render import nginx_connections, worker_rlimit_nofile

_PID = "run/nginx.pid"
NEARLY_FULL = 0.8
# Not what `refusals` counts, and what the doctor's own requests leave.
_REFUSED = r'access forbidden by rule|limiting (requests|connections)|broken header: "GET /doctor '
_ERROR = rf"\[(error|crit|alert|emerg)\] (?!.*({_REFUSED}))"


class Load(NamedTuple):
    """What nginx can carry by its configuration, and what its busiest worker has open."""

    carries: facts.Carries
    busiest: int
    workers: int


@look()
def the_load(patient: Patient) -> Load:
    main = main_text()
    if main is None:
        raise Unseen(f"{HOST}/nginx.conf cannot be read")
    needs_root()
    sockets = [_sockets(pid) for pid in children(_master(patient))]
    return Load(facts.nginx_carries(main), max(sockets, default=0), len(sockets))


def _master(patient: Patient) -> int:
    try:
        return int((patient.store.root / _PID).read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise Unseen("nginx does not run: systemctl status nginx") from None


def _sockets(pid: int) -> int:
    with suppress(OSError):
        directory = f"/proc/{pid}/fd"
        return sum(os.readlink(f"{directory}/{each}").startswith("socket:") for each in os.listdir(directory))
    return 0


@check(
    "nginx-connections",
    "limits.connections",
    see=the_load,
    expects=lambda deploy: f"worker_connections times worker_processes of {nginx_connections(deploy)}",
)
def carries(deploy: Deploy, seen: Load) -> Verdict:
    """nginx takes as many connections as the service, two for each client, and no worker of it is nearly full."""
    needed, each = nginx_connections(deploy), seen.carries.worker_connections
    there = each * seen.carries.worker_processes
    said = f"{each} times {seen.carries.worker_processes} is {there}; its busiest worker has {seen.busiest} open"
    fix = f"raise worker_connections in {HOST}/nginx.conf, then {RELOAD}: docs/connections.md#nginx"
    if seen.busiest >= NEARLY_FULL * each:
        return failed(f"{said}: clients are, or soon will be, refused", fix)
    return ok(said) if there >= needed else warning(f"{said}, too few for {deploy.limits.connections} clients", fix)


@look()
def a_worker_of_nginx(patient: Patient) -> Process:
    needs_root()
    workers = children(_master(patient))
    if not workers:
        raise Unseen("nginx has no workers")
    return process(max(workers))


@check(
    "nginx-files",
    "limits.connections",
    see=a_worker_of_nginx,
    expects=lambda deploy: f"at least {worker_rlimit_nofile(deploy)} files",
)
def files(deploy: Deploy, seen: Process) -> Verdict:
    """A worker of nginx may open the files that its connections need."""
    said = f"{seen.files} files"
    if seen.files >= worker_rlimit_nofile(deploy):
        return ok(said)
    return failed(said, f"nginx was not restarted, or nginx.conf sets worker_rlimit_nofile: {RELOAD}")


class Reloaded(NamedTuple):
    """When nginx started its youngest worker, and which file of its configuration is younger."""

    workers_since: float
    newest: str
    changed: float


@look()
def the_last_reload(patient: Patient) -> Reloaded:
    needs_root()
    since = max((process(pid).started for pid in children(_master(patient))), default=0.0)
    paths = [HOST / "nginx.conf", Path("/", SHARED), Path("/", Paths(patient.deploy.name).site)]
    changed = {str(path): path.stat().st_mtime for path in paths if path.exists()}
    newest = max(changed, key=changed.__getitem__, default="")
    return Reloaded(since, newest, changed.get(newest, 0.0))


@check("nginx-reloaded", "nginx", see=the_last_reload, expects="nginx runs with its files as they are")
def reloaded(_: Deploy, seen: Reloaded) -> Verdict:
    """nginx was reloaded since its configuration changed."""
    if seen.changed <= seen.workers_since + 1:
        return ok("no file is younger than its workers")
    return warning(f"{seen.newest} changed since nginx read it", RELOAD)


@look()
def the_test_of_nginx(_: Patient) -> str:
    needs_root()
    if not has("nginx"):
        raise Unseen("nginx is not installed")
    return facts.nginx_fault()


@check("nginx-configuration", "nginx", see=the_test_of_nginx, expects="nginx -t accepts it")
def configuration(_: Deploy, seen: str) -> Verdict:
    """nginx accepts its configuration, so that the next reload and the next boot succeed."""
    return failed(seen, "fix the file that it names, which may be another site's") if seen else ok("accepted")


@look()
def the_errors_of_nginx(patient: Patient) -> list[str]:
    """What nginx logged as an error or worse in ten minutes, of this site and as a whole."""
    needs_root()
    logs, found = patient.store.root / LOGS, []
    for path in (logs / "error.log", logs / f"{patient.deploy.name}_error.log"):
        lines = run("tail", "-n", "500", str(path)).output.splitlines()
        found += [line for line in lines if re.search(_ERROR, line) and _is_recent(line)]
    return found


def _is_recent(line: str) -> bool:
    with suppress(ValueError):
        return time.mktime(time.strptime(line[:19], "%Y/%m/%d %H:%M:%S")) > time.time() - RECENTLY_S
    return False


@check("nginx-log", "nginx", see=the_errors_of_nginx, expects="no errors in ten minutes")
def log(_: Deploy, seen: list[str]) -> Verdict:
    """nginx logged no errors in the last ten minutes."""
    if not seen:
        return ok("none")
    kinds = Counter(re.sub(r"^.*?\]\s+\d+#\d+:\s+(\*\d+ )?|, client: .*$", "", line) for line in seen)
    said = "; ".join(f"{count} times {kind}" for kind, count in kinds.most_common(3))
    return warning(said, f"sudo tail /{LOGS}/*error.log; docs/troubleshoot.md")
