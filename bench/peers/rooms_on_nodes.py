"""The same job on python-socketio, over its Redis manager: `uvicorn bench.peers.rooms_on_nodes:app`.

A client is in the room of its address, and what is said to an address goes to its room on all nodes.
"""

import os

from socketio import ASGIApp, AsyncRedisManager, AsyncServer

# With a task for each message, which is the default, messages of one client overtake each other.
server = AsyncServer(async_mode="asgi", client_manager=AsyncRedisManager(os.environ["ENGINE"]), async_handlers=False)
app = ASGIApp(server)


async def route(sid: str, recipient: str, message: str) -> None:
    """Enter the room of the address, or pass on to it."""
    if message == "connected":
        await server.enter_room(sid, recipient)
    else:
        await server.emit("route", (recipient, message), room=recipient)


server.on("route", route)
