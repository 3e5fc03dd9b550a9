"""What the workers of one host tell each other: a record is a MessagePack array whose first item says which it is."""

import msgspec

from service.core.addresses import Address
from service.core.hub import Proof


class _Record(msgspec.Struct, array_like=True, gc=False):
    """One record."""


class Came(_Record, tag=1):
    """A client has connected; `confirms`: it speaks nc.v1. Its end is told by `Frees` of its temporary address."""

    temporary: Address
    confirms: bool
    client_address: str | None


class Owns(_Record, tag=2):
    """A client has an address, `since` this time of the host's monotonic clock, in seconds."""

    address: Address
    confirms: bool
    since: float


class Frees(_Record, tag=3):
    """No client of this worker has the address any more."""

    address: Address


class Joined(_Record, tag=4):
    """A client is in a group, under its temporary address."""

    group: str
    temporary: Address
    name: Address


class Left(_Record, tag=5):
    """The inverse of `Joined`."""

    group: str
    temporary: Address


class Text(_Record, tag=6):
    """A message of v0. `seek` is 0 when the sender believes that its recipient is here."""

    text: bytes
    sender: Address
    seek: int


class Said(_Record, tag=7):
    """A message of nc.v1, or of somebody over HTTP. `key` is 0 when nobody wants a receipt."""

    body: bytes
    sender: Address
    recipient: Address | None
    group: str | None
    key: int
    seek: int


class Sought(_Record, tag=8):
    """The answer to a message that was sent to find its recipient."""

    seek: int
    online: int
    receipts: int


class Outcome(_Record, tag=9):
    """What became of a message with a key; `recipient` is whom it was sent to, for a group a temporary address."""

    key: int
    recipient: Address
    name: Address
    delivered: bool


class Claim(_Record, tag=10):
    """A client of the sender asks for an address that one of the receiver has."""

    number: int
    address: Address
    proof: Proof


class Answer(_Record, tag=11):
    """Whether the owner is alive, and keeps it."""

    number: int
    alive: bool


class Ask(_Record, tag=12):
    """Asks for the tally of a worker."""

    number: int


class Counted(_Record, tag=13):
    """The tally, a `service.core.hub.Tally`; `number` is 0 when it is left behind by a worker that goes."""

    number: int
    counts: bytes


class Expected(_Record, tag=14):
    """Of whom an outcome will follow for a message with a key: all others had gone when it came."""

    key: int
    recipients: list[Address]


class Told(_Record, tag=15):
    """That was all that the clients of this worker had when it met the other one."""


Record = (
    Came
    | Owns
    | Frees
    | Joined
    | Left
    | Text
    | Said
    | Sought
    | Outcome
    | Claim
    | Answer
    | Ask
    | Counted
    | Expected
    | Told
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode
