"""The service as an ASGI application, for any ASGI server: `service.app:app`.

Source: ASGI specification 3.0, "HTTP & WebSocket ASGI Message Format" 2.4.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.admission import Handshake, admit, client_address
from service.close_codes import FULL, CloseReason
from service.entry import center_of, settings_or_exit
from service.exchange import Exchange
from service.link import LinkClosedError
from service.plain_http import Answer, answer
from service.settings import Settings

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
SendEvent = Callable[[Event], Awaitable[None]]


class AsgiLink:
    """A WebSocket as ASGI offers it; what drops the connection is that the application returns."""

    def __init__(self, receive: Receive, send: SendEvent) -> None:
        self._receive = receive
        self._send = send

    async def receive(self) -> str | bytes | None:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            return None
        text: str | None = event.get("text")
        return event["bytes"] if text is None else text

    async def send(self, text: bytes) -> None:
        await self._send_event({"type": "websocket.send", "text": text.decode()})

    async def close(self, reason: CloseReason) -> None:
        await self._send_event({"type": "websocket.close", "code": reason.code, "reason": reason.reason})

    async def is_alive(self) -> bool:
        # ASGI has no pings: the server's own must find out who is gone.
        return True

    async def _send_event(self, event: Event) -> None:
        try:
            await self._send(event)
        # OSError is what ASGI says; uvicorn has RuntimeError for what comes after the server's own close frame.
        except (OSError, RuntimeError) as error:
            raise LinkClosedError from error


class Application:
    """ASGI entry point; `center` has the clients."""

    def __init__(self, settings: Settings) -> None:
        self.center = center_of(settings)
        self._exchange = Exchange(self.center)

    async def __call__(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        decision = admit(self.center, _handshake(scope))
        if isinstance(decision, Answer):
            await _refuse(decision, scope, send)
            return
        try:
            await send({"type": "websocket.accept", "subprotocol": decision.subprotocol})
        except OSError:
            return
        await self._exchange.serve(AsgiLink(receive, send), decision)

    async def _http(self, scope: Scope, send: SendEvent) -> None:
        await _respond(send, "http", answer(scope["method"], scope["path"], self.center.connections))


def _handshake(scope: Scope) -> Handshake:
    values: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        values.setdefault(name, []).append(value.decode("latin-1"))
    client = scope.get("client")
    return Handshake(
        client_address=client_address(client and client[0], forwarded=b"x-forwarded-for" in values),
        origins=tuple(values.get(b"origin", ())),
        authorizations=tuple(values.get(b"authorization", ())),
        subprotocols=tuple(scope.get("subprotocols", ())),
    )


async def _refuse(refusal: Answer, scope: Scope, send: SendEvent) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _respond(send, "websocket.http", refusal)
    else:
        await send({"type": "websocket.close", "code": FULL.code, "reason": FULL.reason})


async def _respond(send: SendEvent, kind: str, response: Answer) -> None:
    headers = [(name.encode(), value.encode()) for name, value in response.headers]
    await send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": response.body})


async def _lifespan(receive: Receive, send: SendEvent) -> None:
    # There is nothing to prepare. Without an answer a server would log that the application has no lifespan.
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def create_app(settings: Settings) -> Application:
    """An application of its own: two of them share no client."""
    return Application(settings)


app = create_app(settings_or_exit(os.environ))
