"""The same job on the `websockets` library alone: `python -m bench.peers.library PORT`."""

import asyncio
import json
import sys
import uuid

from websockets.asyncio.server import ServerConnection, serve

CONNECTIONS: dict[str, ServerConnection] = {}


async def register(websocket: ServerConnection) -> None:
    """Serve one client until it leaves."""
    keys = [str(uuid.uuid4())]
    CONNECTIONS[keys[0]] = websocket
    await websocket.send(f"Welcome! Your temporary UUID is {keys[0]}")
    try:
        async for text in websocket:
            data = json.loads(text)
            recipient = data["recipient_uuid"]
            if data["message"] == "connected":
                keys.append(recipient)
                CONNECTIONS[recipient] = websocket
            elif recipient in CONNECTIONS:
                await CONNECTIONS[recipient].send(text)
    finally:
        for key in keys:
            CONNECTIONS.pop(key, None)


async def main() -> None:
    """Serve until SIGTERM."""
    async with serve(register, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
