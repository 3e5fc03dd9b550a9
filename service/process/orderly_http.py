"""What uvicorn's protocols for HTTP leave undone, whatever they serve: the last answer arrives, no connection stays for
ever, and each of several requests on one connection has its turn.

Source: RFC 9112, sections 9.3.2 and 9.6.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from service.process.farewell import Farewell
from service.process.hangups import unread_bytes

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _UvicornHttp
else:
    _UvicornHttp = object


class Parting:
    """A transport as uvicorn has it. When uvicorn closes it, `part` is called, and what comes later has no effect."""

    def __init__(self, transport: asyncio.Transport, part: Callable[[], None]) -> None:
        self.transport = transport
        self.part = part
        self._has_parted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if not self._has_parted:
            self.transport.write(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not self._has_parted:
            self.transport.set_protocol(protocol)

    def is_closing(self) -> bool:
        return self._has_parted or self.transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._has_parted = True
            self.part()


def say_farewell(transport: asyncio.Transport, connection: asyncio.Protocol, farewell: type[Farewell]) -> None:
    """End a connection so that what was written to it arrives; `connection` is told when it is gone."""
    transport.pause_reading()  # uvloop looks only when it begins to read whether a protocol is buffered
    farewell(transport, partial(connection.connection_lost, None))


async def _refuse_with_400(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    fields = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 400, "headers": fields})
    await send({"type": "http.response.body"})


class OrderlyHttp(_UvicornHttp):
    """To be put before a protocol of uvicorn's, of either library."""

    farewell = Farewell
    _connection: asyncio.Transport
    _answering: Any = None
    """The request whose turn it is, where uvicorn knows the last one that has come; nothing with h11, which has one at
    a time."""
    _next: Callable[[], None] | None = None
    has_given_up = False
    """Whether what comes from now on is not read: what has come is not HTTP, or too much."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = cast(asyncio.Transport, transport)
        super().connection_made(cast(asyncio.Transport, Parting(self._connection, self.part)))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True  # else it would write to what is closed
            self._answering.message_event.set()
        super().connection_lost(error)

    @property
    def is_idle(self) -> bool:
        """Whether all requests that have come are answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_headers_complete(self) -> None:
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # such a client would take it for the answer: RFC 9110, section 10.1.1
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = []  # from here on trailers, which nobody may take for the head: RFC 9110, section 6.5.1
        if not self.pipeline:
            self._answering = self.cycle

    def on_response_complete(self) -> None:
        pipeline = getattr(self, "pipeline", None)
        if pipeline and not self.transport.is_closing():
            self._answering = pipeline[-1][0]
        super().on_response_complete()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if not self.has_given_up:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        self.give_up(partial(super().send_400_response, msg), _refuse_with_400)

    def give_up(self, refuse: Callable[[], None], refusing: Any) -> None:
        """What has come is not HTTP. The requests before it are answered all the same: RFC 9112, section 9.3.2.

        `refuse` does so where nothing else is due, and `refusing` is an application that does so when it is asked.
        """
        self.has_given_up = True
        pipeline = getattr(self, "pipeline", None)
        if self.is_idle:
            refuse()
        elif not self.cycle.more_body:
            self.cycle.keep_alive = False
        elif pipeline:  # the turn of the request whose body is broken has not come
            pipeline[0] = (self.cycle, refusing)
        else:
            has_begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if has_begun:
                self._connection.abort()
            else:
                refuse()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def when_answered(self, then: Callable[[], None]) -> None:
        """Do this when all requests before are answered and the system has taken that, and read nothing until then."""
        self._next = then
        # Not by `flow`, which reads on after each answer.
        self.flow.resume_reading()
        self._connection.pause_reading()
        self._go_on()

    def _go_on(self) -> None:
        if self._next is None or not self.is_idle or self.transport.is_closing():
            return
        self._connection.set_write_buffer_limits(0)  # `resume_writing` is called when nothing waits
        if not self._connection.get_write_buffer_size():
            self._unset_keepalive_if_required()
            then, self._next = self._next, None
            then()

    def part(self) -> None:
        """uvicorn ends the connection behind an answer."""
        say_farewell(self._connection, self, self.farewell)

    def close_idle(self) -> None:
        """End a connection on which no answer is due."""
        if self._connection.get_write_buffer_size():
            self.transport.close()
        else:
            self._connection.close()

    def timeout_keep_alive_handler(self) -> None:
        # With uvloop timers come first: a request may have come while the loop was held up.
        if not self.transport.is_closing() and not unread_bytes(self._connection):
            self.close_idle()

    def shutdown(self) -> None:
        """uvicorn stops, and waits for all connections."""
        if self.transport.is_closing():
            if not self._connection.get_write_buffer_size():
                self._connection.abort()
        elif self.is_idle:
            self.close_idle()
        else:
            super().shutdown()
