"""uvicorn's WebSocket connection, for clients that do not read and clients that never finish a message.

uvicorn ends a connection with `transport.close()`, which first waits until all that was written has been sent. A
client that has stopped reading thus keeps its connection, its buffer and its place for ever, ping timeout or not.
And it counts the bytes of an unfinished message, but not its fragments, which may be empty.
"""

import asyncio
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from service.close_codes import TOO_MANY_FRAGMENTS
from service.link import CLOSE_GRACE_S, MAX_FRAGMENTS


class BoundedTransport:
    """A transport whose `close` ends in time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = transport.write  # the one method whose speed matters

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close, and abort what is not flushed `CLOSE_GRACE_S` later."""
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._transport.abort)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection; uvicorn takes the class as `ws`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        bounded = BoundedTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, bounded))

    def keepalive_timeout(self) -> None:
        # Asked before the close frame is written, which would lie in the buffer as well.
        stuck = self.transport.get_write_buffer_size() > 0
        super().keepalive_timeout()
        if stuck:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        super().handle_cont(event)
        if len(self.frames) >= MAX_FRAGMENTS:
            self.frames = []
            self.conn.fail(*TOO_MANY_FRAGMENTS)
            self.handle_parser_exception()
