"""The command `wsbundle`: see `wsbundle --help`.

Exit codes: 0 done or nothing to do, 1 failed, 2 deploy.yaml or the command line is wrong.
"""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise
from typing import Any, NoReturn

from generator import __version__, commands
from generator.load import ConfigError
from generator.report import CommandError, Report, UsageError

DONE, FAILED, WRONG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Asked for before the rest is parsed, so that a wrong command line is told as JSON too.
    report = Report(json="--format=json" in arguments or ("--format", "json") in pairwise(arguments))
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options, report)
    except ConfigError as error:
        report.faults(error.faults)
        code = WRONG
    except UsageError as error:
        report.error(str(error))
        code = WRONG
    except CommandError as error:
        report.error(str(error))
        code = FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        report.error(f"{error.filename or 'wsbundle'}: {error.strerror or error}")
        code = FAILED
    except KeyboardInterrupt:
        return 130
    return report.finish(code)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # argparse makes a formatter for every argument, and each asks shutil for the terminal's width: a tenth of the
        # time in which a fault in deploy.yaml is told.
        super().__init__(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100), **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="wsbundle",
        description="One deploy.yaml becomes a complete, verified deployment of the notification center.",
        epilog="Exit codes: 0 done or nothing to do, 1 failed, 2 deploy.yaml or the command line is wrong, "
        "3 changes are pending (plan), 4 the host was edited by hand (status).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, prog="wsbundle")

    render = verbs.add_parser("render", help="check deploy.yaml and write the bundle", allow_abbrev=False)
    render.add_argument("-o", "--output", metavar="DIR", help="where to write it (default: build/<name>)")
    render.set_defaults(run=commands.render)

    check = verbs.add_parser("check", help="the same without writing anything", allow_abbrev=False)
    check.set_defaults(run=commands.check)

    run = verbs.add_parser("run", help="run the service here, as deploy.yaml says", allow_abbrev=False)
    run.set_defaults(run=commands.run)

    token = verbs.add_parser("token", help="mint a token, or change the keys that sign them", allow_abbrev=False)
    purpose = token.add_mutually_exclusive_group(required=True)
    purpose.add_argument("subject", metavar="UUID", nargs="?", help="print a token that registers this address")
    purpose.add_argument("--new-key", action="store_true", help="add a key, which signs from now on; others stay good")
    purpose.add_argument("--drop-key", metavar="KID", help="remove a key; what it has signed counts no longer")
    token.add_argument(
        "--send-to",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="whom its bearer may write to: an address, group:NAME, or '*' for all; repeatable (default: nobody)",
    )
    token.add_argument("--expires", metavar="TIME", default="30d", help="such as 90s, 45m, 12h (default: 30d)")
    token.add_argument("--algorithm", choices=("HS256", "EdDSA"), default="HS256", help="of a new key (default: HS256)")
    token.add_argument("--keys", metavar="FILE", help="default: the deployment's, which only root may read")
    token.set_defaults(run=commands.token)

    show = verbs.add_parser("show", help="print every setting as it is in force", allow_abbrev=False)
    show.add_argument("--origin", action="store_true", help="also print where each value was given")
    show.set_defaults(run=commands.show)

    explain = verbs.add_parser("explain", help="explain a setting or a rule, or list them all", allow_abbrev=False)
    explain.add_argument("topic", metavar="KEY|RULE", nargs="?")
    explain.set_defaults(run=commands.explain)

    bundle = verbs.add_parser("bundle", help="write an archive that installs without a network", allow_abbrev=False)
    bundle.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: build/<name>-<id>.tar.gz)")
    bundle.add_argument("--python", metavar="X.Y", action="append", help="the host's; repeatable (default: 3.11)")
    bundle.add_argument("--machine", choices=("x86_64", "aarch64"), default="x86_64", help="the host's, as uname -m")
    bundle.set_defaults(run=_bundle)

    host = {
        name: verbs.add_parser(name, help=text, allow_abbrev=False)
        for name, text in {
            "install": "make this host run what deploy.yaml says, all or nothing",
            "plan": "what install would change; exit code 3 when there is something",
            "status": "what runs here; exit code 4 when it was edited by hand",
            "history": "the generations that are kept",
            "rollback": "make an earlier generation current again",
            "uninstall": "remove exactly what was installed",
        }.items()
    }
    host["install"].add_argument(
        "--overwrite", action="store_true", help="replace what was edited by hand; keep copies"
    )
    host["plan"].add_argument("--full", action="store_true", help="show the content of new and removed files, too")
    host["rollback"].add_argument("number", metavar="N", type=int, nargs="?", help="default: the one before")
    host["uninstall"].add_argument("--purge", action="store_true", help="also data and user")
    for name, parser_of_verb in host.items():
        parser_of_verb.set_defaults(run=_on_the_host, verb=name)

    for verb in (render, check, run, token, show, bundle, *host.values()):
        verb.add_argument("-f", "--file", metavar="FILE", default="deploy.yaml", help="default: deploy.yaml")
        verb.add_argument("--env", metavar="NAME", help="lay deploy.NAME.yaml over it")
        verb.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="set one key; repeatable")
    for verb in (render, check, run, token, show, explain, bundle, *host.values()):
        verb.add_argument("--format", choices=("text", "json"), default="text")
    return parser


def _bundle(options: argparse.Namespace, report: Report) -> int:
    from generator import pack

    return pack.bundle(options, report)


def _on_the_host(options: argparse.Namespace, report: Report) -> int:
    from generator.host import operate

    verb = "show_plan" if options.verb == "plan" else options.verb
    code: int = getattr(operate, verb)(options, report)
    return code


def run() -> None:
    """The entry point of the installed command."""
    gc.disable()  # the process lives for a moment and builds no cycles worth a collection: a tenth of its time
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it: no message may fail for its letters
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        # Nothing more can be printed. Where the reader of our output left, as `| head` does, end quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"wsbundle: standard output: {error.strerror}", file=sys.stderr)
        code = FAILED
    sys.exit(code)


if __name__ == "__main__":
    run()
