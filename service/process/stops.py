"""When signals reach a service, and the process that watches its workers.

Source: signal(7), pthread_sigmask(3).
"""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def hold_signals() -> None:
    """Let SIGTERM, SIGINT and SIGHUP wait until they have handlers, or for ever when the service has stopped.

    To be called before anything else is imported. An exception that a handler raises anywhere, such as inside an import
    or while a loop is made or closed, is printed, leaves half-made things behind, or is lost. The default action would
    end the process with a status that managers take for a crash, and of SIGHUP it must not end at all.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _held())


def let_signals_through() -> None:
    """The handlers are there: those that waited are taken now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _held())


def _held() -> list[signal.Signals]:
    return [*stop_signals(), signal.SIGHUP]


def stop_signals() -> list[signal.Signals]:
    """What stops the service. SIGINT stays ignored in the background, as where `nohup` or `&` of a script starts us.

    Source: POSIX.1-2024, XCU 2.12, "Signals and Error Handling".
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    return [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]


class Terminal:
    """The terminal that this process was started in, if there is one. Its workers are not asked: they end with it.

    Closing it sends SIGHUP, as whoever wants a reload does. `nohup` has it ignored, and then it may be closed.

    Source: termios(3p), "Modem Disconnect"; tty(4).
    """

    def __init__(self) -> None:
        self._of = os.getpid() if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal() else None

    def is_gone(self) -> bool:
        """Whether it was there, and was closed."""
        return self._of == os.getpid() and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def end(status: int) -> NoReturn:
    """End at once: without a wait for threads, and with all that was printed, if that is still possible."""
    with suppress(Exception):  # an application may have closed stdout
        sys.stdout.flush()
    os._exit(status)
