"""The same job on Django Channels, over channels_redis with pub/sub: `uvicorn bench.peers.consumers:app`.

A client is in the group of its address, and what is said to an address goes to its group on all nodes.
"""

import asyncio
import json
import os
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from redis.asyncio import Redis

LAYER = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [os.environ["ENGINE"]]}}
settings.configure(CHANNEL_LAYERS={"default": LAYER})


async def _subscribed(group: str) -> None:
    """Wait until the engine knows of it: `group_add` asks on one connection, `group_send` overtakes it on another."""
    while True:
        ((_, subscribers),) = await _engine.pubsub_numsub(f"asgi__group__{group}")
        if subscribers:
            return
        await asyncio.sleep(0.01)


class Client(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One client."""

    async def connect(self) -> None:
        """Welcome it."""
        await self.accept()
        await self.send(text_data="Welcome!")

    async def receive(self, text_data: str) -> None:
        """Enter the group of the address, or pass on to it."""
        data = json.loads(text_data)
        recipient = data["recipient_uuid"]
        if data["message"] == "connected":
            await self.channel_layer.group_add(recipient, self.channel_name)
            await _subscribed(recipient)
        else:
            await self.channel_layer.group_send(recipient, {"type": "route", "text": text_data})

    async def route(self, event: dict[str, str]) -> None:
        """Pass on to this client."""
        await self.send(text_data=event["text"])


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application. Whoever asks whether it is up gets an answer."""
    if scope["type"] == "websocket":
        await _consumer(scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"WebSocket endpoint only"})


_consumer = Client.as_asgi()
_engine = Redis.from_url(os.environ["ENGINE"])
