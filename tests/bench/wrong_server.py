"""A server that does the job, and after a while does one thing wrong: `python wrong_server.py PORT WRONG`."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection, serve

RIGHT_MESSAGES = 100

clients: dict[str, ServerConnection] = {}
routed = 0


async def lose(recipient: str, text: str) -> None:
    """Send nothing."""


async def change(recipient: str, text: str) -> None:
    """Turn the last dot of the message into a comma."""
    await clients[recipient].send(text[:-3] + ',"}')


async def shorten(recipient: str, text: str) -> None:
    """Leave out a space, which changes nothing for a reader of JSON."""
    await clients[recipient].send(text.replace(": ", ":", 1))


async def misroute(recipient: str, text: str) -> None:
    """Send to another recipient."""
    await next(client for address, client in clients.items() if _receives(address) and address != recipient).send(text)


async def return_to_sender(recipient: str, text: str) -> None:
    """Send to somebody whom nobody writes to."""
    await next(client for address, client in clients.items() if not _receives(address)).send(text)


async def repeat(recipient: str, text: str) -> None:
    """Send twice."""
    await clients[recipient].send(text)
    await clients[recipient].send(text)


async def close(recipient: str, text: str) -> None:
    """Close the recipient's connection."""
    await clients[recipient].close(1013)


WRONGS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    wrong.__name__: wrong for wrong in (lose, change, shorten, misroute, return_to_sender, repeat, close)
}


def _receives(address: str) -> bool:
    return int(address[-1]) % 2 == 1


async def serve_client(client: ServerConnection) -> None:
    global routed
    await client.send("Welcome!")
    async for text in client:
        assert isinstance(text, str)
        data = json.loads(text)
        if data["message"] == "connected":
            clients[data["recipient_uuid"]] = client
            continue
        routed += 1
        if routed == RIGHT_MESSAGES:
            await WRONGS[sys.argv[2]](data["recipient_uuid"], text)
        else:
            await clients[data["recipient_uuid"]].send(text)


async def main() -> None:
    async with serve(serve_client, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
