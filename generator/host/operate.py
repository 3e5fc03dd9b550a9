"""The commands that concern a host: install, plan, status, history, rollback, uninstall."""

import time
from argparse import Namespace

import msgspec

from generator.bundle import Bundle
from generator.commands import loaded_for, verified
from generator.host import default_site
from generator.host import install as installing
from generator.host.apply import side
from generator.host.certificates import Place
from generator.host.certificates import due as certificate_due
from generator.host.clients import farewell
from generator.host.provide import ROOT, runtime_id
from generator.host.status import DRIFT_FOUND, status, when
from generator.host.store import Store
from generator.host.succession import shared
from generator.host.survey import certificate_will_do
from generator.host.switch import Side, plan
from generator.host.transaction import is_under_way
from generator.load import Loaded
from generator.readers.nginx import DEFAULT_SITE
from generator.render import replaces_workers
from generator.report import CommandError, Report, paint

__all__ = ["DRIFT_FOUND", "history", "install", "rollback", "show_plan", "status", "uninstall"]
CHANGES_PENDING = 3


def install(options: Namespace, report: Report) -> int:
    """Make this host run what deploy.yaml says, or leave it as it is."""
    loaded, bundle = verified(options, report)
    return installing.install(loaded, bundle, report, options.overwrite)


def show_plan(options: Namespace, report: Report) -> int:
    """What `install` would change; nothing is changed."""
    loaded, bundle = verified(options, report)
    store = Store(loaded.deploy.name)
    if is_under_way():
        raise CommandError("an installation is under way; ask again when it has ended")
    before = side(store, store.current)
    todo = plan(before, _planned(loaded, bundle))
    changed = sorted(_changed(store, before, bundle))
    will_do = certificate_will_do(loaded, report)
    asks = certificate_due(loaded.deploy, Place(store.name), time.time())
    report.fact(
        changed=[path for path, _ in changed],
        disconnects=todo.disconnects,
        reloads_service=todo.reloads_service,
        asks_for_certificate=asks,
    )
    for path, diff in changed:
        report.line(f"{paint('changes', 'yellow')} /{path}")
        for line in diff:
            report.line(f"  {paint(line, {'+': 'green', '-': 'red'}.get(line[:1], 'dim'))}")
    if before.runtime != runtime_id():
        report.line(f"{paint('changes', 'yellow')} the service's code or requirements")
    elif not changed and asks is None:
        if will_do:
            report.line("Nothing to do: the host runs this already.")
        return 0 if will_do else 1
    takes = todo.takes_default_site and default_site.stands(store.root)
    was_taken = store.default_site.is_symlink()
    restarts = todo.disconnects or before.runtime != runtime_id()
    effects = {
        "restarts the service": restarts and not todo.reloads_service,
        "reloads the service, worker by worker: nobody who connects has to wait": todo.reloads_service,
        "reloads nginx": todo.reloads_nginx,
        f"asks for a certificate ({asks})": asks is not None,
        f"takes nginx's default site away (/{DEFAULT_SITE})": takes,
        f"brings nginx's default site back (/{DEFAULT_SITE})": todo.returns_default_site and was_taken,
        f"stops {before.manager}'s copy": todo.stops_systemd or todo.stops_supervisor,
    }
    for effect, due in effects.items():
        if due:
            report.line(f"It {effect}.")
    if todo.disconnects and before.name:
        number, becomes = farewell(store, todo)
        report.fact(connections=number)
        report.line(becomes)
    return CHANGES_PENDING if will_do else 1


def history(options: Namespace, report: Report) -> int:
    """The generations that are kept."""
    store = Store(loaded_for(options, report).deploy.name)
    kept = [(number, store.generation(number)) for number in store.numbers() if store.is_whole(number)]
    report.fact(
        current=store.current,
        generations=[msgspec.to_builtins(generation) for _, generation in kept],
    )
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


def _planned(loaded: Loaded, bundle: Bundle) -> Side:
    import json

    manifest = {entry["path"]: entry for entry in json.loads(bundle.manifest())["files"]}
    deploy = loaded.deploy
    return Side(
        name=deploy.name,
        manager=deploy.manager,
        runtime=runtime_id(),
        manifest=manifest,
        default_server=deploy.nginx.default_server,
        replaces_workers=replaces_workers(deploy),
        shared=shared(ROOT),
    )


def _changed(store: Store, before: Side, bundle: Bundle) -> list[tuple[str, list[str]]]:
    import difflib

    after = {file.path: file for file in bundle.files if file.installed and file.link is None}
    paths = {path for path, entry in before.manifest.items() if entry["installed"] and "sha256" in entry} | set(after)
    changes = []
    for path in paths:
        old = _text(store, before, path)
        new = after[path].text if path in after else ""
        if old != new:
            hidden = path.endswith("/.env")  # its values are nobody else's business
            diff = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2)
            changes.append((path, ["(not shown)"] if hidden else list(diff)[2:]))
    return changes


def _text(store: Store, before: Side, path: str) -> str:
    entry = before.manifest.get(path)
    if entry is None or not entry["installed"] or store.current is None:
        return ""
    return store.pristine(store.current, path).read_text(encoding="utf-8")
