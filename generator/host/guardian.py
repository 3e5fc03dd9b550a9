"""Whoever kills the installer does not stop it half-way: its guardian then undoes what it had begun.

The guardian is a fork of the installer, so it needs nothing more from the disk, and it holds the installer's lock as
well: flock(2) gives that up with the last of the two. In a session of its own it outlives what ends the installer's
process group. They are joined by a line, over which the installer says that it is done. Where the line ends without
that, the installer is no more; nor is any program that it had started, because those hold the line, too.
"""

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from generator.host.programs import journal
from generator.report import Report

_READY, _DONE = b"ready", b"done"


@contextmanager
def guarded(undo: Callable[[Report], object]) -> Iterator[None]:
    """Should this process be killed meanwhile, `undo` is called, and what it reports goes to the journal."""
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
        # Whoever reads what the installer says need not wait for its guardian.
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
