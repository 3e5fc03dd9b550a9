"""The output for the operator: lines for people, or one JSON object with the same facts."""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from generator.config.document import Located
from generator.progress import Progress, ended
from service.declaration import Fault

FORMAT = 1  # of the JSON object; another number when a fact changes its name or its meaning
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}


class UsageError(Exception):
    """The command line asks for something that is not there."""


class CommandError(Exception):
    """The command could not do its work, though deploy.yaml is sound."""


# What helps against what the system says of a file.
_REMEDIES = {
    errno.EACCES: "run it as a user who may, or let this one",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EEXIST: "remove what is in its way, or name another",
    errno.EISDIR: "name a file",
    errno.ELOOP: "remove one of the links that lead to each other",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ENOSPC: "make room there",
    errno.ENOTDIR: "remove what is in the way of the directory, or name another",
    errno.EPERM: "run it as a user who may, or let this one",
    errno.EROFS: "mount it so that it can be written to, or name another place",
}


def refused(error: OSError) -> str:
    """What the system has refused and where; and the fix, if one helps in general."""
    try:
        os.getcwd()
    except FileNotFoundError:  # nothing is found then, and the system does not say why
        return "wsbundle: the current directory is gone; go to one that exists"
    remedy = _REMEDIES.get(error.errno or 0)
    if error.errno == errno.EPERM and os.geteuid() == 0:
        remedy = "`lsattr -d` shows whether it, or its directory, was made immutable, and `chattr -i` ends that"
    directory = os.path.dirname(error.filename) if isinstance(error.filename, str) else ""
    if error.errno == errno.ENOENT and directory and not os.path.isdir(directory):
        remedy = f"make the directory {directory}"
    return f"{error.filename or 'wsbundle'}: {error.strerror or error}" + (f"; {remedy}" if remedy else "")


def said(error: Exception) -> str:
    """The words of an error for people, whether a program's or the system's own."""
    return refused(error) if isinstance(error, OSError) else str(error)


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
        self._progress: Progress | None = None  # of the step that is under way

    def fact(self, **facts: Any) -> None:
        """Facts for the JSON object; text has them in its lines."""
        self.facts |= facts

    def line(self, text: str = "") -> None:
        self._print(text + "\n")

    def result(self, text: str) -> None:
        """A document for another program, on stdout."""
        if not self.json:
            print(text, end="", flush=True)  # before what is said of it on stderr

    def aside(self, text: str) -> None:
        """A line that is no result, wherever those go."""
        self._print(text + "\n", sys.stderr)

    @contextmanager
    def step(self, name: str, detail: Callable[[], str] | None = None) -> Iterator[None]:
        """Say what is being done while it is done, and how long it took. `detail` says how far it is."""
        began, word, colour = time.monotonic(), "failed", "red"
        try:
            with self._shown(name, detail, at_once=True):
                yield
            word, colour = "done", "green"
        finally:
            seconds = time.monotonic() - began
            self.facts.setdefault("steps", []).append({"step": name, "seconds": round(seconds, 3), "state": word})
            self._print(ended(name, seconds, paint(f"{word:6}", colour, self._people())), now=True)

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """What may take a while, and is worth no line when it is over: only on a terminal, after a second."""
        with self._shown(name, None, at_once=False):
            yield

    @contextmanager
    def _shown(self, name: str, detail: Callable[[], str] | None, at_once: bool) -> Iterator[None]:
        if self.json or self._progress is not None:  # one line, that of the outermost step
            yield
            return
        self._progress = Progress(self._descriptor(), name, detail)
        self._progress.start(at_once)
        try:
            yield
        finally:
            self._progress.stop()
            self._progress = None

    def _people(self) -> TextIO:
        return sys.stderr if self.keeps_stdout else sys.stdout

    def _descriptor(self) -> int:
        """Of the stream that people read; none in a test that collects what is said."""
        try:
            return self._people().fileno()
        except (OSError, ValueError):
            return -1

    def error(self, text: str) -> None:
        if self._is_new("errors", text):
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

    def _is_new(self, kind: str, entry: dict[str, Any] | str) -> bool:
        """Whether it was not reported yet: a second check, such as after packages were installed, may find it again."""
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

    def _print(self, text: str, stream: Any = None, now: bool = False) -> None:
        if self.json:
            return
        try:
            with self._progress.aside() if self._progress else nullcontext():
                if stream is sys.stderr:
                    sys.stdout.flush()  # into one pipe, both arrive in the order in which they were said
                print(text, end="", file=stream or self._people(), flush=self.goes_on_unheard or now)
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
