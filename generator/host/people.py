"""`wsbundle clients` and `wsbundle kick`: asked of each worker, on sockets that root alone can reach."""

import json
import os
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from generator.commands import loaded_for_center
from generator.host.clients import variable
from generator.host.quantities import duration, size
from generator.host.store import Store
from generator.program import AS_ROOT
from generator.report import CommandError, Report, printable

_PREFIX = "control-"
_PATIENCE_S = 5.0
_HEAD = ("uuid", "addresses", "from", "protocol", "for", "waiting")


class _Told(NamedTuple):
    """What workers answered, and for each that did not, where and why."""

    answers: list[Any]
    silent: list[str]


def clients(options: Namespace, report: Report) -> int:
    """List who is connected, the longest first."""
    told = _asked(Store(loaded_for_center(options, report).deploy.name), {"do": "clients"})
    found = sorted(told.answers, key=lambda each: -each["seconds"])
    if options.address is not None:
        found = [each for each in found if options.address in (each["uuid"], each["from"], *each["addresses"])]
    report.fact(clients=found)
    rows = [_HEAD, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        report.line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return _said(told.silent, report)


def kick(options: Namespace, report: Report) -> int:
    """Close the connections of whoever has an address."""
    told = _asked(Store(loaded_for_center(options, report).deploy.name), {"do": "kick", "uuid": options.uuid})
    report.fact(kicked=told.answers)
    if not told.answers and not told.silent:
        raise CommandError(f"nobody has the address {options.uuid}; `{AS_ROOT} clients` lists who is connected")
    for uuid in told.answers:
        report.line(f"closed with 4011: {uuid}")
    return _said(told.silent, report)


def _said(silent: list[str], report: Report) -> int:
    """The exit code, after saying which workers are missing in what was shown."""
    for why in silent:
        report.error(f"a worker does not answer at {why}; its clients are missing here")
    return 1 if silent else 0


def _row(client: dict[str, Any]) -> tuple[str, ...]:
    return (
        client["uuid"],
        printable(" ".join(client["addresses"])) or "-",
        printable(client["from"] or "this host"),
        client["protocol"],
        duration(client["seconds"]),
        size(client["waiting"]),
    )


def _asked(store: Store, request: dict[str, str]) -> _Told:
    """What all workers answer. One that is stuck must not hide the others: that is when somebody looks."""
    if os.geteuid():
        raise CommandError("you are not root; run it with sudo")
    if store.current is None:
        raise CommandError(f"{store.name} is not installed")
    directory = Path(variable(store, "WEBSOCKET_BUS") or "")
    told, number = _Told([], []), 0
    for path in sorted(directory.glob(f"{_PREFIX}*")):
        try:
            answer = _answer(path, request)
        except OSError as error:
            told.silent.append(f"{path}: {error.strerror or error}")
            continue
        if answer is not None:
            told.answers.extend(answer)
            number += 1
    if not number and not told.silent:
        raise CommandError(f"no worker of {store.name} answers in {directory}; see `{AS_ROOT} status`")
    return told


def _answer(path: Path, request: dict[str, str]) -> list[Any] | None:
    """What one worker answers; None from one that has ended.

    Raises:
        OSError
        CommandError: it refuses to.
    """
    try:
        with socket.socket(socket.AF_UNIX) as worker:
            worker.settimeout(_PATIENCE_S)
            worker.connect(str(path))
            worker.sendall(json.dumps(request).encode() + b"\n")
            answer = b"".join(iter(lambda: worker.recv(65536), b""))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)  # a worker that was killed has left it
        return None
    except (FileNotFoundError, ConnectionResetError, BrokenPipeError):
        return None
    # One that ends while it is asked breaks off.
    told: list[Any] | dict[str, str] | None = json.loads(answer) if answer.endswith(b"\n") else None
    if isinstance(told, dict):
        raise CommandError(f"{request['do']}: the service does not understand this: {told['error']}")
    return told
