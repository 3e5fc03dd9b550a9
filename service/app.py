"""The service as an ASGI application, for any ASGI server: `service.app:app`.

Source: ASGI specification 3.0, "HTTP & WebSocket ASGI Message Format" 2.4.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.core.admission import Handshake, admit, client_address
from service.core.close_codes import FULL, CloseReason
from service.core.plain_http import DRAINING, Answer, passed_on, say
from service.engine.faults import EngineError
from service.engine.hosts import Hosts
from service.links.exchange import Exchange
from service.links.link import LinkClosedError
from service.mailbox.database import MailboxError
from service.mailbox.stores import open_mailbox
from service.process.control import Control
from service.process.entry import center_of, settings_or_exit
from service.settings import Settings
from service.web.publish import NOT_LEFT_YET, PATIENCE_S, PREFIX, TOO_LARGE, TOO_SLOW, Permit, Publisher, Request
from service.web.watching import Watching
from service.workers.mesh import Mesh, MeshError

# What is left of it would be taken for the next request.
_NOT_WHOLE = say(400, "The body did not come whole; leave out Upgrade\n", ("connection", "close"))

# The server cancels what holds it up when it stops. Nothing has been done yet for these requests.
_STOPPING = DRAINING._replace(headers=(*DRAINING.headers, ("connection", "close")))

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
SendEvent = Callable[[Event], Awaitable[None]]


class AsgiLink:
    """A WebSocket as ASGI offers it; what drops the connection is that the application returns."""

    def __init__(self, receive: Receive, send: SendEvent) -> None:
        self._receive = receive
        self._send = send
        self.transport = None  # ASGI has none to show
        self.fault = None  # nor does it say who has closed the connection

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
        self._mesh = Mesh(self.center)
        self.hosts = Hosts(self.center)
        self._control = Control(self.center)
        self._exchange = Exchange(self.center)
        self._watching = Watching(self.center)
        self._publisher = Publisher(self.center)
        self.before_serving: Callable[[], Awaitable[None]] | None = None
        """What is to be done when all is there that clients need, and before anybody can connect."""

    async def __call__(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: SendEvent) -> None:
        await receive()
        try:
            mailbox = await open_mailbox(self.center)
            await self._mesh.open()
            await self._control.open()
            await self.hosts.open()
            if self.before_serving is not None:
                await self.before_serving()
        except (EngineError, MailboxError, MeshError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if mailbox is not None:
            await mailbox.close()
        await self._control.close()
        await self.hosts.close()
        await self._mesh.close()
        await send({"type": "lifespan.shutdown.complete"})

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

    async def _http(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        fields = _fields(scope)
        if scope["path"].startswith(PREFIX):
            response = await self._publish(Request(scope["method"], scope["path"], fields), receive)
        else:
            host = ",".join(fields.get("host", ()))
            try:
                response = await self._watching.answer(scope["method"], scope["path"], passed_on(fields), host)
            except asyncio.CancelledError:
                response = _STOPPING
        await send_answer(send, "http", response)

    async def _publish(self, request: Request, receive: Receive) -> Answer:
        response = self._publisher.admit(request)
        if not isinstance(response, Answer):
            limits = self.center.settings.limits
            try:
                body = await asyncio.wait_for(_read(receive, limits.message_size), limits.header_timeout)
            except asyncio.TimeoutError:
                body = TOO_SLOW
            except asyncio.CancelledError:
                body = _STOPPING
            if isinstance(body, bytes) and not _is_whole(request, body):
                body = _NOT_WHOLE
            response = await self._outcome(response, body) if isinstance(body, bytes) else body
        self._publisher.count(response)
        return response

    async def _outcome(self, permit: Permit, body: bytes) -> Answer:
        outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # Whoever is gone meanwhile has cancelled it.
        self._publisher.publish(permit, body, lambda answer: None if outcome.done() else outcome.set_result(answer))
        try:
            return await asyncio.wait_for(outcome, PATIENCE_S)
        except (asyncio.TimeoutError, asyncio.CancelledError):
            return NOT_LEFT_YET


async def _read(receive: Receive, most: int) -> bytes | Answer:
    """The body of a request; what is longer than the most is not read to its end."""
    body, more = bytearray(), True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return TOO_SLOW  # which nobody reads
        body += event.get("body", b"")
        if len(body) > most:
            return TOO_LARGE
        more = event.get("more_body", False)
    return bytes(body)


def _is_whole(request: Request, body: bytes) -> bool:
    """Whether the server has passed on all of a body. Plain uvicorn loses one that comes with an offer of another
    protocol, such as curl makes with `--http2`; in ours, `service.fast.front` takes the offer away.
    """
    if request.length is not None:
        return len(body) == request.length
    return bool(body) or not (request.values("transfer-encoding") and request.values("upgrade"))


def _fields(scope: Scope) -> dict[str, list[str]]:
    """The values of each header field by its name, which ASGI gives in lower case."""
    fields: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return fields


def _handshake(scope: Scope) -> Handshake:
    fields, client = _fields(scope), scope.get("client")
    return Handshake(
        client_address=client_address(client and client[0], forwarded="x-forwarded-for" in fields),
        origins=tuple(fields.get("origin", ())),
        authorizations=tuple(fields.get("authorization", ())),
        subprotocols=tuple(scope.get("subprotocols", ())),
    )


async def _refuse(refusal: Answer, scope: Scope, send: SendEvent) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send_answer(send, "websocket.http", refusal)
    else:
        await send({"type": "websocket.close", "code": FULL.code, "reason": FULL.reason})


async def send_answer(send: SendEvent, kind: str, response: Answer) -> None:
    """Send an answer; `kind` is `http`, or `websocket.http` for a handshake that is refused."""
    headers = [(name.encode(), value.encode()) for name, value in response.headers]
    await send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": response.body})


def create_app(settings: Settings) -> Application:
    """An application of its own: two of them share no client."""
    return Application(settings)


app: Application


def __getattr__(name: str) -> Application:
    """Make `app` when it is asked for: what only imports this module has no settings yet. Source: PEP 562."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = create_app(settings_or_exit(os.environ))
    return made
