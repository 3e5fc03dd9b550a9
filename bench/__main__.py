"""All benchmarks: `make bench ARGS="[PART ...] [--quick] [--only NAME ...] [--connections N] [--write]"`."""

import argparse
import sys
from collections.abc import Callable, Collection

from bench import (
    application,
    behind,
    changes,
    compare,
    environment,
    fairness,
    hosts,
    machine,
    mailbox,
    page,
    plots,
    render,
    report,
    results,
    sizing,
    watched,
)
from bench.figures import Outcome
from bench.load import LoadError
from bench.programs import MissingError
from bench.servers import SERVERS, StartError


def main(arguments: list[str]) -> int:
    """Measure, print, keep and compare; 1 when a server failed, and then its part is neither kept nor written."""
    options = _parser().parse_args(arguments)
    try:
        earlier = results.read(results.FILE)
    except results.ResultsError as error:
        print(error, file=sys.stderr)
        return 1
    run = results.this_run()
    kept: list[results.Kept] = []
    failed = False
    for part in options.parts or PARTS:
        before = machine.clocks()
        try:
            outcome = PARTS[part](options)
        except (LoadError, MissingError, StartError) as error:
            failed = True
            print(f"{part}: not measured: {error}\n")
        except _FailedError as error:
            failed = True
            print(f"{error}\n")
        else:
            print(f"{outcome.text}\n")
            kept += results.keep(run, part, outcome, machine.others(before, machine.clocks()), results.FILE)
            if options.write:
                page.write(part, outcome.text)
    if options.write:
        plots.main(page.PAGE)
    print(changes.report(earlier, kept))
    return int(failed)


class _FailedError(Exception):
    """Not all servers were measured; the message is the report."""


def _servers(options: argparse.Namespace) -> Outcome:
    measured = compare.measure(options.only, _plan(options), progress=_progress)
    text = report.report(measured)
    if measured.failures:
        raise _FailedError(text)
    rounds, seconds, connections = measured.plan
    return Outcome(text, list(measured.figures()), f"{rounds} x {seconds} s, {connections} connections")


def _deployed(options: argparse.Namespace) -> Outcome:
    plan = behind.QUICK if options.quick else behind.FULL
    plan = plan._replace(connections=options.connections) if options.connections else plan
    return behind.report(behind.measure(plan, _progress))


def _sizing(options: argparse.Namespace) -> Outcome:
    plan = sizing.QUICK if options.quick else (sizing.CONNECTIONS, sizing.PER_SECOND, sizing.SECONDS)
    return sizing.report(sizing.measure(*plan))


def _fairness(options: argparse.Namespace) -> Outcome:
    seconds, ways = (0.3, fairness.QUICK_WAYS) if options.quick else (10.0, tuple(fairness.WAYS))
    return fairness.report(fairness.measure(seconds, ways), seconds)


def _watched(options: argparse.Namespace) -> Outcome:
    sizes = (100,) if options.quick else (100, 1000, 5000)
    return watched.report({size: watched.measure(size, watched.ASKED) for size in sizes}, watched.ASKED)


PARTS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "render": lambda options: render.report(render.QUICK_ROUNDS if options.quick else render.ROUNDS),
    "environment": lambda options: environment.report(1 if options.quick else 5),
    "servers": _servers,
    "deployed": _deployed,
    "sizing": _sizing,
    "fairness": _fairness,
    "watched": _watched,
    "hosts": lambda options: hosts.report(*((1, 0.2) if options.quick else (5, 2.0))),
    "mailbox": lambda options: mailbox.report(quick=options.quick),
    "application": lambda options: application.report(application.measure(*((1, 0.3) if options.quick else (15, 1.0)))),
}


def _plan(options: argparse.Namespace) -> compare.Plan:
    plan = compare.QUICK if options.quick else compare.FULL
    return plan._replace(connections=options.connections) if options.connections else plan


def _progress(step: str) -> None:
    # On a terminal each step takes the place of the last; a log gets none.
    if sys.stderr.isatty():
        print(f"\r\033[K{step}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="What it costs.", allow_abbrev=False)
    parser.add_argument("parts", nargs="*", type=_one_of(PARTS), metavar="PART", help=f"{' or '.join(PARTS)}; or all")
    parser.add_argument(
        "--quick", action="store_true", help="minutes instead of half an hour: one round, fewer connections"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        type=_one_of(SERVERS),
        default=list(SERVERS),
        metavar="NAME",
        help=f"these servers and the reference, of {', '.join(SERVERS)}",
    )
    parser.add_argument("--connections", type=int, metavar="N", help="as many idle connections")
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/performance.md, and draw its plots again"
    )
    return parser


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    # Not argparse's choices: with any number of arguments, they must contain "none at all" too.
    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text} is unknown; use some of {', '.join(names)}")
        return text

    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
