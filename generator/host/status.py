"""`wsbundle status`: what runs here, whether clients get through, and whether the host is as it was installed."""

import json
import os
import time
from argparse import Namespace
from collections import Counter

from msgspec.structs import replace

from generator.commands import loaded_for
from generator.config.project import Project
from generator.config.schema import Deploy
from generator.config.sources import project_of
from generator.host.certificates import Place, described, not_renewed, refusals
from generator.host.clients import connections, deaf, health
from generator.host.drift import drifts
from generator.host.facts import is_active, runs
from generator.host.fitting import fitted
from generator.host.hosts import RefusedError, has_met, heard
from generator.host.next_start import as_written, certificate_of, told
from generator.host.probe import CLIENTS_PATIENCE_S, silence
from generator.host.provide import app_id, outdated, runtime_id
from generator.host.store import Generation, Store
from generator.host.transaction import endpoint, is_under_way
from generator.host.x509 import served
from generator.program import COMMAND
from generator.rendering.render import render
from generator.report import NOT_ROOT, CommandError, Report
from service.engine.identity import name_of_this_host

DRIFT_FOUND = 4


def status(options: Namespace, report: Report) -> int:
    """Report it all, and fail when clients do not get through, or will not for long. Nothing is changed."""
    loaded = loaded_for(options, report)
    deploy = loaded.deploy
    if os.geteuid():
        report.warning(NOT_ROOT)
    store, under_way = Store(deploy.name), is_under_way()
    number = store.current
    if number is None:
        why = "an installation is under way" if under_way else store.ruins()
        raise CommandError(f"{store.name} is not installed" + (f": {why}" if why else ""))
    generation = store.generation(number)
    rows, works = _of_the_service(store, generation, report)
    works = works and _add_mailboxes(store, rows, report)  # a listener starts the service when it is asked
    same = is_as_deployed(deploy, project_of(loaded), store, generation)
    report.fact(as_deployed=same)
    if not same:
        rows["deploy.yaml"] = f"asks for something else than what runs: `{COMMAND} plan` shows it"
    works &= _add_what_is_pending(store, under_way, rows, report)
    if aged := outdated(store, number):
        rows["python"] = f"{aged}: run `{COMMAND} install`"
    report.fact(generation=number, outdated=aged)
    works &= aged is None
    if generation.tls != "off" and os.geteuid() == 0:  # keys and certbot's directories are root's
        shown, certificate = served(endpoint(generation)), certificate_of(store, number)
        there = replace(as_written(store.name, generation), tls=generation.tls, certificate=certificate)
        works &= _add_certificate(there, store, shown, rows, report)
    if os.geteuid() == 0 and not under_way:  # others may not test nginx; and what is being changed is half changed
        works &= _add_next_start(store, rows, report)
    if generation.joined.url is not None:
        works &= _add_hosts(generation, rows, report)
    for name, text in rows.items():
        report.line(f"{name + ':':13} {text}")
    found = [] if under_way else drifts(store)  # what is being changed is half changed
    report.fact(drift=[drift.path for drift in found])
    for drift in found:
        report.line(str(drift))
    return 1 if not works else DRIFT_FOUND if found else 0


def when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _of_the_service(store: Store, generation: Generation, report: Report) -> tuple[dict[str, str], bool]:
    """Asked as the proof of an installation asks: a process that is there need not answer."""
    # supervisor answers root alone; whether clients get through can be asked all the same.
    active = runs(store.name, generation.manager) or (os.geteuid() != 0 and generation.manager == "supervisor")
    nginx = is_active("nginx.service")
    why = silence(endpoint(generation), CLIENTS_PATIENCE_S) if active and nginx else None
    answers = active and nginx and why is None
    unheard = deaf(store, generation.listener) if active and not is_under_way() else None
    number = connections(store) if why is None else None
    report.fact(running=active, answering=answers, nginx=nginx, connections=number)
    state = "NOT RUNNING" if not active else "running" if why is None else f"NOT ANSWERING ({why})"
    rows = {
        "deployment": f"{store.name}, generation {generation.number} of {when(generation.installed_at)}",
        "service": f"{state}, {generation.server} under {generation.manager}",
        "nginx": "running" if nginx else "NOT RUNNING",
    }
    if not generation.app:
        rows["connections"] = "unknown" if number is None else str(number)
    report.fact(unheard="" if unheard is None else unheard.what)
    if unheard is not None:
        rows["port"] = f"NOT REACHED: {unheard}"
    return rows, answers and unheard is None


def _add_mailboxes(store: Store, rows: dict[str, str], report: Report) -> bool:
    """Whether what is sent to them is stored."""
    fails = health(store).get("mailbox") == "failing"
    report.fact(mailboxes_failing=fails)
    if fails:
        rows["mailboxes"] = f"FAILING: what is sent to them is refused; `{COMMAND} logs` says why"
    return not fails


def is_as_deployed(deploy: Deploy, project: Project | None, store: Store, generation: Generation) -> bool:
    """Whether an installation would find nothing to do; not after a rollback, say, or a change of deploy.yaml."""
    wanted = json.loads(fitted(render(deploy), deploy, store).manifest())["files"]
    is_made_of = (generation.runtime, generation.app) == (runtime_id(project), app_id(deploy, project))
    return wanted == list(store.manifest(generation.number).values()) and is_made_of


def _add_what_is_pending(store: Store, under_way: bool, rows: dict[str, str], report: Report) -> bool:
    """Whether nothing is left half-done."""
    pending = store.pending is not None
    report.fact(pending=pending, under_way=under_way)
    if under_way:
        rows["unfinished"] = "an installation is under way"
    elif pending:
        rows["unfinished"] = "a change was cut short; the next installation undoes it first"
    return under_way or not pending


def _add_next_start(store: Store, rows: dict[str, str], report: Report) -> bool:
    """Whether clients will be served after it as well."""
    found = told(store, report)
    report.fact(next_start=found)
    if found:
        rows["next start"] = "\n".join(["WILL NOT SERVE AS NOW", *(f"  {why}" for why in found)])
    return not found


def _add_hosts(generation: Generation, rows: dict[str, str], report: Report) -> bool:
    """Whether all other hosts that are on the engine are reached. Only root can read its password."""
    me = name_of_this_host(generation.joined)
    try:
        workers = heard(generation.joined)
    except RefusedError as error:
        unknown = os.geteuid() != 0 and generation.joined.password_file is not None
        rows["hosts"] = f"unknown: {error}" if unknown else f"ALONE: {error}"
        report.fact(hosts=None, alone=not unknown)
        return unknown
    names = Counter(worker.host for worker in workers)
    met = {host: has_met(me, workers, host) for host in names if host != me}
    words = [f"{me} (this one)", *(host if met[host] else f"{host} (NOT REACHED)" for host in sorted(met))]
    is_joined = me in names and all(met.values())
    why = "" if me in names else "ALONE: the service is not heard on the engine; "
    rows["hosts"] = f"{why}{len(words)}: {', '.join(words)}"
    report.fact(hosts={"this": me, "reached": met}, alone=not is_joined)
    return is_joined


def _add_certificate(deploy: Deploy, store: Store, shown: bytes | None, rows: dict[str, str], report: Report) -> bool:
    """Whether clients take it, and will after its end as well."""
    place, now = Place(store.name), time.time()
    stays = not_renewed(deploy, place)
    refused = [str(fault) for fault in refusals(deploy, place, now, shown)]
    certificate = described(deploy, place, now, shown)
    report.fact(certificate={**certificate, "refused": refused, "not_renewed": stays})
    lines = [f"  CLIENTS REFUSE IT: {why}" for why in refused]
    lines += [f"  CERTBOT WILL NOT RENEW IT: {stays}; the next installation asks for another"] * bool(stays)
    rows["certificate"] = "\n".join([str(certificate["text"]), *lines])
    return not refused and not stays
