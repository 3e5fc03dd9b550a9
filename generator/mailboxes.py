"""The mailboxes of a deployment, on the disk of a host or in the engine, by way of what uses them."""

import json
import os
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Protocol

import service.settings as service
from generator.config.schema import Deploy, mailbox
from generator.program import starting
from generator.rendering.render import engine_settings
from generator.report import CommandError, Report, printable


class InTheEngine(Protocol):
    """`generator.host.letters`."""

    def look(self, ours: service.Engine, mailbox: service.Mailbox, address: str | None) -> dict[str, Any]: ...

    def export(self, ours: service.Engine, mailbox: service.Mailbox, file: Path) -> None: ...

    def restore(self, ours: service.Engine, mailbox: service.Mailbox, file: Path) -> None: ...


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


def command(deploy: Deploy, options: Namespace, report: Report, in_the_engine: InTheEngine) -> int:
    """Show what mailboxes hold, write a copy of them, or put a copy in their place."""
    is_there, ours = deploy.mailbox.keep == "engine", engine_settings(deploy)
    directory = str(mailbox(deploy).directory)
    if options.export is not None:
        if is_there:
            in_the_engine.export(ours, deploy.mailbox, Path(options.export))
        else:
            with_mailboxes("export", directory, os.path.abspath(options.export))
        report.line(f"All mailboxes are in {options.export}; keep it as private as the messages are.")
    elif options.restore is not None:
        if is_there:
            in_the_engine.restore(ours, deploy.mailbox, Path(options.restore))
        else:
            with_mailboxes("import", directory, os.path.abspath(options.restore))
        report.line(
            "The mailboxes are those of the copy. Start the service: recipients hear that something may be missing."
        )
    elif is_there:
        _show(in_the_engine.look(ours, deploy.mailbox, options.address), report)
    else:
        words = () if options.address is None else (options.address,)
        _show(json.loads(with_mailboxes("show", directory, *words)), report)
    return 0


def _show(found: dict[str, Any], report: Report) -> None:
    report.fact(**found)
    for line in _lines(found, time.time()):
        report.line(line)


def _lines(found: dict[str, Any], now: float) -> list[str]:
    oldest = found["oldest"]
    age = "" if oldest is None else f", the oldest {_ago(now - oldest)}"
    lines = [f"{found['messages']} messages of {found['bytes']} bytes{age}"]
    if "address" in found:
        return [*lines, f"its owner was here {_ago(now - found['owner_seen'])}"]
    lines[0] = f"{found['mailboxes']} mailboxes: {lines[0]}"
    if "file_bytes" in found:
        lines[0] += f"; the file has {found['file_bytes']} bytes"
    return lines + [
        f"  {printable(each['address'])}: {each['messages']} messages, {each['bytes']} bytes"
        for each in found["fullest"]
    ]


def _ago(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} seconds ago"
