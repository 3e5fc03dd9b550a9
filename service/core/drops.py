"""Every reason for which a message goes nowhere; each is a series of the metrics from the start."""

NOBODY = "nobody"
CUT_OFF = "cut_off"
PLAIN = "plain"
UNREADABLE = "unreadable"
BAD_REQUEST = "bad_request"
FORBIDDEN = "forbidden"
NO_HELLO = "no_hello"
ADDRESS_TAKEN = "address_in_use"
LIMIT = "limit"
UNCONFIRMED = "unconfirmed"
GONE = "gone"
SLOW_CONSUMER = "slow_consumer"
BUS_FULL = "bus_full"
MAILBOX_FULL = "mailbox_full"

ALL = (
    *(NOBODY, CUT_OFF, PLAIN, UNREADABLE, BAD_REQUEST, FORBIDDEN, NO_HELLO),
    *(ADDRESS_TAKEN, LIMIT, UNCONFIRMED, GONE, SLOW_CONSUMER, BUS_FULL, MAILBOX_FULL),
)
