"""What can be typed behind `wsbundle`: commands, options, and the help that explains them."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from generator import __version__, commands
from generator.program import AS_ROOT, COMMAND
from generator.report import Report, UsageError, wrapped
from service.declaration import did_you_mean

# Each command: what it does in one line, what else should be known, and an example.
_ANYWHERE = {
    "init": (
        "write a deploy.yaml to begin with",
        "Write a deploy.yaml for this domain, with every setting explained in it. A file that is there is not changed.",
        "wsbundle init ws.mycompany.org",
    ),
    "import": (
        "write a deploy.yaml for what was set up by hand",
        "Read the files of a service that was set up by hand: its systemd unit or supervisor program, nginx site, "
        "gunicorn.conf.py and .env. Write a deploy.yaml for it, and list every line that is not in it, and why. "
        "Without FILES, look for them on this host.",
        "wsbundle import queue-websocket.service nginx-site.conf --output deploy.yaml",
    ),
    "render": (
        "check deploy.yaml and write the bundle",
        "Check deploy.yaml, render every file, let the programs that will read them judge them, and only then write.",
        "wsbundle render --env prod --set port=9000",
    ),
    "check": (
        "the same without writing anything",
        "Do all that render does, except writing.",
        "wsbundle check --env prod",
    ),
    "run": (
        "run the service here, as deploy.yaml says",
        "Run the service in the foreground, without root and without nginx. Ctrl-C ends it.",
        "wsbundle run --set port=9000",
    ),
    "token": (
        "mint a token, or change the keys that sign them",
        "Print a token that lets its bearer register an address and write to others; or add or remove a signing key.",
        "sudo wsbundle token alice --send-to bob --send-to group:office --expires 12h",
    ),
    "show": (
        "print every setting as it is in force",
        "Print every setting with its value, defaults included, after overlay and --set are applied.",
        "wsbundle show --env prod --origin",
    ),
    "explain": (
        "explain a setting or a rule, or list them all",
        "Say what a setting is for and what it takes, or why a rule holds. Without a name, list all of them.",
        "wsbundle explain ping.interval",
    ),
    "bundle": (
        "write an archive that installs without a network",
        "Write one archive with code, locked wheels and deploy.yaml. On the host, unpack it and run: sudo sh install",
        "wsbundle bundle --python 3.13 --env prod",
    ),
    "deploy": (
        "install on other hosts, over ssh",
        "Ask each host what it is, send it an archive, and run its install there, one host after another; stop at the "
        "first that fails. ssh must get in without a password, as root or as a user with sudo -n. Without HOST, the "
        "hosts are those that deploy.yaml lists.",
        "wsbundle deploy ws1.mycompany.org ws2.mycompany.org",
    ),
}
_ON_A_HOST = {
    "install": (
        "make this host run what deploy.yaml says, all or nothing",
        "Report every obstacle, then install what is missing and switch to it. If any step fails, go back. Needs root.",
        "sudo wsbundle install --env prod",
    ),
    "plan": (
        "what install would change; exit code 3 when there is something",
        "Show packages, user, keys and files that an installation would add (+), change (~) or remove (-), and its "
        "effects; as root also what would stop it. Nothing is changed. Without root, what only root may read is left "
        "out.",
        "sudo wsbundle plan --full",
    ),
    "status": (
        "what runs here; exit code 4 when it was edited by hand",
        "Say what is installed, whether it runs and answers, and what was edited by hand.",
        "sudo wsbundle status --format json",
    ),
    "doctor": (
        "whether it does what deploy.yaml says, seen from outside",
        "Check every setting on the running host, as a client, another machine and the kernel see it: what was "
        "expected, what was seen, and the fix. No client is disconnected, unless --stress is given. Exit code 1 when "
        "something failed, 3 when there are only warnings.",
        "sudo wsbundle doctor --quick",
    ),
    "top": (
        "what it does, once a second",
        "Show connections, messages, refusals, closes and each worker, refreshed each second. q quits, s sorts. On "
        "anything but a terminal, or with --once, show it once, after a second of looking.",
        "wsbundle top --once",
    ),
    "clients": (
        "who is connected",
        "List the clients of all workers: their addresses, where they come from, how long they have been there, and "
        "how much waits for them. Needs root.",
        "sudo wsbundle clients --address alice",
    ),
    "kick": (
        "close the connection of a client",
        "Close every connection that has this address with code 4011; our clients do not come back. Needs root.",
        "sudo wsbundle kick alice",
    ),
    "logs": (
        "what the service says",
        "Show the last lines that the service has logged, and with -f those that come. What nginx logs about it is in "
        "/var/log/nginx.",
        "sudo wsbundle logs -f",
    ),
    "mailbox": (
        "show what mailboxes hold, copy them, or put a copy in their place",
        "Print how many messages wait for clients that are away, for all or for one; write a copy of all; or put one "
        "in their place, while the service is stopped, on every host that uses them. Needs root.",
        "sudo wsbundle mailbox --export mailboxes.db",
    ),
    "history": (
        "the generations that are kept",
        "List the generations that rollback can go back to.",
        "wsbundle history",
    ),
    "rollback": (
        "make an earlier generation current again",
        "Go back to the newest healthy generation before the current one, or to the one with this number. Needs root.",
        "sudo wsbundle rollback 3",
    ),
    "uninstall": (
        "remove exactly what was installed",
        "Remove what was installed. Data, logs, keys and the user stay, unless --purge is given. Needs root.",
        "sudo wsbundle uninstall --purge",
    ),
}


# What can be asked from a desk as well.
_ELSEWHERE = ("status", "doctor", "top", "clients", "kick", "logs", "history", "rollback", "uninstall")
COMMANDS = {**_ANYWHERE, **_ON_A_HOST}
_EXAMPLES = ("wsbundle init ws.mycompany.org", "wsbundle check", "sudo wsbundle install")


class _Formatter(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(wrapped(text, width, indent))


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # argparse makes a formatter for every argument, and each asks shutil for the terminal's width: a tenth of the
        # time in which a fault in deploy.yaml is told.
        super().__init__(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100), **options)

    def format_help(self) -> str:
        width = _width()
        self.formatter_class = lambda prog: _Formatter(prog, width=width, max_help_position=28)
        return super().format_help()

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            # Up to Python 3.12 argparse takes `--set=--` for that option with no value at all, and says nothing.
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


class _Overview(_Parser):
    """The parser of the whole command line; its help has the commands in two groups, and examples."""

    command, as_root = COMMAND, AS_ROOT

    def format_help(self) -> str:
        parts = [self.format_usage(), f"{self.description}\n"]
        for title, group in (("anywhere", _ANYWHERE), ("on the host", _ON_A_HOST)):
            rows = "".join(f"  {name:11}{summary}\n" for name, (summary, _, _) in group.items())
            parts.append(f"{title}:\n{rows}")
        examples = _named(_EXAMPLES, self.command, self.as_root)
        parts.append("examples:\n" + "".join(f"  {example}\n" for example in examples))
        parts += ["\n".join([*wrapped(text, _width()), ""]) for text in (_MORE, self.epilog or "")]
        return "\n".join(parts)


_MORE = "`wsbundle COMMAND --help` has options and an example for each; `wsbundle --version` prints the version."


def _named(examples: Iterable[str], command: str, as_root: str) -> list[str]:
    starts = {"sudo wsbundle ": f"{as_root} ", "wsbundle ": f"{command} "}
    return [
        start + example.removeprefix(plain)
        for example in examples
        for plain, start in starts.items()
        if example.startswith(plain)
    ]


def _width() -> int:
    import shutil  # only help pays for it

    return min(100, shutil.get_terminal_size((100, 24)).columns)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command, and in `run` what does it.

    Raises:
        UsageError: it is not understood.
    """
    for before, word in pairwise(arguments):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("-") and equals and not value):
            has_name = option or before.startswith("-") or before in COMMANDS
            what = f"nothing is given for {option or before}" if has_name else f"the word after {before} is empty"
            raise UsageError(f"{what}; write what is meant, or leave it out")
    if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        nearest = did_you_mean(arguments[0], COMMANDS) or f"; use one of {', '.join(COMMANDS)}"
        raise UsageError(f"{arguments[0] or 'an empty word'} is not a command{nearest}")
    only = arguments[0] if arguments and arguments[0] in COMMANDS else None
    options, unknown = parser(only=only).parse_known_args(arguments)
    if unknown:
        verb: argparse.ArgumentParser = options.verb_parser
        known = [name for action in verb._actions for name in action.option_strings]
        nearest = did_you_mean(unknown[0].partition("=")[0], known) if unknown[0].startswith("-") else ""
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}{nearest or f'; see {verb.prog} --help'}")
    return options


def _generation(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a generation; wsbundle history lists them")
    return int(text)


def _number_of(what: str) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}; use 1 or more")
        return int(text)

    return number


def parser(command: str = COMMAND, as_root: str = AS_ROOT, only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; `command` and `as_root` are how examples start the program.

    With `only`, it knows that command alone: all of them together take a tenth of the time in which a fault in
    deploy.yaml is reported.
    """
    whole = _Overview(
        prog="wsbundle",
        description="One deploy.yaml becomes a complete, verified deployment of the notification center.",
        epilog="Exit codes: 0 done or nothing to do, 1 failed, 2 deploy.yaml or the command line is wrong, "
        "3 changes are pending (plan) or there are only warnings (doctor), 4 the host was edited by hand (status).",
        allow_abbrev=False,
    )
    whole.command, whole.as_root = command, as_root
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = whole.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="wsbundle", parser_class=_Parser
    )
    for name, (summary, description, example) in COMMANDS.items():
        if only in (None, name):
            (shown,) = _named([example], command, as_root)
            verb = subparsers.add_parser(
                name, help=summary, description=description, epilog=f"Example: {shown}", allow_abbrev=False
            )
            verb.set_defaults(verb_parser=verb)
            _add_options(name, verb)
    return whole


def _add_options(name: str, verb: argparse.ArgumentParser) -> None:
    if name in _ON_A_HOST:
        verb.set_defaults(run=_on_the_host, verb=name)
    if name in _OWN_OPTIONS:
        _OWN_OPTIONS[name](verb)
    if name in _ELSEWHERE:
        verb.add_argument("--host", metavar="HOST", help="on this host, where it was deployed, over ssh")
    if name in ("bundle", "deploy"):
        verb.add_argument(
            "--uv", action="store_true", help="take uv along: 20 MB more, installed in a third of the time"
        )
    if name in ("render", "check", "bundle", "deploy", "install", "plan"):
        verb.add_argument("-v", "--verbose", action="store_true", help="list also the checks that accept")
    if name != "logs":
        verb.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    if name in ("explain", "import"):
        return
    # With logs, `-f` is what it is with every program that shows them.
    names = ("--file",) if name == "logs" else ("-f", "--file")
    verb.add_argument(*names, metavar="FILE", default="deploy.yaml", help="default: deploy.yaml")
    if name == "init":
        return
    verb.add_argument("--env", metavar="NAME", help="lay deploy.NAME.yaml over it")
    verb.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="set one key; repeatable")


def _add_to_init(init: argparse.ArgumentParser) -> None:
    init.add_argument("domain", metavar="DOMAIN", help="the name that clients connect to, such as ws.mycompany.org")
    init.add_argument(
        "--app", action="store_true", help="for the ASGI application in this directory, with what is seen of it"
    )
    init.set_defaults(run=_init)


def _add_to_import(imported: argparse.ArgumentParser) -> None:
    imported.add_argument("files", metavar="FILES", nargs="*", help="default: what is found on this host")
    imported.add_argument(
        "-o", "--output", metavar="FILE", default="deploy.yaml", help="a new file, or - (default: deploy.yaml)"
    )
    imported.add_argument("--service", metavar="NAME", help="which unit or program, where several start a server")
    imported.add_argument("--domain", metavar="NAME", help="where clients come to; default: the site's server_name")
    imported.add_argument(
        "--takeover", action="store_true", help="then install it, lead the clients over, and retire the old service"
    )
    imported.set_defaults(run=_import)


def _add_to_render(render: argparse.ArgumentParser) -> None:
    render.add_argument("-o", "--output", metavar="DIR", help="where to write it (default: build/<name>)")
    render.set_defaults(run=commands.render)


def _add_to_check(check: argparse.ArgumentParser) -> None:
    check.set_defaults(run=commands.check)


def _add_to_run(run: argparse.ArgumentParser) -> None:
    run.set_defaults(run=commands.run)


def _add_to_token(token: argparse.ArgumentParser) -> None:
    purpose = token.add_mutually_exclusive_group(required=True)
    purpose.add_argument("subject", metavar="UUID", nargs="?", help="print a token that registers this address")
    purpose.add_argument("--new-key", action="store_true", help="add a key, which signs from now on; others stay good")
    purpose.add_argument("--drop-key", metavar="KID", help="remove a key; tokens signed with it are no longer accepted")
    token.add_argument(
        "--send-to",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="where its bearer may send: an address, group:NAME, or '*' for all; repeatable (default: nobody)",
    )
    token.add_argument("--expires", metavar="TIME", default="30d", help="such as 90s, 45m, 12h (default: 30d)")
    token.add_argument("--algorithm", choices=("HS256", "EdDSA"), default="HS256", help="of a new key (default: HS256)")
    token.add_argument("--keys", metavar="FILE", help="default: the deployment's, which only root may read")
    token.set_defaults(run=commands.token)


def _add_to_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("--origin", action="store_true", help="also print where each value was given")
    show.set_defaults(run=commands.show)


def _add_to_explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("topic", metavar="KEY|RULE", nargs="?", help="a setting, a section, a rule or an agreement")
    explain.set_defaults(run=commands.explain)


def _add_to_bundle(bundle: argparse.ArgumentParser) -> None:
    bundle.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: build/<name>-<id>.tar.gz)")
    bundle.add_argument("--python", metavar="X.Y", action="append", help="the host's; repeatable (default: 3.11)")
    bundle.add_argument("--machine", choices=("x86_64", "aarch64"), default="x86_64", help="the host's, as uname -m")
    bundle.add_argument("--cloud-init", metavar="URL", help="print user data that installs it, fetched from there")
    bundle.set_defaults(run=_bundle)


def _add_to_deploy(deploy: argparse.ArgumentParser) -> None:
    deploy.add_argument("hosts", metavar="HOST", nargs="*", help="what ssh connects to (default: `hosts`)")
    deed = deploy.add_mutually_exclusive_group()
    deed.add_argument("--plan", action="store_true", help="show what it would change on each host; exit code as plan")
    deed.add_argument("--back", action="store_true", help="take back what deploying this has changed, last host first")
    deploy.add_argument("--full", action="store_true", help="with --plan: the content of new and removed files, too")
    deploy.add_argument("--keep-going", action="store_true", help="go on to the next host after one that fails")
    deploy.add_argument(
        "--parallel", metavar="N", type=_number_of("hosts"), default=1, help="N hosts at once (default: 1)"
    )
    deploy.add_argument("--overwrite", action="store_true", help="replace what was edited by hand; keep copies")
    deploy.set_defaults(run=_deploy)


def _add_to_install(install: argparse.ArgumentParser) -> None:
    install.add_argument("--overwrite", action="store_true", help="replace what was edited by hand; keep copies")


def _add_to_top(top: argparse.ArgumentParser) -> None:
    from generator.host.rates import SORTS

    top.add_argument("--once", action="store_true", help="show it once, and end")
    top.add_argument("--sort", choices=tuple(SORTS), default="connections", help="default: connections")


def _add_to_clients(clients: argparse.ArgumentParser) -> None:
    clients.add_argument("--address", metavar="A", help="only who has this address, or comes from there")


def _add_to_kick(kick: argparse.ArgumentParser) -> None:
    kick.add_argument("uuid", metavar="UUID", help="any address of the client, also its temporary one")


def _add_to_plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--full", action="store_true", help="show the content of new and removed files, too")
    # Of `wsbundle deploy`, which brings a host that joins an engine what it needs for that, once there is one.
    plan.add_argument("--joins", action="store_true", help=argparse.SUPPRESS)


def _add_to_logs(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("--lines", metavar="N", type=_number_of("lines"), default=50, help="default: 50")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")


def _add_to_mailbox(mailbox: argparse.ArgumentParser) -> None:
    deed = mailbox.add_mutually_exclusive_group()
    deed.add_argument("address", metavar="ADDRESS", nargs="?", help="show this mailbox; left out, all together")
    deed.add_argument("--export", metavar="FILE", help="write a copy of all mailboxes, also while the service runs")
    deed.add_argument("--import", metavar="FILE", dest="restore", help="put such a copy in their place")
    mailbox.set_defaults(run=_mailbox)


def _add_to_doctor(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--only", metavar="KEY", action="append", default=[], help="check this alone; repeatable")
    doctor.add_argument("--quick", action="store_true", help="leave out what takes longer than five seconds")
    doctor.add_argument("--stress", action="store_true", help="also what could refuse or disconnect clients")
    doctor.set_defaults(run=_doctor)


def _add_to_rollback(rollback: argparse.ArgumentParser) -> None:
    rollback.add_argument("number", metavar="N", type=_generation, nargs="?", help="default: the one before")


def _add_to_uninstall(uninstall: argparse.ArgumentParser) -> None:
    uninstall.add_argument("--purge", action="store_true", help="also data and user")


_OWN_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "init": _add_to_init,
    "import": _add_to_import,
    "render": _add_to_render,
    "check": _add_to_check,
    "run": _add_to_run,
    "token": _add_to_token,
    "show": _add_to_show,
    "explain": _add_to_explain,
    "bundle": _add_to_bundle,
    "deploy": _add_to_deploy,
    "install": _add_to_install,
    "top": _add_to_top,
    "clients": _add_to_clients,
    "kick": _add_to_kick,
    "plan": _add_to_plan,
    "logs": _add_to_logs,
    "mailbox": _add_to_mailbox,
    "doctor": _add_to_doctor,
    "rollback": _add_to_rollback,
    "uninstall": _add_to_uninstall,
}


def _init(options: argparse.Namespace, report: Report) -> int:
    from generator import sample

    return sample.init(options, report)


def _import(options: argparse.Namespace, report: Report) -> int:
    from generator.importing import command

    return command.import_by_hand(options, report)


def _bundle(options: argparse.Namespace, report: Report) -> int:
    from generator.packing import pack

    return pack.bundle(options, report)


def _deploy(options: argparse.Namespace, report: Report) -> int:
    from generator.deploy import command

    return command.deploy(options, report)


def _elsewhere(options: argparse.Namespace, report: Report) -> int:
    from generator.deploy import elsewhere

    return elsewhere.run_there(options, report)


def _doctor(options: argparse.Namespace, report: Report) -> int:
    if options.host is not None:
        return _elsewhere(options, report)
    from generator.doctor import examine

    return examine.doctor(options, report)


def _mailbox(options: argparse.Namespace, report: Report) -> int:
    from generator import commands, mailboxes
    from generator.host import letters

    deploy = commands.loaded_for_center(options, report).deploy
    return mailboxes.command(deploy, options, report, letters)


def _on_the_host(options: argparse.Namespace, report: Report) -> int:
    if getattr(options, "host", None) is not None:
        return _elsewhere(options, report)
    from generator.host import operate

    verb = "show_plan" if options.verb == "plan" else options.verb
    code: int = getattr(operate, verb)(options, report)
    return code
