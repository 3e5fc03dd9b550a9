"""`wsbundle doctor`: every check in turn, what takes long beside the rest, and a line for each as it is done."""

import os
import ssl
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from queue import Queue
from threading import Thread
from typing import Any

import msgspec

from generator.commands import loaded_for
from generator.config.listening import is_of_our_site
from generator.config.schema import Deploy, is_for_apps, serves_app
from generator.config.sources import project_of
from generator.doctor import (
    of_access,
    of_nginx,
    of_nginx_itself,
    of_restarts,
    of_the_app,
    of_the_engine,
    of_the_host,
    of_the_protocol,
    of_the_service,
    of_tls,
    stress,
)
from generator.doctor.checks import CHECKS, QUICK_S, UNSEEN, Check, Look, State, Verdict, failed, skipped
from generator.doctor.patient import Patient, Unseen
from generator.doctor.wire import Ended
from generator.host.store import Store
from generator.host.transaction import endpoint
from generator.program import AS_ROOT, COMMAND
from generator.report import NOT_ROOT, CommandError, Report, UsageError, folded, paint, printable
from service.declaration import did_you_mean

# Imported so that they enter their checks; in the order in which those are made.
_ROOMS = [
    room.__name__
    for room in (
        *(
            of_the_protocol,
            of_the_app,
            of_the_service,
            of_restarts,
            of_the_engine,
            of_access,
            of_nginx,
            of_nginx_itself,
            of_tls,
            of_the_host,
        ),
        stress,
    )
]
ALL = sorted(CHECKS.values(), key=lambda each: _ROOMS.index(each.judge.__module__))
ONLY_WARNINGS = 3
_COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}
_WIDTH = 1 + max(len(name) for name in (*CHECKS, *UNSEEN))


class Finding(msgspec.Struct, frozen=True):
    """One check that was made, as the JSON object has it; `seconds` are those of its look."""

    check: str
    keys: tuple[str, ...]
    state: State
    expected: str
    seen: str
    fix: str
    seconds: float


def doctor(options: Namespace, report: Report) -> int:
    """Report what each check sees. 0 when all is well, 1 when something failed, 3 when there are only warnings."""
    wanted = list(chosen(options.only))  # a name that is wrong is reported before anything is done
    loaded = loaded_for(options, report)
    deploy = loaded.deploy
    wanted = [each for each in wanted if is_about(each.keys, each.judge.__module__, deploy)]
    if os.geteuid():
        report.warning(NOT_ROOT)
    store = Store(deploy.name)
    number = store.current
    if number is None:
        raise CommandError(f"{store.name} is not installed: {store.ruins() or f'{AS_ROOT} install'}")
    patient = Patient(deploy, store, endpoint(store.generation(number)), options.stress, project_of(loaded))
    began, found = time.monotonic(), []
    for finding in examine(patient, wanted, options.quick):
        found.append(finding)
        _print(finding, report)
    if not options.only:
        for key, why in UNSEEN.items():
            if not is_about((key,), "", deploy):
                continue
            found.append(Finding(key, (key,), "skipped", "", f"cannot be seen from outside: {why}", "", 0.0))
            _print(found[-1], report)
    return _sum_up(found, time.monotonic() - began, report)


def is_about(keys: tuple[str, ...], room: str, deploy: Deploy) -> bool:
    """Whether a check means anything for what is deployed: the notification center, or an application."""
    if deploy.nginx.include:
        keys = tuple(key for key in keys if not is_of_our_site(key))
    if serves_app(deploy):
        speaks_the_protocol = room in (of_the_protocol.__name__, stress.__name__)
        return not speaks_the_protocol and any(is_for_apps(key) for key in keys)
    return bool(keys) and not any(key.partition(".")[0] in ("app", "needs") for key in keys)


def chosen(only: Iterable[str]) -> Iterator[Check]:
    """The checks of these keys, sections and names; all of them where none is given.

    Raises:
        UsageError: there is no such check.
    """
    names = list(only)
    known = {*CHECKS, *UNSEEN, *(key for each in CHECKS.values() for key in each.keys)}
    sections = {key.partition(".")[0] for key in known}
    for name in names:
        if name in UNSEEN:
            raise UsageError(f"{name} cannot be seen from outside: {UNSEEN[name]}")
        if name not in known | sections:
            near = did_you_mean(name, known | sections) or f"; `{COMMAND} doctor --format json` lists them"
            raise UsageError(f"{name} is neither a setting nor a check{near}")
    for each in ALL:
        if not names or any(_concerns(each, name) for name in names):
            yield each


def _concerns(each: Check, name: str) -> bool:
    return any(one == name or one.startswith(f"{name}.") for one in (each.name, *each.keys))


def examine(patient: Patient, wanted: Iterable[Check], quick: bool = False) -> Iterator[Finding]:
    """Make the checks; those of one look share it. What takes long goes on beside the rest, and ends last."""
    by_look: dict[Look[Any], list[Check]] = {}
    for each in wanted:
        by_look.setdefault(each.look, []).append(each)

    def found(look: Look[Any], seen: Any, seconds: float) -> Iterator[Finding]:
        return (_finding(each, patient.deploy, seen, seconds) for each in by_look[look])

    left_out = {look: why for look in by_look if (why := _left_out(look, patient, quick))}
    alone = [look for look in by_look if look.stress and look not in left_out]  # what one does, another would see
    beside = [look for look in by_look if look.takes(patient.deploy) > QUICK_S and look not in (*left_out, *alone)]
    ended = _beside(beside, patient) if beside else Queue()
    for look in by_look:
        if look in left_out:
            yield from found(look, Unseen(left_out[look]), 0.0)
        elif look not in (*alone, *beside):
            yield from found(look, *_looked(look, patient))
    for _ in beside:
        yield from found(*ended.get())
    for look in alone:
        yield from found(look, *_looked(look, patient))


def _beside(looks: list[Look[Any]], patient: Patient) -> "Queue[tuple[Look[Any], Any, float]]":
    """Take these looks, each in a thread of its own, which an interrupted doctor does not wait for."""
    ended: Queue[tuple[Look[Any], Any, float]] = Queue()
    _ = patient.message  # asked once, not by several at the same time
    for look in looks:
        Thread(target=lambda look=look: ended.put((look, *_looked(look, patient))), daemon=True).start()
    return ended


def _left_out(look: Look[Any], patient: Patient, quick: bool) -> str:
    """Why a look is not taken; nothing where it is."""
    if look.stress and not patient.under_stress:
        return "it could refuse or disconnect clients: add --stress"
    takes = look.takes(patient.deploy)
    return f"it takes up to {takes:.0f} s: leave --quick out" if quick and takes > QUICK_S else ""


def _looked(look: Look[Any], patient: Patient) -> tuple[Any, float]:
    """What was seen, or the exception that says why nothing was; and in how many seconds."""
    began = time.monotonic()
    try:
        seen = look.see(patient)
    except (Unseen, Ended, OSError, CommandError) as error:
        seen = error
    return seen, time.monotonic() - began


def _finding(each: Check, deploy: Deploy, seen: Any, seconds: float) -> Finding:
    verdict = _verdict(each, deploy, seen)
    return Finding(
        each.name, each.keys, verdict.state, each.expects(deploy), verdict.seen, verdict.fix, round(seconds, 3)
    )


def _verdict(each: Check, deploy: Deploy, seen: Any) -> Verdict:
    if isinstance(seen, Unseen):
        return skipped(seen)
    if isinstance(seen, PermissionError):
        return skipped(f"only root can see it: run `{AS_ROOT} doctor`")
    if isinstance(seen, Exception):
        what = seen.verify_message if isinstance(seen, ssl.SSLCertVerificationError) else str(seen)
        return failed(what or type(seen).__name__, f"{AS_ROOT} status; docs/troubleshoot.md")
    return each.judge(deploy, seen)


def _print(finding: Finding, report: Report) -> None:
    state = paint(f"{finding.state:8}", _COLOURS[finding.state])
    column = 12 + _WIDTH
    seen = printable(" ".join(finding.seen.split()))  # a log quotes clients
    report.line(f"  {state} {finding.check:{_WIDTH}} {folded(seen, column)}")
    if finding.state in ("failed", "warning"):
        for name, text in (("expected", finding.expected), ("fix", finding.fix)):
            report.line(f"{'':{column}}{paint(name, 'dim')}: {folded(text, column + len(name) + 2)}")


def _sum_up(found: list[Finding], seconds: float, report: Report) -> int:
    counts = {state: sum(finding.state == state for finding in found) for state in _COLOURS}
    report.fact(checks=[msgspec.to_builtins(finding) for finding in found], counts=counts, seconds=round(seconds, 1))
    said = f"{counts['ok']} ok, {counts['warning']} with a warning, {counts['failed']} failed"
    report.line(f"{said}, {counts['skipped']} skipped, in {seconds:.0f} s.")
    return 1 if counts["failed"] else ONLY_WARNINGS if counts["warning"] else 0
