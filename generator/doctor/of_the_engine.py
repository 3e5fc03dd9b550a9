"""The engine that joins several hosts: whether it runs where it is served, and whether the unit lets it be reached."""

from typing import NamedTuple

from generator.config.engine import addresses
from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok, skipped, unseen, warning
from generator.doctor.patient import Patient, Unseen, needs_root
from generator.host import hosts, letters
from generator.host.facts import is_active
from generator.host.programs import run
from generator.program import AS_ROOT
from generator.rendering.render import engine_settings
from service.engine.identity import name_of_this_host


class Engine(NamedTuple):
    """The unit that serves it here, if one does, and whether it runs; and what the service's unit lets through.

    `allowed` is None where no systemd answers.
    """

    unit: str
    runs: bool
    allowed: frozenset[str] | None


@look()
def the_engine(patient: Patient) -> Engine:
    if patient.deploy.engine.url is None:
        raise Unseen("this host is alone: engine.url is not set")
    unit = patient.store.engine_unit(patient.store.current)
    shown = run("systemctl", "show", "--value", "--property=IPAddressAllow", f"{patient.deploy.name}.service")
    allowed = frozenset(map(_network, shown.output.split())) if shown.succeeded else None
    return Engine(unit, bool(unit) and is_active(unit), allowed)


@check("engine.serve", see=the_engine, expects=lambda deploy: "it runs" if deploy.engine.serve else "not served here")
def engine_serve(deploy: Deploy, seen: Engine) -> Verdict:
    """The engine runs where deploy.yaml says that it is served, and only there."""
    if deploy.engine.serve != bool(seen.unit):
        said = f"{seen.unit} is installed" if seen.unit else "none is served here"
        return failed(said, f"deploy.yaml says otherwise: `{AS_ROOT} install`")
    if seen.unit and not seen.runs:
        return failed(f"{seen.unit} does not run", f"journalctl -u {seen.unit}")
    return ok(f"{seen.unit} runs" if seen.unit else "it is served elsewhere")


@check("engine.allow", see=the_engine, expects=lambda deploy: " ".join(addresses(deploy)) or "no network")
def engine_allow(deploy: Deploy, seen: Engine) -> Verdict:
    """systemd lets the service reach the engine, and nothing else."""
    if deploy.manager != "systemd":
        return skipped("supervisor confines nothing")
    if seen.allowed is None:
        return skipped("systemd does not answer")
    said = " ".join(sorted(seen.allowed)) or "no network"
    if seen.allowed != frozenset(map(_network, addresses(deploy))):
        return failed(said, f"`systemctl cat {deploy.name}` shows who says so; `{AS_ROOT} install` sets it")
    return ok(said)


class Others(NamedTuple):
    """The other hosts on the engine: whether each and this one have met, and the `engine.silence` of each."""

    met: dict[str, bool]
    silences: dict[str, float]


@look()
def the_hosts(patient: Patient) -> Others | str:
    """Who they are; or why the engine does not say."""
    needs_root()
    if patient.deploy.engine.url is None:
        raise Unseen("this host is alone: engine.url is not set")
    ours = engine_settings(patient.deploy)
    me = name_of_this_host(ours)
    try:
        workers = hosts.heard(ours)
    except hosts.RefusedError as error:
        return str(error)
    if not any(worker.host == me for worker in workers):
        return "the service is not heard on it"
    silences = {worker.host: worker.silence for worker in workers if worker.host != me}
    return Others({host: hosts.has_met(me, workers, host) for host in sorted(silences)}, silences)


@check("engine-hosts", "engine", see=the_hosts, expects="met all others")
def other_hosts(_: Deploy, seen: Others | str) -> Verdict:
    """Every other host on the engine is reached from this one."""
    if isinstance(seen, str):
        return failed(seen, "until then clients of other hosts are not reached")
    if strangers := [host for host, met in seen.met.items() if not met]:
        return failed(f"not reached: {', '.join(strangers)}", "see the service's log, here and there")
    return ok(f"met {', '.join(seen.met)}" if seen.met else "no other host is there")


@check(
    "silence",
    "engine.silence",
    see=the_hosts,
    expects=lambda deploy: f"{deploy.engine.silence:g} s on all hosts",
)
def one_silence(deploy: Deploy, seen: Others | str) -> Verdict:
    """All hosts give each other up after the same time."""
    if isinstance(seen, str):
        return skipped(seen)
    ours = deploy.engine.silence
    if different := [f"{host} has {theirs:g} s" for host, theirs in sorted(seen.silences.items()) if theirs != ours]:
        fix = "set the same engine.silence on all hosts; until then the longer one counts between two of them"
        return warning(", ".join(different), fix)
    return ok(f"{ours:g} s" if seen.silences else "no other host is there")


@look()
def the_letters(patient: Patient) -> list[str]:
    needs_root()
    if patient.deploy.mailbox.keep != "engine":
        raise Unseen("no messages are kept in the engine")
    return [str(fault) for fault in letters.faults(engine_settings(patient.deploy), patient.deploy.mailbox)]


@check("mailbox-kept", "mailbox", see=the_letters, expects="it keeps them, and lets the service store them")
def mailbox_is_kept(_: Deploy, seen: list[str]) -> Verdict:
    """The engine keeps the messages that are stored there, and has room for them."""
    return failed("; ".join(seen), "until then messages may be refused") if seen else ok("it does")


unseen("engine.insecure", "it only lets engine.url be without TLS")
unseen("hosts", "they are for `wsbundle deploy` on another machine")


def _network(address: str) -> str:
    """In one spelling: systemd shows an address as a network of one."""
    from ipaddress import ip_network

    return str(ip_network(address, strict=False))
