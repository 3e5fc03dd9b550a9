"""The end of a connection that we end."""

import asyncio
from collections.abc import Callable

from service.core.bounds import CLOSE_GRACE_S

# What a peer was just sending; one that sends on and on hears nothing.
MAX_UNHEARD_BYTES = 16 * 1024 * 1024

# Bytes that are read here are ignored, so all connections share the buffer.
_nowhere = memoryview(bytearray(64 * 1024))


class Farewell(asyncio.BufferedProtocol):
    """Tells the peer that nothing follows, and reads on, until the peer closes too; at most for `CLOSE_GRACE_S`,
    and at most `MAX_UNHEARD_BYTES`.

    `transport.close()` has two faults. It stops reading: what the peer was just sending then makes the kernel reset the
    connection, and the peer loses what we have said last; four in ten busy clients never saw their close frame. And it
    waits until everything that was written is sent: a peer that does not read keeps its connection for ever.
    """

    def __init__(self, transport: asyncio.Transport, ended: Callable[[], None]) -> None:
        """Take over from the transport's protocol; `ended` is called when the connection is gone."""
        self._ended = ended
        self._transport = transport
        self._room = MAX_UNHEARD_BYTES
        self._timer = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, transport.abort)
        transport.set_protocol(self)
        if transport.is_closing():
            return
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:  # TLS has no half-closed connection
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _nowhere

    def buffer_updated(self, nbytes: int) -> None:
        self._room -= nbytes
        if self._room < 0:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._ended()
