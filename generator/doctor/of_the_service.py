"""What the service is, as the kernel, its manager and its own figures show it."""

import os
import re
from typing import Any, NamedTuple

from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok, warning
from generator.doctor.of_the_protocol import INSTALL
from generator.doctor.patient import Patient, Process, Unseen, needs_root, process
from generator.host import facts
from generator.host.quantities import duration
from generator.program import AS_ROOT
from generator.rendering.render import open_files, service_user, settings_in_env
from service.declaration import settings_of
from service.settings import Settings

# From here on more clients than usual may find it full.
NEARLY_FULL = 0.8
_MODULES = {"uvicorn": "service", "gunicorn": "gunicorn", "standalone": "service.server"}


class Managed(NamedTuple):
    """What each manager says: the state of the unit and of the program, starts by itself, and what it needs to know."""

    systemd: str
    supervisor: str
    restarts: int
    result: str
    is_enabled: bool
    is_outdated: bool


@look()
def the_managers(patient: Patient) -> Managed:
    name, unit = patient.deploy.name, patient.unit
    needs_root(patient.deploy.manager == "supervisor")
    supervisor = facts.program_state(name) if os.geteuid() == 0 else ""
    return Managed(
        systemd=unit.get("ActiveState", "unknown"),
        supervisor=next(iter(re.findall(r"^\S+ +([A-Z]+)", supervisor)), "none"),
        restarts=int(unit.get("NRestarts") or 0),
        result=unit.get("Result", ""),
        is_enabled=unit.get("UnitFileState") == "enabled",
        is_outdated=unit.get("NeedDaemonReload") == "yes",
    )


@check("name", see=the_managers, expects=lambda deploy: f"{deploy.name} runs, and has not been restarted by itself")
def name(deploy: Deploy, seen: Managed) -> Verdict:
    """The service of this name runs, starts at boot, and did not have to be started again."""
    log = f"journalctl -u {deploy.name}.service -n 50"
    if deploy.manager == "supervisor":
        fix = f"sudo tail -n 50 /var/log/{deploy.name}/{deploy.name}.log"
        return ok("RUNNING") if seen.supervisor == "RUNNING" else failed(seen.supervisor, f"see the log: {fix}")
    if seen.systemd != "active":
        return failed(f"{seen.systemd} ({seen.result})", f"see the log: {log}")
    if not seen.is_enabled:
        return failed("it runs, and does not start at boot", f"sudo systemctl enable {deploy.name}.service")
    if seen.is_outdated:
        return warning("its unit changed on disk since systemd read it", "sudo systemctl daemon-reload")
    if seen.restarts:
        return warning(f"it was started again {seen.restarts} times", f"find out why it ended: {log}")
    return ok("active")


@check("manager", see=the_managers, expects=lambda deploy: f"{deploy.manager} alone runs it")
def manager(deploy: Deploy, seen: Managed) -> Verdict:
    """The manager runs it, and the other one does not."""
    by = [manager for manager, state in (("systemd", seen.systemd), ("supervisor", seen.supervisor)) if _is_up(state)]
    return ok(by[0]) if by == [deploy.manager] else failed(" and ".join(by) or "neither does", f"{AS_ROOT} install")


def _is_up(state: str) -> bool:
    return state in ("active", "activating", "RUNNING", "STARTING", "BACKOFF")


@look()
def the_process(patient: Patient) -> Process:
    return patient.process


@look()
def the_main_process(patient: Patient) -> Process:
    needs_root()
    return process(patient.pid)


@check("server", see=the_main_process, expects=lambda deploy: f"python -m {_MODULES[deploy.server]}")
def server(deploy: Deploy, seen: Process) -> Verdict:
    """The process runs this server."""
    said = " ".join(seen.command[:4])
    return ok(said) if seen.command[1:3] == ("-m", _MODULES[deploy.server]) else failed(said, INSTALL)


@check("user", see=the_process, expects=service_user)
def user(deploy: Deploy, seen: Process) -> Verdict:
    """The process belongs to this user, who is not root and cannot log in."""
    account = facts.account_of(service_user(deploy))
    if account is None or account.uid != seen.uid:
        return failed(f"uid {seen.uid}", INSTALL)
    if account.uid == 0 or account.can_log_in:
        return warning(f"uid {seen.uid} may log in", f"sudo usermod --shell /usr/sbin/nologin {service_user(deploy)}")
    return ok(f"uid {seen.uid}")


@check(
    "open-files",
    "limits.connections",
    see=the_process,
    expects=lambda deploy: f"at least {open_files(deploy)} files",
)
def files(deploy: Deploy, seen: Process) -> Verdict:
    """The process may open a file for each connection, and more."""
    if seen.files >= open_files(deploy):
        return ok(f"{seen.files} files")
    return failed(f"{seen.files} files", f"something lowers LimitNOFILE: systemctl cat {deploy.name}; {INSTALL}")


@check("env", see=the_process, expects=lambda deploy: ", ".join(deploy.env) or "nothing")
def env(deploy: Deploy, seen: Process) -> Verdict:
    """The process has these variables."""
    other = [name for name, text in deploy.env.items() if seen.environ.get(name) != text]  # values may be secrets
    return ok(f"{len(deploy.env)} variables") if not other else failed(f"other values of {', '.join(other)}", INSTALL)


@check("settings", "name", see=the_process, expects="those of deploy.yaml")
def settings(deploy: Deploy, seen: Process) -> Verdict:
    """The process has the settings that deploy.yaml gives, every one of them."""
    wanted = settings_in_env(deploy)
    wanted.pop("WEBSOCKET_APP_DIRECTORY", None)  # a worker has the place that it led to when it was started
    other = [name for name, text in wanted.items() if seen.environ.get(name, "") != text]
    if other:
        return failed(f"other values of {', '.join(other)}", f"{AS_ROOT} plan shows it, {AS_ROOT} install does it")
    return ok(f"{len(wanted)} variables")


IN_FORCE = {
    setting.key: setting.extra["env"]
    for setting in settings_of(Settings)
    if setting.key.startswith(("app.", "drain.", "log.", "engine.", "mailbox.")) and setting.key != "drain.keep"
}
"""The settings that show in the process alone, each with its variable."""


def _in_force(key: str, variable: str) -> None:
    """Enter the check of one of them."""

    def judge(deploy: Deploy, seen: Process) -> Verdict:
        """The process has this value."""
        wanted, there = settings_in_env(deploy).get(variable, ""), seen.environ.get(variable, "")
        return ok(there or "not used") if there == wanted else failed(there or "nothing", INSTALL)

    check(key, see=the_process, expects=lambda deploy: settings_in_env(deploy).get(variable) or "not used")(judge)


for _key, _variable in IN_FORCE.items():
    _in_force(_key, _variable)


@look()
def the_figures(patient: Patient) -> dict[str, Any]:
    return patient.figures


@check("limits.connections", see=the_figures, expects=lambda deploy: f"room below {deploy.limits.connections}")
def connections(deploy: Deploy, seen: dict[str, Any]) -> Verdict:
    """The service has this limit, and there is room for more clients."""
    limit, there = deploy.limits.connections, int(seen["connections"])
    said, in_force = f"{there} of {limit}", seen["limit"]["connections"]
    if in_force != limit:
        return failed(f"a limit of {in_force}", INSTALL)
    if there >= limit:
        return failed(
            f"{said}: it is FULL, and refuses clients with 503", "raise limits.connections: docs/connections.md"
        )
    if there >= NEARLY_FULL * limit:
        return warning(f"{said}: it is nearly full", "raise limits.connections: docs/connections.md")
    return ok(said)


def _limit(name: str) -> None:
    """Enter a check of a limit that only many clients, or much of one, would show."""

    def judge(deploy: Deploy, seen: dict[str, Any]) -> Verdict:
        there = seen["limit"][name]
        return ok(there) if there == getattr(deploy.limits, name) else failed(there, INSTALL)

    judge.__doc__ = "The service has this limit."
    check(f"limits.{name}", see=the_figures, expects=lambda deploy: str(getattr(deploy.limits, name)))(judge)


for _each in ("connections_per_address", "messages_per_second", "bytes_per_second", "queue"):
    _limit(_each)


@check("slow-clients", "limits.queue", see=the_figures, expects="none was closed with 4101")
def slow_clients(_: Deploy, seen: dict[str, Any]) -> Verdict:
    """No client read so slowly that its queue overflowed."""
    closed = seen["connections_closed"]["4101"]
    fix = "they, or their networks, are slow; `log.level: info` names them: docs/troubleshoot.md"
    return ok("none") if not closed else warning(f"{closed} slow clients were closed with 4101 since the start", fix)


@look()
def the_engine(patient: Patient) -> dict[str, Any]:
    if patient.deploy.engine.url is None:
        raise Unseen("there is no engine: this host is alone")
    return patient.figures


@check("engine-up", "engine", see=the_engine, expects="what a worker publishes comes back from the engine")
def engine_is_up(deploy: Deploy, seen: dict[str, Any]) -> Verdict:
    """The engine answers, so that clients of other hosts can be reached."""
    if not seen["engine_up"]:
        fix = f"is it running, and does the password fit? journalctl -u {deploy.name} -n 20 says why"
        return failed(f"{deploy.engine.url} does not answer", fix)
    return ok(f"after {seen['engine_beat_seconds'] * 1000:.0f} ms; {seen['engine_hosts']} other hosts")


class Workers(NamedTuple):
    """How many workers serve, how many of them answer, and how many CPUs the service may use; `silent` has the
    process ids of the others, and for how long each has not answered.
    """

    serve: int
    counted: int
    cpus: int
    silent: tuple[tuple[int, float], ...] = ()


@look()
def the_workers(patient: Patient) -> Workers:
    figures, stats = patient.figures, patient.stats
    cpus = len(os.sched_getaffinity(patient.pid)) if patient.deploy.workers == "auto" else 0
    stale = [worker for worker in stats["workers"] if "stale_since" in worker]
    silent = tuple((worker["pid"], stats["time"] - worker["stale_since"]) for worker in stale)
    return Workers(figures["workers"], figures["workers_counted"], cpus, silent)


@check("workers", see=the_workers, expects=lambda deploy: f"{deploy.workers}, and each answers")
def workers(deploy: Deploy, seen: Workers) -> Verdict:
    """So many workers serve, and each of them answers."""
    wanted = seen.cpus if deploy.workers == "auto" else deploy.workers
    log = f"journalctl -u {deploy.name} says why"
    if seen.serve != wanted:
        return failed(f"{seen.serve} of {wanted} serve", f"a worker ended, or was stopped: {log}")
    if seen.counted < seen.serve:
        who = ", ".join(f"worker {pid} for {duration(seconds)}" for pid, seconds in seen.silent)
        said = f"{seen.serve - seen.counted} of {wanted} do not answer" + (f": {who}" if who else "")
        return failed(said, f"a worker hangs: {log}")
    return ok(seen.serve)


@look()
def the_other_hosts(patient: Patient) -> dict[str, float]:
    """For how long a worker of each other host has not answered; 0 where all of them do."""
    if patient.deploy.engine.url is None:
        raise Unseen("there is no engine: this host is alone")
    now = patient.stats["time"]
    return {host["host"]: now - host.get("stale_since", now) for host in patient.stats["hosts"][1:] if host["up"]}


@check("engine-workers", "engine", see=the_other_hosts, expects="each answers")
def other_workers(_: Deploy, seen: dict[str, float]) -> Verdict:
    """The workers of all other hosts that are reached say how they are."""
    if silent := [f"{host} for {duration(seconds)}" for host, seconds in seen.items() if seconds]:
        return warning(f"a worker does not answer: {', '.join(silent)}", "run the doctor there: the worker hangs")
    return ok(", ".join(seen) or "no other host is there")
