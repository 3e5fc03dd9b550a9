"""Priorities for the journal of systemd, which takes a line without one for `info`.

A line that begins with `<3>` is an error there. The journal strips the prefix, and adds the time itself. If stderr is a
terminal, a file or a pipe to supervisor, nothing changes.

Source: sd-daemon(3); systemd.exec(5), "$JOURNAL_STREAM".
"""

import io
import logging
import os
import re
import sys
from typing import NoReturn, TextIO

_ERROR = 3
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, _ERROR), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_has_priority = re.compile("<[0-7]>").match


def is_journal(stream: object) -> bool:
    """Whether systemd reads this stream: the variable alone is inherited by programs whose stderr is something else."""
    try:
        state = os.fstat(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def prefix(level: int) -> str:
    """The prefix of a line of this level of `logging`."""
    return f"<{next((number for least, number in _PRIORITIES if level >= least), _DEBUG)}>"


def prefix_stderr() -> None:
    """Mark every line that is not logged as an error for the journal: tracebacks, and why the process ends."""
    if is_journal(sys.stderr) and not isinstance(sys.stderr, _Prefixed):
        sys.stderr = _Prefixed(sys.stderr)


def fail(reason: object, status: int = 1) -> NoReturn:
    """End this process, and say why on stderr."""
    say(reason)
    sys.exit(status)


def say(reason: object) -> None:
    """Write to stderr in one piece: `print` and `sys.exit` write the end of a line by itself, and another worker may
    come between.
    """
    print(f"{reason}\n", end="", file=sys.stderr)


class _Prefixed(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begins = True

    def write(self, text: str) -> int:
        pieces = []
        for line in io.StringIO(text):
            # The log's own lines have theirs.
            if self._begins and not _has_priority(line):
                pieces.append(f"<{_ERROR}>")
            pieces.append(line)
            self._begins = line.endswith("\n")
        self._stream.write("".join(pieces))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()
