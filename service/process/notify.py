"""Tells the service manager how the service is: ready, alive, stopping. Does nothing where none listens.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

# A manager that is held up must not hold us up.
_SEND_TIMEOUT_S = 0.1

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

    async def keep_alive(self, status: Callable[[], str]) -> None:
        """Give a sign of life for ever, twice as often as asked. A loop that is stuck gives none: that is the point."""
        if self._address and self.watchdog_s is not None:
            while True:
                self._send(f"WATCHDOG=1\nSTATUS={status()}")
                await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # "@" stands for the NUL byte that an abstract socket's name begins with: unix(7).
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.settimeout(_SEND_TIMEOUT_S)
                manager.connect(address)
                manager.send(state.encode())
        except OSError as error:
            # Clients are served all the same; a manager that waits for READY will say so itself.
            logger.warning("cannot notify %s: %s", self._address, error)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    interval = environ.get("WATCHDOG_USEC", "")
    if not (interval.isascii() and interval.isdigit() and int(interval)):
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(interval) / 1_000_000
