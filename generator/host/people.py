"""`wsbundle clients` and `wsbundle kick`: asked of each worker, on sockets that root alone can reach."""

import json
import os
import socket
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generator.commands import loaded_for
from generator.host.clients import variable
from generator.host.quantities import duration, size
from generator.host.store import Store
from generator.program import AS_ROOT
from generator.report import CommandError, Report

_PREFIX = "control-"
_PATIENCE_S = 5.0
_HEAD = ("uuid", "addresses", "from", "protocol", "for", "waiting")


def clients(options: Namespace, report: Report) -> int:
    """List who is connected, the longest first."""
    told = _asked(Store(loaded_for(options, report).deploy.name), {"do": "clients"})
    found = sorted((client for answer in told for client in answer), key=lambda each: -each["seconds"])
    if options.address is not None:
        found = [each for each in found if options.address in (each["uuid"], each["from"], *each["addresses"])]
    report.fact(clients=found)
    rows = [_HEAD, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        report.line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def kick(options: Namespace, report: Report) -> int:
    """Close the connections of whoever has an address."""
    told = _asked(Store(loaded_for(options, report).deploy.name), {"do": "kick", "uuid": options.uuid})
    gone = [uuid for answer in told for uuid in answer]
    report.fact(kicked=gone)
    if not gone:
        raise CommandError(f"nobody has the address {options.uuid}; `{AS_ROOT} clients` lists who is connected")
    for uuid in gone:
        report.line(f"closed with 4011: {uuid}")
    return 0


def _row(client: dict[str, Any]) -> tuple[str, ...]:
    return (
        client["uuid"],
        " ".join(client["addresses"]) or "-",
        client["from"] or "this host",
        client["protocol"],
        duration(client["seconds"]),
        size(client["waiting"]),
    )


def _asked(store: Store, request: dict[str, str]) -> list[list[Any]]:
    """What each worker answers."""
    if os.geteuid():
        raise CommandError("you are not root; run it with sudo")
    if store.current is None:
        raise CommandError(f"{store.name} is not installed")
    directory = Path(variable(store, "WEBSOCKET_BUS") or "")
    answers = list(_answers(sorted(directory.glob(f"{_PREFIX}*")), request))
    if not answers:
        raise CommandError(f"no worker of {store.name} answers in {directory}; see `{AS_ROOT} status`")
    return answers


def _answers(sockets: list[Path], request: dict[str, str]) -> Iterator[list[Any]]:
    for path in sockets:
        try:
            with socket.socket(socket.AF_UNIX) as worker:
                worker.settimeout(_PATIENCE_S)
                worker.connect(str(path))
                worker.sendall(json.dumps(request).encode() + b"\n")
                answer = b"".join(iter(lambda worker=worker: worker.recv(65536), b""))  # type: ignore[misc]
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # a worker that was killed has left it
            continue
        except OSError as error:
            raise CommandError(f"a worker does not answer at {path}: {error.strerror or error}") from None
        told: list[Any] = json.loads(answer)
        yield told
