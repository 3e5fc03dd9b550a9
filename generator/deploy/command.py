"""`wsbundle deploy`: from this checkout to hosts, and back."""

import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from generator.commands import loaded_for, verified
from generator.config.load import Loaded, load
from generator.config.schema import DESTINATION, Deploy
from generator.deploy.answers import Answer, faults, twins
from generator.deploy.fleet import Fleet, Row
from generator.deploy.kits import Kit, deployment_of, kit
from generator.deploy.remote import Remote
from generator.deploy.sharing import check_names, joining, joins
from generator.deploy.ssh import Ssh
from generator.deploy.work import NOT_DUE, Work
from generator.packing.wheelhouse import Target
from generator.program import COMMAND
from generator.rendering.bundle import Bundle
from generator.report import CommandError, Report, UsageError
from service.declaration import Fault

# sshd turns new connections away from ten on that have not logged in: MaxStartups of sshd_config(5).
MOST_AT_ONCE = 8


def deploy(options: Namespace, report: Report) -> int:
    """Install on each host what deploy.yaml says; or show what that would change, or take it back."""
    if options.full and not options.plan:
        raise UsageError(
            "--full is for --plan, and without that the hosts would be changed; add --plan, or leave it out"
        )
    hosts = destinations(options.hosts, load(options.file, options.env, options.set).deploy)
    if options.back:
        loaded, rendered = loaded_for(options, report), None
    else:
        loaded, rendered = verified(options, report)
        check_names(loaded.deploy, hosts)
    fleet = Fleet(hosts, report)
    with Ssh() as ssh:
        remotes = {host: Remote(ssh, host, loaded.deploy.name, fleet.speaker(host), fleet.stop) for host in hosts}
        answers = _ask(remotes, report)
        for host, answer in answers.items():
            fleet.rows[host].before = fleet.rows[host].now = answer.generation
        work = Work(options, loaded.deploy, remotes, answers)
        act: Callable[[Row], None] = work.take_back
        if rendered is not None:
            kits = _kits(options, loaded, rendered, answers, report)
            ours = deployment_of(loaded, rendered)
            act = partial(work.show, kits) if options.plan else partial(work.install, kits, ours)
        _go(options, fleet, list(in_groups(hosts, work.server, options.back)), act, report)
    code = fleet.end()
    for line in advice(options, fleet):
        report.error(line)
    if untouched := [row.host for row in fleet.rows.values() if row.result == NOT_DUE and row.now]:
        report.line(
            "Only the last deployment is taken back, once, and where it has changed something. To go further back:"
        )
        report.line(f"  {COMMAND} rollback --host {untouched[0]}")
    return code


def _kits(
    options: Namespace, loaded: Loaded, rendered: Bundle, answers: dict[str, Answer], report: Report
) -> dict[str, Kit]:
    """What each host is sent. Hosts that are alike share it."""
    joined = loaded, rendered
    if any(joins(loaded.deploy, answer) for answer in answers.values()):
        joined = verified(joining(options, loaded.deploy), Report(json=True))
    made: dict[tuple[bool, Target], Kit] = {}
    for answer in answers.values():
        alike = joins(loaded.deploy, answer), answer.target
        if alike not in made:
            made[alike] = kit(*(joined if alike[0] else (loaded, rendered)), answer.target, options.uv, report)
    return {host: made[joins(loaded.deploy, answer), answer.target] for host, answer in answers.items()}


def in_groups(hosts: list[str], server: str | None, is_back: bool) -> Iterator[list[str]]:
    """The hosts in their order, in groups: the one that serves the engine goes before those that join it."""
    others = [host for host in hosts if host != server]
    groups = [[server], others] if server is not None else [others]
    for group in groups[::-1] if is_back else groups:
        yield group[::-1] if is_back else group


def _go(options: Namespace, fleet: Fleet, groups: list[list[str]], act: Callable[[Row], None], report: Report) -> None:
    goes_on = options.keep_going or options.plan
    try:
        for group in groups:
            if goes_on or not fleet.failed:
                fleet.each(group, act, min(options.parallel, MOST_AT_ONCE), goes_on)
    except KeyboardInterrupt:
        report.error("Interrupted. What has begun on a host goes on there; run the same command to follow it.")
        raise


def destinations(named: Sequence[str], deploy: Deploy) -> list[str]:
    """The hosts of the command line, or else those of deploy.yaml.

    Raises:
        UsageError: there are none, or one is no destination, or named twice.
    """
    for host in named:
        check_destination(host)
        if list(named).count(host) > 1:
            raise UsageError(f"{host} is named twice; name it once")
    if not named and not deploy.hosts:
        raise UsageError("no host is named; name some, as wsbundle deploy ws1.example.com, or list them under `hosts`")
    return list(named or deploy.hosts)


def check_destination(host: str) -> None:
    """Raises: UsageError: ssh would not take it for a host."""
    if not re.fullmatch(DESTINATION, host):
        raise UsageError(f"{host!r} is not what ssh connects to; write it as ws1.example.com or admin@10.0.0.2")


def _ask(remotes: dict[str, Remote], report: Report) -> dict[str, Answer]:
    """What each host is.

    Raises:
        CommandError: some cannot be deployed to; all faults of all hosts are reported.
    """
    with report.step(f"ask {', '.join(remotes)}"), ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        asked = dict(zip(remotes, pool.map(Remote.ask, remotes.values()), strict=True))
    answers = {host: answer for host, answer in asked.items() if isinstance(answer, Answer)}
    found = [(host, answer) for host, answer in asked.items() if isinstance(answer, Fault)]
    found += [(host, fault) for host, answer in answers.items() for fault in faults(answer)]
    found += twins(list(answers.items()))
    for host, fault in found:
        report.error(f"{host}: {fault}")
    if found:
        raise CommandError("Nothing was changed on any host.")
    return answers


def advice(options: Namespace, fleet: Fleet) -> Iterator[str]:
    """How to go on after a failure, and where that stands."""
    failed = [row.host for row in fleet.failed]
    untried = [row.host for row in fleet.rows.values() if row.is_untried]
    if failed and not options.plan:
        yield f"Failed: {', '.join(failed)}." + (f" Not tried: {', '.join(untried)}." if untried else "")
    if failed and not options.plan and not options.back:
        yield "Run the same command again after the fix: a host that has it is left as it is. --back takes it back."
