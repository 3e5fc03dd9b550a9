"""Why the service closes a connection: the code and the reason that the client sees, in one table.

A client that finds 1008 has broken a rule and will break it again; after any other code it may come back, later each
time. The WebSocket layer below adds 1002 (not WebSocket), 1009 (longer than `limits.message_size`) and 1011 (no answer
to a ping).

Source of the numbers: RFC 6455 section 7.4.1 and IANA's "WebSocket Close Code Number Registry".
"""

from typing import NamedTuple


class CloseReason(NamedTuple):
    """A close code and the words that go with it."""

    code: int
    reason: str


TOO_MANY_ADDRESSES = CloseReason(1008, "too many addresses")
NOT_UTF8 = CloseReason(1007, "not UTF-8")
TOO_MANY_FRAGMENTS = CloseReason(1009, "too many fragments")
RESTART = CloseReason(1012, "service restart")
# Not 1008: the client did nothing wrong, it may return when it, or the service, is faster.
SLOW_CONSUMER = CloseReason(1013, "slow consumer")
FULL = CloseReason(1013, "too many connections")
