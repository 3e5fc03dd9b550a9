"""The server as the hand-written guide has it: an ASGI application, the standard library's json and one dict."""

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]
Send = Callable[[Event], Awaitable[None]]

CONNECTIONS: dict[str, Send] = {}


async def app(scope: Event, receive: Callable[[], Awaitable[Event]], send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "websocket":
        await register(receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"WebSocket endpoint only"})


async def register(receive: Callable[[], Awaitable[Event]], send: Send) -> None:
    """Serve one client until it leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    keys = [str(uuid.uuid4())]
    CONNECTIONS[keys[0]] = send
    await send({"type": "websocket.send", "text": f"Welcome! Your temporary UUID is {keys[0]}"})
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await route(event["text"], keys, send)
    finally:
        for key in keys:
            CONNECTIONS.pop(key, None)


async def route(text: str, keys: list[str], send: Send) -> None:
    """Register the client under the UUID in the text, or forward the text to it."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return
    recipient = data["recipient_uuid"]
    if data["message"] == "connected":
        keys.append(recipient)
        CONNECTIONS[recipient] = send
    elif recipient in CONNECTIONS:
        await CONNECTIONS[recipient]({"type": "websocket.send", "text": text})
