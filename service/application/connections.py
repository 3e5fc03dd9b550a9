"""uvicorn's connections, which neither refuse nor cut a request when the service stops.

uvicorn closes a connection that has not sent its first request yet at once, and one that waits for the next request as
well: whoever sends it at that moment gets no answer. And it answers 500 to a WebSocket that is about to be accepted.
Ours are closed when they have been quiet for a moment, and say with every answer that it is the last one. What is said
last arrives though the client is still sending, and no client keeps a connection on which nothing happens.

Source: RFC 9112, section 9.6; uvicorn's `Server.shutdown`.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from uvicorn.server import ServerState

from service.process.drain_time import duration
from service.process.farewell import PatientFarewell
from service.process.hangups import unread_bytes
from service.process.orderly_http import OrderlyHttp, Parting, say_farewell
from service.settings import Drain

# A connection is closed after so many looks at which it had neither a request nor a byte.
LOOK_S = 0.1
QUIET_LOOKS = 10
_CLOSE = (b"connection", b"close")
# What may wait in a transport before it pauses who writes: asyncio's own default.
_HIGH_WATER_BYTES = 64 * 1024
# As whom nginx comes over a Unix socket: a proxy of this host, which `service.process.base_options` has believed.
_NGINX = ("127.0.0.1", 0)
# What it comes to then. uvicorn 0.37 says None, and Litestar then leaves the scheme out of URLs; newer ones say the
# path of the socket and no port, which Django makes the text "None".
_SERVER = ("127.0.0.1", 80)
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 19\r\n"
    b"connection: close\r\n\r\nService Unavailable"
)
_UNREADABLE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class State(ServerState):
    """What uvicorn's connections share; ours may be as many as `limit`, and know when the service stops.

    `patience` is the time in seconds for which nothing of a request may come.
    """

    def __init__(self, limit: int, is_alone: bool, drain: Drain, patience: float) -> None:
        super().__init__()
        self.limit = limit
        self.patience = patience
        self.is_stopping = False
        self._is_alone = is_alone
        self._drain = drain
        self._turns: Iterator[float] = iter(())

    def begin_to_stop(self) -> None:
        """WebSockets have turns from now on, so that their clients do not all come back at one moment."""
        self.is_stopping = True
        there = self.websockets
        lasting = duration(there, self._drain.window, self._drain.rate)
        self._turns = (lasting * number / there for number in range(there))

    def turn(self) -> float:
        """In how many seconds the next WebSocket is to be closed."""
        return next(self._turns, 0.0)

    def is_full(self, _: int) -> bool:
        """Whether the next connection had better be taken by another worker."""
        return len(self.connections) >= self.limit and not self._is_alone

    @property
    def websockets(self) -> int:
        """How many of the connections are WebSockets."""
        return sum(not isinstance(connection, HttpConnection) for connection in self.connections)


class HttpConnection(OrderlyHttp, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection of HTTP/1.1."""

    server_state: State
    farewell = PatientFarewell
    _quiet = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _name_nginx(self, transport)
        if self.server_state.is_stopping:  # it was accepted a moment before
            self.shutdown()
        else:
            self._expect_more()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.server_state.is_stopping:
            self._quiet = 0
            self._answer_for_the_last_time()
        elif self.timeout_keep_alive_task is None and self._is_waiting():
            self._expect_more()

    def _is_waiting(self) -> bool:
        """Whether nothing but more of a request can go on with the connection."""
        return self.is_idle and not self.transport.is_closing() and self.transport.get_protocol() is self

    def _expect_more(self) -> None:
        """uvicorn waits for ever, but behind an answer until anything comes; even for the rest of that request."""
        self.timeout_keep_alive_task = self.loop.call_later(self.server_state.patience, self.timeout_keep_alive_handler)

    def handle_websocket_upgrade(self, *event: Any) -> None:
        if self.is_idle:
            self._open_websocket(*event)
        else:
            self.when_answered(partial(self._open_late, *event))

    def _open_late(self, *event: Any) -> None:
        """Open a WebSocket that had to wait; it finds the transport as any other one does."""
        self._connection.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._connection.resume_reading()
        self._open_websocket(*event)

    def _open_websocket(self, *event: Any) -> None:
        if len(self.connections) > self.server_state.limit:  # which uvicorn asks of other requests only
            self.transport.write(_FULL)
            self.transport.close()
        else:
            super().handle_websocket_upgrade(*event)

    def shutdown(self) -> None:
        """Called once, when the service begins to stop."""
        if self.transport.is_closing():
            super().shutdown()
        else:
            self._answer_for_the_last_time()
            self._look_again()

    def _answer_for_the_last_time(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_started and _CLOSE not in cycle.default_headers:
            cycle.default_headers = [*cycle.default_headers, _CLOSE]

    def _look_again(self) -> None:
        self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        self._quiet = self._quiet + 1 if self.is_idle else 0
        # What has arrived meanwhile may be a request.
        if self._quiet < QUIET_LOOKS or unread_bytes(self.transport):
            self._look_again()
        else:
            self.close_idle()


_WebSocketProtocol: Any = AutoWebSocketsProtocol or asyncio.Protocol


class WebSocketConnection(_WebSocketProtocol):  # type: ignore[misc]
    """A WebSocket, of whichever library uvicorn has found; an `HttpConnection` opens it."""

    transport: Parting

    def __init__(self, config: uvicorn.Config, server_state: State, **more: Any) -> None:
        super().__init__(config=config, server_state=server_state, **more)
        self.server_state = server_state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        parting = cast(Parting, transport)
        parting.part = partial(say_farewell, parting.transport, self, PatientFarewell)
        super().connection_made(transport)
        _name_nginx(self, transport)
        if self.server_state.is_stopping:
            self.loop.call_later(LOOK_S, self.shutdown)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # uvicorn's newest implementation passes on no refusal of its library, such as of a handshake with a body.
        if not getattr(self, "handshake_initiated", True) and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()) or _UNREADABLE)
            self.transport.close()

    def shutdown(self) -> None:
        """Called once, when the service begins to stop."""
        self.loop.call_later(self.server_state.turn(), self._close)

    def _close(self) -> None:
        """Close it with 1012, as soon as the application has accepted it."""
        if self.transport.is_closing():
            return
        if _is_accepted(self):
            super().shutdown()
        else:
            self.loop.call_later(LOOK_S, self._close)


def _name_nginx(connection: Any, transport: asyncio.BaseTransport) -> None:
    """Give both ends of a Unix socket an address; on TCP, a peer that has gone stays without one."""
    if isinstance(transport.get_extra_info("peername"), str):
        connection.client, connection.server = _NGINX, _SERVER


def _is_accepted(connection: Any) -> bool:
    event = getattr(connection, "handshake_completed_event", None)  # of uvicorn's oldest implementation
    return bool(event.is_set() if event is not None else connection.handshake_complete)


def protocols() -> dict[str, Any]:
    """Keyword arguments of `uvicorn.Config`."""
    return {"http": HttpConnection, "ws": WebSocketConnection if AutoWebSocketsProtocol else "none"}
