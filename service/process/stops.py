"""When a service, and the process that watches its workers, can be asked to stop.

Source: signal(7), pthread_sigmask(3).
"""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def hold_stops() -> None:
    """Let SIGTERM and SIGINT wait until the event loop has handlers for them, or for ever when the service has stopped.

    An exception that a handler raises anywhere, such as inside an import or while a loop is made or closed, leaves
    half-made things behind or is lost. The default action would end the process with a status that managers take for a
    crash.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())


def let_stops_through() -> None:
    """The handlers are there: those that waited are taken now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())


def stop_signals() -> list[signal.Signals]:
    """What stops the service. SIGINT stays ignored in the background, as where `nohup` or `&` of a script starts us.

    Source: POSIX.1-2024, XCU 2.12, "Signals and Error Handling".
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    return [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]


def end(status: int) -> NoReturn:
    """End at once: without a wait for threads, and with all that was printed, if that is still possible."""
    with suppress(Exception):  # an application may have closed stdout
        sys.stdout.flush()
    os._exit(status)
