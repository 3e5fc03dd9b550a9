"""The mailboxes of a host, by way of `service.mailbox`: they are read and written by what uses them."""

import json
import os
import subprocess
import time
from argparse import Namespace
from typing import Any

from generator.config.load import load
from generator.config.schema import mailbox
from generator.program import starting
from generator.report import CommandError, Report, printable


def with_mailboxes(verb: str, directory: str, *words: str) -> str:
    """What `service.mailbox` says.

    Raises:
        CommandError: it cannot be done.
    """
    done = subprocess.run(
        starting("service.mailbox", verb, directory, *words), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandError(done.stderr.strip())
    return done.stdout


def command(options: Namespace, report: Report) -> int:
    """Show what mailboxes hold, write a copy of them, or put a copy in their place."""
    deploy = load(options.file, options.env, options.set).deploy
    directory = str(mailbox(deploy).directory)
    if options.export is not None:
        with_mailboxes("export", directory, os.path.abspath(options.export))
        report.line(f"All mailboxes are in {options.export}; keep it as private as the messages are.")
    elif options.restore is not None:
        with_mailboxes("import", directory, os.path.abspath(options.restore))
        report.line(
            "The mailboxes are those of the copy. Start the service: recipients hear that something may be missing."
        )
    else:
        words = () if options.address is None else (options.address,)
        found = json.loads(with_mailboxes("show", directory, *words))
        report.fact(**found)
        for line in _lines(found, time.time()):
            report.line(line)
    return 0


def _lines(found: dict[str, Any], now: float) -> list[str]:
    oldest = found["oldest"]
    age = "" if oldest is None else f", the oldest {_ago(now - oldest)}"
    lines = [f"{found['messages']} messages of {found['bytes']} bytes{age}"]
    if "address" in found:
        return [*lines, f"its owner was here {_ago(now - found['owner_seen'])}"]
    lines[0] = f"{found['mailboxes']} mailboxes: {lines[0]}; the file has {found['file_bytes']} bytes"
    return lines + [
        f"  {printable(each['address'])}: {each['messages']} messages, {each['bytes']} bytes"
        for each in found["fullest"]
    ]


def _ago(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} seconds ago"
