"""uvicorn's WebSocket connection, with an answer to every handshake, an end to every close and a bound on fragments.

uvicorn ends a connection with `transport.close()`, which has two faults. It waits until all that was written is sent:
a client that has stopped reading keeps its connection, its buffer and its place for ever, ping timeout or not. And it
stops reading: what a client was just sending then makes the kernel reset the connection, and our close frame is lost.
Four in ten busy clients saw 1006 instead of 1012 when the service was restarted.
"""

import asyncio
from http import HTTPStatus
from typing import cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from service.close_codes import NOT_UTF8, TOO_MANY_FRAGMENTS, CloseReason
from service.link import CLOSE_GRACE_S, MAX_FRAGMENTS

_UNREADABLE = "This is no WebSocket handshake; send GET without a body.\n"


class LingeringTransport:
    """A transport whose `close` tells the peer that nothing follows, reads on, and ends when the peer closes as well.

    At the latest it ends `CLOSE_GRACE_S` later.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._closing = False
        self.write = transport.write  # the one method that must be fast

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        if not self._closing:
            self._transport.pause_reading()

    def close(self) -> None:
        if self.is_closing():
            return
        self._closing = True
        self.write = _drop
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._transport.abort)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:  # TLS has no half-closed connection
            self._transport.close()


def _drop(data: object) -> None:
    """Takes what is written to a closed transport."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection; uvicorn takes the class as `ws`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lingering = LingeringTransport(cast(asyncio.Transport, transport))
        super().connection_made(cast(asyncio.Transport, lingering))

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        # uvicorn never looks whether the library has read a request: the client would wait for ever. The library has
        # an answer of its own for header fields that are too many or too long, and none for a body.
        answer = b"".join(self.conn.data_to_send())
        self.handshake_complete = self.close_sent = True
        self.transport.write(answer or self.conn.reject(HTTPStatus.BAD_REQUEST, _UNREADABLE).serialize())
        self.transport.close()

    def keepalive_timeout(self) -> None:
        # Asked before the close frame is written, which would lie in the buffer as well.
        stuck = self.transport.get_write_buffer_size() > 0
        super().keepalive_timeout()
        if stuck:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(TOO_MANY_FRAGMENTS)

    def send_receive_event_to_app(self) -> None:
        # uvicorn closes as well, but writes a traceback to the log for each: a client could fill it.
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self._fail(NOT_UTF8)
        else:
            super().send_receive_event_to_app()

    def _fail(self, reason: CloseReason) -> None:
        self.frames = []
        self.conn.fail(*reason)
        self.handle_parser_exception()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
