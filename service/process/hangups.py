"""Sees that a client has gone while its connection is not read.

A loop that does not read a connection does not notice its end either: earlier bytes of the peer come before it. The
kernel knows at once, and a second epoll instance, which the loop watches as one more file, reports it.

Source: epoll(7), epoll_ctl(2) on EPOLLRDHUP, tcp(7) and unix(7) on SIOCINQ and SIOCOUTQ.
"""

import asyncio
import contextlib
import fcntl
import select
import struct
import termios
from collections.abc import Callable


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has closed the connection or its half of it, even if what it sent before is not read yet.

    Source: poll(2), POLLRDHUP.
    """
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


class Hangups:
    """Reports transports whose peers close the connection or their half of it."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._watched: dict[int, tuple[asyncio.BaseTransport, Callable[[], None]]] = {}
        # A transport that is closed does not know its descriptor any more.
        self._descriptors: dict[asyncio.BaseTransport, int] = {}

    def watch(self, transport: asyncio.BaseTransport, hung_up: Callable[[], None]) -> None:
        """Call `hung_up` once, unless the transport is forgotten before. To be called in the loop."""
        if self._epoll is None:
            self._epoll = select.epoll()
        if not self._watched:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._notice)
        descriptor = _descriptor(transport)
        self._watched[descriptor] = (transport, hung_up)
        self._descriptors[transport] = descriptor
        self._epoll.register(descriptor, select.EPOLLRDHUP)

    def forget(self, transport: asyncio.BaseTransport) -> None:
        """The inverse of `watch`; once is enough, twice does no harm."""
        descriptor = self._descriptors.pop(transport, None)
        if descriptor is None or self._epoll is None:
            return
        # Another one may have its number by now.
        if descriptor in self._watched and self._watched[descriptor][0] is transport:
            del self._watched[descriptor]
            with contextlib.suppress(OSError):  # it is closed already
                self._epoll.unregister(descriptor)
        if not self._watched:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _notice(self) -> None:
        for descriptor, _ in self._epoll.poll(0) if self._epoll is not None else ():
            if descriptor in self._watched:  # one before may have had it forgotten
                transport, hung_up = self._watched[descriptor]
                self.forget(transport)
                hung_up()


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """How much has arrived and is not read yet."""
    (size,) = struct.unpack("i", fcntl.ioctl(_descriptor(transport), termios.FIONREAD, bytes(4)))
    return int(size)


def untaken_bytes(transport: asyncio.BaseTransport) -> int:
    """How much of what the system has of us the peer of a Unix socket has not read yet; 0 is exact, else it is more."""
    (size,) = struct.unpack("i", fcntl.ioctl(_descriptor(transport), termios.TIOCOUTQ, bytes(4)))
    return int(size)


def _descriptor(transport: asyncio.BaseTransport) -> int:
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor
