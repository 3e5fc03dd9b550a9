"""The end of a connection that we end."""

import asyncio
from collections.abc import Callable

from service.core.bounds import CLOSE_GRACE_S
from service.process.hangups import untaken_bytes

# What a peer was just sending; one that sends on and on hears nothing.
MAX_UNHEARD_BYTES = 16 * 1024 * 1024

# How long a peer may take nothing of a long answer: as long as nginx allows it (`send_timeout`).
STALL_S = 30.0

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
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(CLOSE_GRACE_S, self._time_is_over)
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

    def _time_is_over(self) -> None:
        self._transport.abort()


class PatientFarewell(Farewell):
    """Gives a peer the time that it needs to take a long answer, or to send a long request that is refused.

    It ends when the peer has all and sends nothing for `CLOSE_GRACE_S`, or has taken nothing for `STALL_S`.
    """

    _left = 0
    _stalled_s = 0.0
    _room_left = MAX_UNHEARD_BYTES

    def _time_is_over(self) -> None:
        left = self._transport.get_write_buffer_size() + untaken_bytes(self._transport)
        self._stalled_s = self._stalled_s + CLOSE_GRACE_S if left == self._left else 0.0
        has_all_and_is_silent = not left and self._stalled_s > 0 and self._room == self._room_left
        self._left, self._room_left = left, self._room
        if has_all_and_is_silent or self._stalled_s >= STALL_S:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(CLOSE_GRACE_S, self._time_is_over)
