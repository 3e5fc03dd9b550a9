"""Several hosts: one after another or some at a time, each proven before the next, up to the first that fails."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import msgspec

from generator.deploy.answers import worst
from generator.report import CommandError, Report, paint

_FAILED = 1
_UNTRIED = "not tried"


class Row(msgspec.Struct, kw_only=True):
    """What happened to one host. `before` and `now` are generations, empty where nothing is or was installed."""

    host: str
    before: str
    now: str = ""
    seconds: float = 0.0
    result: str = _UNTRIED
    code: int = 0
    said: list[str] = msgspec.field(default_factory=list)

    @property
    def is_untried(self) -> bool:
        return self.result == _UNTRIED


class Fleet:
    """The rows of all hosts, and what they print, each line with its host in front."""

    def __init__(self, hosts: Sequence[str], report: Report) -> None:
        self.rows = {host: Row(host=host, before="") for host in hosts}
        self.stop = threading.Event()
        self._report, self._lock = report, threading.Lock()
        self._width = max(map(len, hosts))

    def speaker(self, host: str) -> Callable[[str], None]:
        """What prints a line of this host."""

        def say(text: str) -> None:
            with self._lock:
                self.rows[host].said.append(text)
                self._report.line(f"{paint(f'{host:{self._width}} |', 'dim')} {text}".rstrip())

        return say

    def each(self, hosts: Sequence[str], act: Callable[[Row], None], at_once: int, keeps_going: bool) -> None:
        """Let `act` fill the row of each host. A host whose row has a code of failure stops those that have not begun.

        When it is interrupted, so is every `act`: its host goes on with what has begun there.
        """
        waiting = list(hosts)
        with ThreadPoolExecutor(at_once) as pool:
            under_way: set[Future[None]] = set()
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < at_once:
                        under_way.add(pool.submit(self._one, self.rows[waiting.pop(0)], act))
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    if not keeps_going and self.failed:
                        waiting.clear()
            except BaseException:
                self.stop.set()
                raise

    def _one(self, row: Row, act: Callable[[Row], None]) -> None:
        began = time.monotonic()
        try:
            act(row)
        except CommandError as error:
            row.code, row.result = _FAILED, str(error)
        row.seconds = round(time.monotonic() - began, 1)

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows.values() if worst([row.code]) not in (0, 3)]

    def end(self) -> int:
        """Print the table; the exit code for all."""
        rows = list(self.rows.values())
        self._report.fact(hosts=[facts(row) for row in rows])
        self._report.line()
        for line in table(rows):
            self._report.line(line)
        return worst(row.code for row in rows)


def facts(row: Row) -> dict[str, Any]:
    """The same for JSON."""
    told: dict[str, Any] = msgspec.to_builtins(row)
    numbers = {key: int(told[key]) if told[key].isdigit() else None for key in ("before", "now")}
    return {**told, **numbers}


def table(rows: Sequence[Row]) -> Iterator[str]:
    """What runs where, for people."""
    head = ("host", "before", "now", "seconds", "result")
    cells = [(row.host, row.before or "-", row.now or "-", f"{row.seconds:.1f}", row.result) for row in rows]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head) - 1)]
    for line in (head, *cells):
        yield "  ".join([*(f"{cell:{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]])
