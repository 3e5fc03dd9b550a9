"""Tells the service manager how the service is: ready, alive, stopping. Does nothing where none listens.

It also lets the manager keep descriptors while no process of the service runs.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence

# A manager that is held up must not hold us up.
_SEND_TIMEOUT_S = 0.1
# Unless it is to keep what is lost otherwise: when it reads its units anew, it answers nobody for a moment.
_KEEP_TIMEOUT_S = 5.0

# However long a manager waits: it shows how we are, too.
_SELDOM_S = 10.0

logger = logging.getLogger(__name__)


class Notifier:
    """The way to the service manager. `watchdog_s` is how long it waits for a sign of life, None for ever."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(environ)

    def ready(self, status: str) -> None:
        """The service answers: units that start after it may connect now."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def extend(self, seconds: float) -> None:
        """Ask the manager for more time, from now on, for work under way, such as a reload."""
        self._send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Let the manager keep descriptors for the next process, which gets them by this name.

        Raises:
            OSError
        """
        # Without FDPOLL=0 it drops each at its first hang-up, without a word.
        self.transmit(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptors)

    def unstore(self, name: str) -> None:
        """Let the manager keep those of this name no longer."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def settle(self, within_s: float = _KEEP_TIMEOUT_S) -> None:
        """Wait until the manager has dealt with all that it was sent.

        What comes from a process that has ended it takes for somebody else's, and ignores.

        Raises:
            OSError
        """
        ours, theirs = os.pipe()
        try:
            try:
                self.transmit("BARRIER=1", [theirs])
            finally:
                os.close(theirs)
            closed = select.poll()  # not select(), which knows no descriptor above 1023
            closed.register(ours)
            if not closed.poll(within_s * 1000):
                raise TimeoutError(f"no answer within {within_s:g} s")
        finally:
            os.close(ours)

    async def keep_alive(self, status: Callable[[], str]) -> None:
        """Give a sign of life for ever, at least twice as often as asked. A stuck loop gives none, on purpose."""
        if self._address and self.watchdog_s is not None:
            while True:
                self._send(f"WATCHDOG=1\nSTATUS={status()}")
                await asyncio.sleep(min(self.watchdog_s / 2, _SELDOM_S))

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            self.transmit(state, (), _SEND_TIMEOUT_S)
        except OSError as error:
            # Clients are served all the same; a manager that waits for READY will say so itself.
            logger.warning("cannot notify %s: %s", self._address, error)

    def transmit(self, state: str, descriptors: Sequence[int], within_s: float = _KEEP_TIMEOUT_S) -> None:
        """Send what the manager must hear.

        Raises:
            OSError
        """
        # "@" stands for the NUL byte that an abstract socket's name begins with: unix(7).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.settimeout(within_s)
            manager.connect(address)
            socket.send_fds(manager, [state.encode()], list(descriptors))


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    interval = environ.get("WATCHDOG_USEC", "")
    if not (interval.isascii() and interval.isdigit() and int(interval)):
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(interval) / 1_000_000
