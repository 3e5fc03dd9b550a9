"""If the installer is killed, the host is not left half-way: a guardian process undoes the unfinished change.

The guardian is a fork of the installer, so it needs nothing more from the disk, and it holds the installer's lock as
well: flock(2) releases it with the last of the two. In a session of its own it survives a signal to the installer's
process group. A socket connects them, on which the installer says that it is done. If the socket closes without that,
the installer is gone, and so is every program that it had started, because those hold the socket, too.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from generator.host.programs import journal
from generator.report import Report

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end an installation in order."""

_READY, _DONE = b"ready", b"done"


@contextmanager
def guarded(undo: Callable[[Report], object]) -> Iterator[None]:
    """If this process is killed meanwhile, `undo` is called, and its report goes to the journal."""
    with suppress(OSError):
        sys.stdout.flush()  # the guardian would say it again
    line, other_end = socket.socketpair()
    guardian = os.fork()
    if guardian == 0:
        line.close()
        _watch(other_end, undo)
    other_end.close()
    line.set_inheritable(True)
    line.recv(len(_READY))
    try:
        yield
    finally:
        with suppress(OSError):  # it was killed itself
            line.send(_DONE)
        line.close()
        os.waitpid(guardian, 0)  # until then it holds the lock


def _watch(line: socket.socket, undo: Callable[[Report], object]) -> NoReturn:
    try:
        os.setsid()
        # A unit whose main process was killed is stopped with all that is left in it, and this is what is left then.
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        # A program that reads the installer's output need not wait for its guardian.
        _speak_to(os.open(os.devnull, os.O_RDWR))
        line.send(_READY)
        if line.recv(len(_DONE)) != _DONE:
            _undo_aloud(undo)
    finally:
        os._exit(0)


def _undo_aloud(undo: Callable[[Report], object]) -> None:
    with journal() as listening:
        assert listening.stdin is not None
        _speak_to(listening.stdin.fileno())
        report = Report()
        report.goes_on_unheard = True
        try:
            undo(report)
        except Exception:
            traceback.print_exc()
        finally:
            _speak_to(os.open(os.devnull, os.O_RDWR))  # the journal hears the end


def _speak_to(descriptor: int) -> None:
    for stream in (1, 2):
        os.dup2(descriptor, stream)
