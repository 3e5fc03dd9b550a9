"""`--host HOST`: a command about a host, run there by the `wsbundle` that was deployed last."""

import argparse
import sys
from argparse import Namespace
from collections.abc import Iterator
from threading import Event

from generator.config.load import load
from generator.deploy.answers import Answer
from generator.deploy.command import check_destination
from generator.deploy.remote import Remote
from generator.deploy.ssh import LOST, Ssh, as_root
from generator.report import CommandError, Report

# They say which deployment is meant, here.
_OURS = ("host", "file", "env", "set", "help")
# Whatever happens to the connection.
_TO_THE_END = ("rollback", "uninstall")


def run_there(options: Namespace, report: Report) -> int:
    """Run it on `options.host`, on this terminal. What is printed, and the exit code, are those of the host.

    Raises:
        UsageError: that is no host.
        CommandError: it cannot be reached, or has no such deployment; or the connection was lost.
        SystemExit: with the exit code of the host, which has printed all there is to say.
    """
    check_destination(options.host)
    name = load(options.file, options.env, options.set).deploy.name
    with Ssh() as ssh:
        remote = Remote(ssh, options.host, name, print, Event())
        answer = remote.ask()
        if not isinstance(answer, Answer):
            raise CommandError(f"{options.host}: {answer}")
        if not answer.archive:
            raise CommandError(
                f"{options.host}: `wsbundle deploy` has not installed {name} there; log in, and run it in its checkout"
            )
        words = list(given(options))
        if options.verb in _TO_THE_END:
            sys.exit(remote.do(answer.archive, options.verb, *words))
        code = ssh.attach(options.host, as_root(*remote.installed(options.verb, *words)))
    if code == LOST:
        raise CommandError(f"{options.host}: the connection was lost")
    sys.exit(code)


def given(options: Namespace) -> Iterator[str]:
    """The options of a command as they were typed, without those that are for this machine."""
    parser: argparse.ArgumentParser = options.verb_parser
    positional = []
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if action.dest in _OURS or value in (None, [], action.default):
            continue
        if not action.option_strings:
            positional.append(str(value))
        elif action.nargs == 0:
            yield action.option_strings[-1]
        else:
            for each in value if isinstance(value, list) else [value]:
                yield f"{action.option_strings[-1]}={each}"
    if positional:
        yield from ("--", *positional)
