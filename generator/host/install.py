"""`wsbundle install`, `rollback` and `uninstall`.

A first installation that fails leaves no service and nothing in /etc. What it leaves serves the next try: Debian's
packages, and where it got that far the user and /opt/<name>/runtimes; `uninstall --purge` removes the latter two.
"""

import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from generator.config.load import Loaded
from generator.config.schema import Deploy
from generator.host import belongings, certificates, own_site, undoing
from generator.host.belongings import Belongings
from generator.host.by_hand import ByHand
from generator.host.certificates import Place
from generator.host.clients import changed_by, deaf
from generator.host.drift import Drift, copies, drifts, keep_copy, set_aside
from generator.host.engine import Password, flavour_of
from generator.host.facts import is_active, missing_packages, runs
from generator.host.fitting import fitted
from generator.host.keys import lacks_keys
from generator.host.made_once import damage
from generator.host.next_start import comes_back, lost
from generator.host.obstacles import packages
from generator.host.packages import install_packages
from generator.host.preflight import certificate_will_do, is_clear, preflight
from generator.host.probe import CLIENTS_PATIENCE_S, Unhealthy, probe
from generator.host.programs import StepFailed
from generator.host.provide import (
    app_id,
    can_start,
    make_application,
    make_runtime,
    outdated,
    runtime_id,
    stage,
)
from generator.host.rehearsal import Rehearsal
from generator.host.store import Store
from generator.host.transaction import alone, change, endpoint, finish_earlier, give_back, leave, undisturbed
from generator.judge import judge
from generator.paths import Paths
from generator.program import AS_ROOT
from generator.rendering.bundle import Bundle
from generator.rendering.render import service_user
from generator.report import CommandError, Report
from service.declaration import Fault

KEPT_GENERATIONS = 5
EDITED = "Changed by hand; take edits into deploy.yaml, or install with --overwrite (copies of them are kept)."


def install(loaded: Loaded, bundle: Bundle, report: Report, overwrite: bool) -> int:
    """Make the host run this bundle; on any failure it runs what it ran before."""
    deploy, store = loaded.deploy, Store(loaded.deploy.name)
    user = service_user(deploy)
    mine = belongings.recorded(store, user)
    if os.geteuid() or is_anothers(store, mine):
        preflight(loaded, store, bundle, report)  # says so, among all else that is wrong
    with alone(store, report):
        sound = finish_earlier(store, report)
        found = _drifts(store, report, overwrite)
        runtime, app = runtime_id(loaded.project), app_id(deploy, loaded.project)
        previous, same = store.current, _is_same(store, bundle, runtime, app)
        wrong = amiss(store)
        lacking = missing_packages(packages(deploy, flavour_of(bundle))) or lacks_keys(store)
        is_due = not (sound and same) or bool(found or wrong or lacking or ByHand(store).standing(deploy.replaces))
        if not is_due:
            _must_serve(loaded, store, bundle, report)
            certificates.obtain(deploy, Place(deploy.name), report)
            report.fact(generation=store.current, changed=False)
            report.line(f"Nothing to do: generation {store.current} of {store.name} is current and runs.")
            return 0
        preflight(loaded, store, bundle, report)
        if install_packages(deploy, flavour_of(bundle), report):
            bundle = fitted(bundle, deploy, store)  # now that nginx is there
            preflight(loaded, store, bundle, report)  # again: a package may bring what is in the way
            judge(loaded, bundle, report)  # the readers that were not at hand before
        belongings.claim(store, deploy, user, mine)
        try:
            make_runtime(store, runtime, report, loaded.project)
            if loaded.project is not None:
                application = make_application(store, deploy, bundle, loaded.project, app, runtime, report)
                _rehearse(application, deploy, bundle, store.home / "runtimes" / runtime, report)
            number = stage(deploy, bundle, store, runtime, report, app)
            for drift in found:
                keep_copy(drift, store, copies(store, previous))
            change(store, number, report, everything=bool(found or wrong) or not sound)
        finally:
            belongings.settle(store, user)
        set_aside(store, previous)
        if same and previous is not None:
            store.remove(previous)  # the new one is what that one was, and going back to it would change nothing
        pruned = store.prune(KEPT_GENERATIONS)
        report.fact(generation=number, changed=True, pruned=pruned)
        certificates.obtain(deploy, Place(deploy.name), report)
        announce(store, report)
        if kept_by_hand := ByHand(store).kept(deploy.replaces):
            report.fact(replaced=kept_by_hand, kept_in=ByHand(store).place)
            report.line(f"  replaced: {', '.join(kept_by_hand)}, kept in {ByHand(store).place}")
    return 0


def rollback(deploy: Deploy, number: int | None, report: Report) -> int:
    """Make an earlier generation current again; by default the newest healthy one before the current.

    `deploy` says which authority to ask, should its domain need another certificate than the present one.
    What was edited by hand does not hold it up: at night it must work. Copies are kept.
    """
    name, store = deploy.name, Store(deploy.name)
    _must_be_root()
    if is_anothers(store, belongings.recorded(store, service_user(deploy))):
        raise CommandError(f"{name} is not installed; {store.home} is not ours")
    with alone(store, report):
        sound = finish_earlier(store, report)
        _refuse(undoing.of_nginx(store))
        kept = [n for n in store.numbers() if store.is_whole(n) and n != store.current]
        healthy = [n for n in kept if store.generation(n).healthy and can_start(store, n)]
        earlier = [n for n in healthy if store.current is None or n < store.current]
        target = number if number is not None else (earlier[-1] if earlier else None)
        if target is None and store.current is not None and _replaces(store):
            _refuse(undoing.of_the_ports(store, store.current))
            return _back_to_by_hand(store, report)
        if target is None or target not in kept:
            known = ", ".join(map(str, healthy)) or "none"
            raise CommandError(f"{name} has no such generation to go back to; kept and healthy: {known}")
        if not can_start(store, target):
            why = outdated(store, target) or "; ".join(damage(store, target)) or "its Python is gone"
            raise CommandError(f"generation {target} cannot run here any more ({why}); change deploy.yaml, and install")
        _refuse(undoing.against_a_rollback(store, target))
        found, current = drifts(store), store.current
        for drift in found:
            report.line(str(drift))
            keep_copy(drift, store, copies(store, current))
        change(store, target, report, everything=bool(found or amiss(store)) or not sound)
        set_aside(store, current)
        report.fact(generation=target)
        generation = store.generation(target)
        certificates.obtain(replace(deploy, domain=generation.domains, tls=generation.tls), Place(name), report)
        announce(store, report)
    return 0


def _replaces(store: Store) -> bool:
    """Whether what was set up by hand is there to go back to."""
    return store.current is not None and bool(ByHand(store).kept(store.generation(store.current).replaces))


def _back_to_by_hand(store: Store, report: Report) -> int:
    """From the first generation to what it has replaced."""
    assert store.current is not None
    paths = ByHand(store).kept(store.generation(store.current).replaces)
    for drift in drifts(store):
        report.line(str(drift))
        keep_copy(drift, store, copies(store, store.current))
    give_back(store, report)
    report.fact(generation=None, restored=paths)
    report.line(f"{store.name} is stopped, and what was set up by hand serves again: {', '.join(paths)}.")
    report.line(f"  to take over again: {AS_ROOT} install; to remove what is left: {AS_ROOT} uninstall")
    return 0


def uninstall(deploy: Deploy, report: Report, purge: bool) -> int:
    """Remove exactly what was installed; with `purge` also data, keys and user. One that was cut short is completed."""
    name, store = deploy.name, Store(deploy.name)
    _must_be_root()
    mine = belongings.recorded(store, service_user(deploy))
    if is_anothers(store, mine) or not (store.home.is_dir() or store.traces() or (purge and mine)):
        report.line(f"Nothing to do: {name} is not installed.")
        if others := store.others():  # one of them may be that of the old name, after a change of `name`
            report.line(f"Others are: {', '.join(others)}; to uninstall one: `{AS_ROOT} uninstall --set name=NAME`")
        for path in belongings.foreign(store, deploy, mine):
            report.line(f"{path} is not ours, and stays as it is.")
        return 0
    with alone(store, report), undisturbed():
        _refuse(undoing.against_an_uninstallation(store, purge))
        store.sweep()
        owners = {service_user(deploy), *mine.users, *(store.user(n) for n in store.numbers() if store.is_whole(n))}
        backup = Path(f"/var/backups/{name}-{time.time():.0f}")
        for drift in drifts(store):
            report.line(str(drift))
            keep_copy(drift, store, backup)
        failures = leave(store, report) if store.home.is_dir() or store.traces() else []
        if store.traces():
            what = f"{name} is stopped, and not removed; fix that, then `{AS_ROOT} uninstall` again"
            raise CommandError("\n".join([*failures, what]))
        if not purge:
            certificates.forget(Place(name), report)
        else:
            failures += certificates.delete(Place(name))
        with report.step("remove data, keys and user" if purge else f"remove /opt/{name}"):
            belongings.remove(store, mine, owners, purge)
            failures += belongings.remove_users(store, mine, report) if purge else []
            store.vanish()
        _say_goodbye(store, mine, report, purge)
        if backup.exists():
            report.line(f"What was edited by hand is kept in {backup}.")
        for line in ByHand(store).way_back():
            report.line(line)
        for failure in failures:
            report.error(failure)
    return 1 if failures else 0


def _refuse(faults: Iterable[Fault]) -> None:
    """Leave all as it is where there are faults, and say each."""
    if found := ".\n".join(map(str, faults)):
        raise CommandError(f"{found}. Nothing was changed.")


def _say_goodbye(store: Store, mine: Belongings, report: Report, purge: bool) -> None:
    """Bring the record up to date, and say what is kept."""
    name = store.name
    if purge:
        for line in belongings.leftovers(store, mine.directories):
            report.line(line)
        belongings.record(store, Belongings())
        report.line(f"{name} is gone")
        return
    gone = [f"/opt/{name}", f"/run/{name}", f"/var/lib/{name}-acme"]
    for line in belongings.leftovers(store, [path for path in mine.directories if path in gone]):
        report.line(line)
    belongings.record(store, mine)
    belongings.settle(store, "")
    report.line(f"{name} is gone; its data is kept in /var/lib/{name}, its keys in /etc/{name}")
    if (store.root / f"var/lib/{name}-engine").is_dir():
        report.line(f"What its engine has stored is kept in /var/lib/{name}-engine.")


def is_anothers(store: Store, mine: Belongings) -> bool:
    """Whether /opt/<name> is there and no installation has made it: nothing in it may be read as ours."""
    return os.path.lexists(store.home) and f"/opt/{store.name}" not in mine.directories


def _must_be_root() -> None:
    if os.geteuid():
        raise CommandError("you are not root; run it with sudo")


def _rehearse(application: Path, deploy: Deploy, bundle: Bundle, runtime: Path, report: Report) -> None:
    try:
        Rehearsal(deploy, bundle, runtime).of(application, report)
    except StepFailed as error:
        raise CommandError(f"The application does not work:\n  {error}\nThe deployment was not touched.") from None


def _is_same(store: Store, bundle: Bundle, runtime: str, app: str) -> bool:
    """Whether exactly this is installed already."""
    if store.current is None:
        return False
    generation = store.generation(store.current)
    if (generation.runtime, generation.app) != (runtime, app) or not generation.has_files:
        return False
    return bool(json.loads(bundle.manifest())["files"] == list(store.manifest(store.current).values()))


def amiss(store: Store) -> list[str]:
    """What of the host is not as the current generation left it, beside its files, in words; only root can tell.

    Where there is any, an installation takes nothing for granted, and starts and reloads everything again.
    """
    if store.current is None:
        return []
    generation, engine = store.generation(store.current), store.engine_unit(store.current)
    is_running = runs(store.name, generation.manager)
    unheard = deaf(store, generation.listener) if is_running else None
    found = {
        "nginx does not run": not is_active("nginx.service"),
        f"{store.name} does not run": not is_running,
        **({} if unheard is None else {unheard.what: not changed_by(store)}),
        f"{engine} does not run": engine and not is_active(engine),
        f"the engine knows another password than {generation.joined.password_file}": Password(store).has_changed(),
        **{f"{path} is gone": is_running and not os.path.exists(path) for path in _sockets(store)},
        **dict.fromkeys(lost(store), True),
    }
    return [what for what, is_so in found.items() if is_so]


def _sockets(store: Store) -> list[str]:
    """By which nginx reaches the service."""
    assert store.current is not None
    texts = [store.pristine(store.current, path) for path in (Paths(store.name).site, Paths(store.name).locations)]
    return [
        path
        for text in texts
        if text.exists()
        for path in re.findall(r"server unix:(/[^;\s]+);", text.read_text(encoding="utf-8"))
    ]


def _must_serve(loaded: Loaded, store: Store, bundle: Bundle, report: Report) -> None:
    """See whether what runs is of use to clients.

    Raises:
        CommandError: it is not.
    """
    if wrong := unwell(loaded, store, bundle, report):
        raise CommandError(f"{store.name} runs, and {'; '.join(wrong)}. Nothing was changed.")


def unwell(loaded: Loaded, store: Store, bundle: Bundle, report: Report) -> list[str]:
    """In what way that which runs is of no use to clients, or will be of none; says why."""
    found = {
        "clients refuse its certificate": certificate_will_do(loaded, report),
        "no client gets through to it": _gets_through(loaded, store, bundle, report),
        "programs of this host do not reach it": _is_heard(store, report),
        "it will not run after its next start": comes_back(store, report),
    }
    return [what for what, is_well in found.items() if not is_well]


def _is_heard(store: Store, report: Report) -> bool:
    assert store.current is not None
    fault = deaf(store, store.generation(store.current).listener)
    if fault is not None:
        report.error(str(fault))
    return fault is None


def _gets_through(loaded: Loaded, store: Store, bundle: Bundle, report: Report) -> bool:
    """Whether clients reach what is installed and runs; says why not, and what of the host is in their way."""
    assert store.current is not None
    try:
        probe(endpoint(store.generation(store.current)), CLIENTS_PATIENCE_S)  # it may have been started just now
    except Unhealthy as error:
        is_clear(loaded, store, bundle, report)
        report.error(f"no client gets through: {error}; `{AS_ROOT} doctor` looks at each setting")
        return False
    return True


def _drifts(store: Store, report: Report, overwrite: bool) -> list[Drift]:
    """Hand edits of what is installed.

    Raises:
        CommandError: there are some, and nobody said to overwrite them.
    """
    found = drifts(store)
    for drift in found:
        report.line(str(drift))
    if found and not overwrite:
        raise CommandError(EDITED)
    return found


def announce(store: Store, report: Report) -> None:
    """Say what runs now, and how to try it."""
    number = store.current
    assert number is not None
    generation = store.generation(number)
    there = endpoint(generation)
    url = generation.url or f"{'ws' if generation.tls == 'off' else 'wss'}://{generation.domain}/"
    url = there.url if generation.included else url
    logs = (
        f"journalctl -u {store.name} -f"
        if generation.manager == "systemd"
        else f"tail -f /var/log/{store.name}/{store.name}.log"
    )
    if there.is_past_nginx:
        report.fact(included=False)
        report.line(f"Generation {number} of {store.name} runs, and no client comes to it: {own_site.fix(store.name)}.")
        return
    report.line(f"Generation {number} of {store.name} runs: {url} by {generation.server} under {generation.manager}.")
    client = "curl -i" if generation.app else f"/opt/{store.name}/current/venv/bin/python -m websockets"
    report.line(f"  try it:   {client} {url}")
    report.line(f"  its log:  {logs}")
    if generation.auth == "token":
        report.line(f"  a token:  {AS_ROOT} token UUID")
