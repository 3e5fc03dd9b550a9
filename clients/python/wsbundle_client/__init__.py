"""A client of the notification center, which stays connected: asyncio, and nothing but the `websockets` library.

    async with Client("ws://127.0.0.1:8765/", uuid="alice") as client:
        await client.send("bob", {"any": "JSON"})
        async for message in client:
            print(message.sender_uuid, message.message)

It comes back by itself when the connection is lost, under the same address and into the same groups, and sends again
what was not answered. The package `wsbundle-client` of npm does the same in browsers and in Node.
"""

from wsbundle_client.client import Client, Token
from wsbundle_client.errors import ClientError, GoneError, RequestError
from wsbundle_client.mailbox import File, Memory, Position
from wsbundle_client.messages import Event, Message, Sent

__all__ = [
    "Client",
    "ClientError",
    "Event",
    "File",
    "GoneError",
    "Memory",
    "Message",
    "Position",
    "RequestError",
    "Sent",
    "Token",
    "__version__",
]

__version__ = "0.1.0"
