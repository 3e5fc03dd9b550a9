"""uvicorn's server, as the runner and the gunicorn worker have it."""

import asyncio
import socket

import uvicorn.server

from service.core.center import Center
from service.process.drain import LAST_HANDSHAKES_S, drain
from service.workers.shares import share_listeners

# How much the kernel keeps of a client that we do not read; by default this may grow to 6 MB for each.
RECEIVE_BUFFER_BYTES = 64 * 1024

# How long the answers to requests are waited for that are under way while clients wait for another process.
ANSWERS_S = 1.0
_LOOK_S = 0.02


class DrainingServer(uvicorn.server.Server):
    """A server that sends its clients away one after another before it stops."""

    def __init__(self, config: uvicorn.Config, center: Center) -> None:
        super().__init__(config)
        self._center = center
        self._is_waited_for = False
        """Whether clients wait for the next process: nobody else may hold this one up."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)  # connections inherit it
        if self._center.settings.workers != 1:
            share_listeners(self._center)
        await super().startup(sockets)

    async def let_clients_stay(self) -> None:
        """Hand over those who need not be sent away, if there is anybody who takes them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = asyncio.get_running_loop().time()
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_HANDSHAKES_S)
        await self.let_clients_stay()
        await drain(self._center)
        if self._is_waited_for:
            await self._end_the_others()
        # The last clients have the rest of the time.
        spent = asyncio.get_running_loop().time() - began
        self.config.timeout_graceful_shutdown = max(1, self._center.settings.drain.timeout - round(spent))
        if not self.server_state.connections and not self.server_state.tasks:
            for listener in sockets or ():
                listener.close()
            await self.lifespan.shutdown()  # clients may wait for the next process: uvicorn would wait a moment first
            return
        await super().shutdown(sockets)
        # Those that have not closed by now: uvicorn leaves them to the end of the process.
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _end_the_others(self) -> None:
        """End the connections that no other process serves; what they were told last has a moment to arrive."""
        connections = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()
        for _ in range(round(ANSWERS_S / _LOOK_S)):
            if not connections:
                break
            await asyncio.sleep(_LOOK_S)
        for connection in list(connections):
            connection.transport.abort()
        await asyncio.sleep(_LOOK_S)  # in which they are lost
