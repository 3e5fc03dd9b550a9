"""The commands that concern a host: install, plan, status, history, rollback, uninstall."""

import os
from argparse import Namespace

import msgspec

from generator.commands import loaded_for, verified
from generator.config.load import Loaded
from generator.host import belongings
from generator.host import install as installing
from generator.host.apply import side
from generator.host.drift import drifts
from generator.host.engine import flavour_of
from generator.host.fitting import fitted
from generator.host.install import EDITED, amiss, is_anothers, unwell
from generator.host.logs import logs
from generator.host.people import clients, kick
from generator.host.preflight import is_clear
from generator.host.preview import lines, preview
from generator.host.provide import ROOT, app_id, runtime_id
from generator.host.status import DRIFT_FOUND, status, when
from generator.host.store import Store
from generator.host.succession import shared, states
from generator.host.switch import Side, plan
from generator.host.top import top
from generator.host.transaction import is_under_way
from generator.paths import engine_unit
from generator.rendering.bundle import Bundle
from generator.rendering.render import engine_settings, keeps_clients, replaces_workers, service_user
from generator.report import NOT_ROOT, CommandError, Report

__all__ = [
    "DRIFT_FOUND",
    "clients",
    "history",
    "install",
    "kick",
    "logs",
    "rollback",
    "show_plan",
    "status",
    "top",
    "uninstall",
]
CHANGES_PENDING = 3


def install(options: Namespace, report: Report) -> int:
    """Make this host run what deploy.yaml says, or leave it as it is."""
    loaded, bundle = _fitted(options, report)
    return installing.install(loaded, bundle, report, options.overwrite)


def show_plan(options: Namespace, report: Report) -> int:
    """What `install` would change; nothing is changed."""
    loaded, bundle = _fitted(options, report)
    store = Store(loaded.deploy.name)
    if is_under_way():
        raise CommandError("an installation is under way; ask again when it has ended")
    # Read even if nothing is to be done, as by an installation.
    takes_over = is_anothers(store, belongings.recorded(store, service_user(loaded.deploy)))
    before, after = side(store, store.current), _planned(loaded, bundle)
    wrong = [] if os.geteuid() else amiss(store)
    todo = plan(before, after, everything=bool(wrong))
    shown = preview(loaded.deploy, bundle, store, before, after, todo, wrong)
    report.fact(
        **msgspec.to_builtins(shown),
        counts=shown.counts,
        disconnects=todo.disconnects and store.current is not None,
        reloads_service=todo.reloads_service,
    )
    is_due = bool(shown.changes or shown.effects)
    may_go_on = _may_go_on(loaded, bundle, store, report, is_due or takes_over, options.joins)
    if is_due:
        for line in lines(shown, options.full):
            report.line(line)
    elif may_go_on:
        report.line("Nothing to do: the host runs this already.")
    if not may_go_on:
        report.error("`install` would stop at what is named above, and change nothing.")
        return 1
    return CHANGES_PENDING if is_due else 0


def _may_go_on(loaded: Loaded, bundle: Bundle, store: Store, report: Report, looks: bool, joins: bool) -> bool:
    """Whether `install` would do what is planned; reports what would stop it. Only root can tell."""
    if os.geteuid():
        report.warning(NOT_ROOT)
        return True
    found = drifts(store)
    report.fact(drift=[drift.path for drift in found])
    for drift in found:
        report.line(str(drift))
    if found:
        report.error(EDITED)
    if looks:
        return is_clear(loaded, store, bundle, report, joins) and not found
    return not unwell(loaded, store, bundle, report) and not found


def history(options: Namespace, report: Report) -> int:
    """The generations that are kept."""
    store = Store(loaded_for(options, report).deploy.name)
    kept = [(number, store.generation(number)) for number in store.numbers() if store.is_whole(number)]
    report.fact(
        current=store.current,
        generations=[msgspec.to_builtins(generation) for _, generation in kept],
    )
    if not kept:
        report.line(f"No generation is kept: {store.name} is not installed.")
    for number, generation in kept:
        mark = "current" if number == store.current else "" if generation.healthy else "never healthy"
        what = f"{generation.server} under {generation.manager}, {generation.domain}"
        report.line(f"{number:4}  {when(generation.installed_at)}  {what}  {mark}".rstrip())
    return 0


def rollback(options: Namespace, report: Report) -> int:
    """Make an earlier generation current again."""
    return installing.rollback(loaded_for(options, report).deploy, options.number, report)


def uninstall(options: Namespace, report: Report) -> int:
    """Remove exactly what was installed."""
    return installing.uninstall(loaded_for(options, report).deploy, report, options.purge)


def _fitted(options: Namespace, report: Report) -> tuple[Loaded, Bundle]:
    """What is rendered, with what this host installs of it."""
    loaded, bundle = verified(options, report)
    return loaded, fitted(bundle, loaded.deploy, Store(loaded.deploy.name))


def _planned(loaded: Loaded, bundle: Bundle) -> Side:
    import json

    manifest = {entry["path"]: entry for entry in json.loads(bundle.manifest())["files"]}
    deploy = loaded.deploy
    return Side(
        name=deploy.name,
        manager=deploy.manager,
        runtime=runtime_id(loaded.project),
        app=app_id(deploy, loaded.project),
        manifest=manifest,
        default_server=deploy.nginx.default_server,
        replaces_workers=replaces_workers(deploy),
        shared=shared(ROOT),
        keeps=states(ROOT) if keeps_clients(deploy) else "",
        is_joined=engine_settings(deploy).url is not None,
        engine=engine_unit(flavour_of(bundle), deploy.name),
        replaces=deploy.replaces,
    )
