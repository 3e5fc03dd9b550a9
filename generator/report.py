"""The output for the operator: lines for people, or one JSON object with the same facts."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from generator.config.document import Located
from service.declaration import Fault

FORMAT = 1  # of the JSON object; another number when a fact changes its name or its meaning
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}


class UsageError(Exception):
    """The command line asks for something that is not there."""


class CommandError(Exception):
    """The command could not do its work, though deploy.yaml is sound."""


NOT_ROOT = Fault("you are not root, so what only root may read is left out", "run it with sudo")


class Report:
    """Collects what one command has to say.

    As text each line is printed when it is said: results on stdout, faults and warnings on stderr. As JSON `finish`
    prints one object.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.verbose = False  # whether lines that say that all is well are printed one by one
        self.facts: dict[str, Any] = {}
        # Whether to go on when nobody reads the output any more: half an installation is worse than a silent one.
        self.goes_on_unheard = False
        self.keeps_stdout = False  # for what another program reads: all that is for people goes to stderr
        self._is_inside_line = False  # a step is under way, and its name is on the terminal

    def fact(self, **facts: Any) -> None:
        """Facts for the JSON object; text has them in its lines."""
        self.facts |= facts

    def line(self, text: str = "") -> None:
        self._print(text + "\n")

    def result(self, text: str) -> None:
        """A document for another program, on stdout."""
        if not self.json:
            print(text, end="")

    def aside(self, text: str) -> None:
        """A line that is no result, where the results go into a file."""
        self._print(text + "\n", sys.stderr)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what is being done while it is done, and how long it took."""
        began = time.monotonic()
        stream = self._people()
        if stream.isatty():  # elsewhere, as in a log, nothing can be written over
            self._print(f"{'':19}{name}"[: (os.get_terminal_size(stream.fileno()).columns or 80) - 1])
            self._is_inside_line = not self.json
        try:
            yield
        except BaseException:
            self._ended(name, began, "failed", "red")
            raise
        self._ended(name, began, "done", "green")

    def _people(self) -> TextIO:
        return sys.stderr if self.keeps_stdout else sys.stdout

    def _ended(self, name: str, began: float, word: str, colour: str) -> None:
        seconds = time.monotonic() - began
        self.facts.setdefault("steps", []).append({"step": name, "seconds": round(seconds, 3), "state": word})
        start = "\r" if self._is_inside_line else ""
        self._is_inside_line = False
        self._print(f"{start}  {paint(f'{word:6}', colour)} {seconds:6.1f} s  {name}\n")

    def error(self, text: str) -> None:
        self.facts.setdefault("errors", []).append(text)
        self._print(paint(text, "red", sys.stderr) + "\n", sys.stderr)

    def faults(self, faults: Iterable[Located]) -> None:
        for fault in faults:
            self._located("faults", fault, "")

    def warnings(self, warnings: Iterable[Located]) -> None:
        for warning in warnings:
            self._located("warnings", warning, "warning: ")

    def warning(self, fault: Fault) -> None:
        """One that concerns no setting."""
        entry = {"what": fault.what, "fix": fault.fix}
        if self._is_new("warnings", entry):
            self._print(paint(f"warning: {fault}", "yellow", sys.stderr) + "\n", sys.stderr)

    def _is_new(self, kind: str, entry: dict[str, Any]) -> bool:
        """Whether it was not reported yet: a second check, after packages were installed, may find it again."""
        said = self.facts.setdefault(kind, [])
        if entry in said:
            return False
        said.append(entry)
        return True

    def _located(self, kind: str, located: Located, word: str) -> None:
        origin, key, fault = located.origin, located.key, located.fault
        where = {"source": origin.source, "line": origin.line, "column": origin.column, "key": key}
        entry = {**where, "what": fault.what, "fix": fault.fix}
        if self._is_new(kind, entry) and not self.json:
            place = paint(f"{origin}:", "bold", sys.stderr)
            what = paint(f"{word}{fault.what}", "yellow" if word else "red", sys.stderr)
            self._print(f"{place} {key}{': ' if key else ''}{what}; {fault.fix}\n", sys.stderr)

    def _print(self, text: str, stream: Any = None) -> None:
        if self.json:
            return
        if self._is_inside_line:
            self._is_inside_line, text = False, f"\n{text}"
        try:
            if stream is sys.stderr:
                sys.stdout.flush()  # into one pipe, both arrive in the order in which they were said
            print(text, end="", file=stream or self._people(), flush=self.goes_on_unheard or text[-1] != "\n")
        except OSError:
            if not self.goes_on_unheard:
                raise

    def finish(self, code: int) -> int:
        """Print what is still to be printed, and pass the exit code on."""
        if self.json:
            import json

            print(json.dumps({"format": FORMAT, "exit_code": code, **self.facts}, indent=2))
        return code


def printable(text: str) -> str:
    """A text of somebody else's for root's terminal: what would steer that, or begin another line, is escaped."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def folded(text: str, column: int) -> str:
    """The text broken between words to fit a terminal, from this column on. Elsewhere it stays one line."""
    width = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    if not width:  # no terminal, or one that does not know its width
        return text
    return f"\n{' ' * column}".join(wrapped(text, max(width - column, 20)))


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The text in lines, broken only between words: a path that is broken at a hyphen cannot be copied."""
    import textwrap

    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def paint(text: str, colour: str, stream: Any = None) -> str:
    """The text in a colour, on a terminal and unless NO_COLOR is set (no-color.org)."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
