"""Which share of the clients a worker of the notification center takes."""

import asyncio
import socket
from weakref import WeakSet

from service.core.center import Center
from service.core.hub import Bus
from service.workers.acceptor import Acceptor, Protocols

# How many more than the workers have on average are too many: a part, and a few that have yet to say what they want.
FACTOR, FEW = 1.1, 4


def has_its_share(connections: int, bus: Bus) -> bool:
    """Whether a worker with so many connections has more than the workers have on average."""
    return connections > (connections + bus.connections) / (1 + len(bus.others)) * FACTOR + FEW


def share_listeners(center: Center) -> None:
    """Let the servers that the running loop makes from now on leave connections to the other workers.

    uvicorn and websockets both get theirs from the loop, and offer no other place to put one.
    """
    loop = asyncio.get_running_loop()
    taken: WeakSet[socket.socket] = WeakSet()

    async def create_server(protocols: Protocols, *_: object, sock: socket.socket, **__: object) -> Acceptor:
        return Acceptor(lambda connections: has_its_share(connections, center.hub.bus), protocols, sock, taken)

    loop.create_server = create_server  # type: ignore[assignment, method-assign]
