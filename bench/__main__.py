"""All benchmarks: `make bench ARGS="[PART ...] [--quick] [--only NAME ...] [--connections N] [--write]"`."""

import argparse
import sys
from collections.abc import Callable, Collection

from bench import application, compare, environment, fairness, hosts, mailbox, page, render, report, watched
from bench.programs import MissingError
from bench.servers import SERVERS, StartError

PARTS = ("render", "environment", "servers", "fairness", "watched", "hosts", "mailbox", "application")


def main(arguments: list[str]) -> int:
    """Measure and print; 1 when a server failed, and then its table is not written."""
    options = _parser().parse_args(arguments)
    failed = False
    for part in options.parts or PARTS:
        if part == "render":
            text = render.report(render.QUICK_ROUNDS if options.quick else render.ROUNDS)
        elif part == "fairness":
            seconds = 0.5 if options.quick else 10.0
            try:
                text = fairness.report(fairness.measure(seconds), seconds)
            except StartError as error:
                text, failed = f"fairness: not measured: {error}", True
        elif part == "watched":
            sizes = (100,) if options.quick else (100, 1000, 5000)
            text = watched.report({size: watched.measure(size, watched.ASKED) for size in sizes}, watched.ASKED)
        elif part == "application":
            text = application.report(application.measure(*((1, 0.5) if options.quick else (15, 1.0))))
        elif part == "mailbox":
            text = mailbox.report(quick=options.quick)
        elif part in ("hosts", "environment"):
            try:
                text = _of_what_may_be_missing(part, options.quick)
            except MissingError as error:
                text, failed = f"{part}: not measured: {error}", True
        else:
            results = compare.measure(options.only, _plan(options), progress=_progress)
            text = report.report(results)
            failed = bool(results.failures)
        print(f"{text}\n")
        if options.write and not failed:
            page.write(part, text)
    return int(failed)


def _of_what_may_be_missing(part: str, quick: bool) -> str:
    if part == "environment":
        return environment.report(1 if quick else 5)
    return hosts.report(*((1, 0.5) if quick else (5, 2.0)))


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
    parser.add_argument("--quick", action="store_true", help="a minute instead of five: one round, fewer connections")
    parser.add_argument(
        "--only",
        nargs="+",
        type=_one_of(SERVERS),
        default=list(SERVERS),
        metavar="NAME",
        help=f"these servers and the reference, of {', '.join(SERVERS)}",
    )
    parser.add_argument("--connections", type=int, metavar="N", help="as many idle connections")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
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
