"""Accepts connections from listeners that several workers share, so that each worker gets its share.

Every worker is woken for each connection, and the first one gets it; on an idle host that is often the same one, and
it takes all that are waiting. So a worker takes a few at a time, and one that has its share already first waits for a
moment: if no other worker takes the connection meanwhile, it does.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

# How many are taken at once: a turn of the loop for each costs half as much again as to accept it. Workers may differ
# by more.
AT_ONCE = 8
# How long another worker has to take a connection.
PAUSE_S = 0.005
# After the host has run out of files or memory.
RETRY_S = 1.0

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger(__name__)

Protocols = Callable[[], asyncio.BaseProtocol]


class Acceptor:
    """The server of one listener, as a loop returns it. `has_its_share` says it of a number of connections.

    `taken` are those of the whole worker, where it has several listeners.
    """

    def __init__(
        self,
        has_its_share: Callable[[int], bool],
        protocols: Protocols,
        listener: socket.socket,
        taken: "WeakSet[socket.socket] | None" = None,
    ) -> None:
        self.sockets = [listener]
        self._has_its_share = has_its_share
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._protocols = protocols
        self._opening: set[asyncio.Task[Any]] = set()
        self._open: WeakSet[socket.socket] = WeakSet() if taken is None else taken
        self._pause: asyncio.TimerHandle | None = None
        self._is_serving = True
        listener.setblocking(False)
        self._watch()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._is_serving

    def close(self) -> None:
        """Take none any more."""
        if self._is_serving:
            self._is_serving = False
            self.look_away()
            self._listener.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: the servers count their connections themselves."""

    def _watch(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._wake)

    def look_away(self) -> None:
        """Leave new connections to the other workers."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _wake(self) -> None:
        for _ in range(AT_ONCE):
            if self._has_its_share(len(self._open)):
                self.look_away()
                self._pause = self._loop.call_later(PAUSE_S, self._take_what_is_left)
                return
            if not self._accept():
                return

    def _take_what_is_left(self) -> None:
        self._watch()
        self._accept()

    def _accept(self) -> bool:
        """Take one, if one is waiting; whether there may be more."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            logger.error("cannot accept connections: %s", error.strerror)
            self.look_away()
            self._pause = self._loop.call_later(RETRY_S, self._watch)
            return False
        connection.setblocking(False)
        self._open.add(connection)
        task = self._loop.create_task(self._hand_over(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _hand_over(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._protocols, connection)
