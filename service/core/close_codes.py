"""Why the service closes a connection: the code and the reason that the client sees, in one table.

A client needs three rules and no table: 4000 to 4099, do not come back, it would happen again; 4200 to 4299, come back
at once; all others, come back after a random wait that grows. The WebSocket layer below has reasons of its own for 1002
(not WebSocket) and 1009 (longer than `limits.message_size`).

Source of the numbers: RFC 6455 section 7.4.1 and IANA's "WebSocket Close Code Number Registry"; 4000 to 4999 are for
private use, and divided here as in version 7 of the Pusher protocol.
"""

from typing import NamedTuple


class CloseReason(NamedTuple):
    """A close code and the words that go with it."""

    code: int
    reason: str


BROKEN_FRAME = CloseReason(1002, "broken frame")
NOT_UTF8 = CloseReason(1007, "not UTF-8")
TOO_MANY_FRAGMENTS = CloseReason(1009, "too many fragments")
TOO_LONG = CloseReason(1009, "message too long")
NO_PONG = CloseReason(1011, "keepalive ping timeout")
FAULT = CloseReason(1011, "internal error")
RESTART = CloseReason(1012, "service restart")

NO_HELLO = CloseReason(4000, "no hello in time")
UNAUTHORIZED = CloseReason(4001, "unauthorized")
FORBIDDEN = CloseReason(4003, "forbidden")
TOO_MANY_ADDRESSES = CloseReason(4008, "too many addresses")
ADDRESS_IN_USE = CloseReason(4009, "address in use")
REPLACED = CloseReason(4010, "replaced by a newer connection")
KICKED = CloseReason(4011, "closed by the operator")

FULL = CloseReason(4100, "too many connections")
# The client did nothing wrong: it may return when it, or the service, is faster.
SLOW_CONSUMER = CloseReason(4101, "slow consumer")
# Neither client did anything wrong; the address has one owner by the time this one reconnects.
GIVEN_TWICE = CloseReason(4102, "address given away twice")
MAILBOX_UNAVAILABLE = CloseReason(4103, "mailbox unavailable")

TOKEN_EXPIRED = CloseReason(4200, "token expired")
