"""The records that workers exchange: each is a MessagePack array whose first item says which it is.

Hosts of two releases talk to each other. So a record may be given further items at its end, with defaults, but never
lose or change one; a worker skips items and records that it does not know.
"""

import struct
from collections.abc import Sequence
from typing import get_args

import msgspec

from service.core.addresses import Address
from service.core.hub import Origin, Proof, Reach


class _Record(msgspec.Struct, array_like=True, gc=False):
    """One record."""


class Came(_Record, tag=1):
    """A client has connected. `Frees` of its temporary address reports its end."""

    temporary: Address
    client_address: str | None


class Owns(_Record, tag=2):
    """A client has an address, `since` this time in seconds, by the clock of `service.core.bus.PeerBus`."""

    address: Address
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
    """A message of v0, and by its `name` who has sent it. `number` is 0 when the sender's worker believes that the
    recipient is here, and wants no answer. The `recipient` need not be read from the text again.
    """

    text: bytes
    name: Address
    number: int
    recipient: Address | None = None


class Said(_Record, tag=7):
    """A message of nc.v1, or of somebody over HTTP. `key` is 0 when nobody wants a receipt, `number` when nobody wants
    an answer. `seeks`: it was sent to all, to find its recipient. With a key, the receipt is for the client with this
    `temporary` address, under this `id`. `origin`: its worker is one of another host than ours, has this key for the
    message, and has sent it to this recipient.
    """

    body: bytes
    sender: Address
    recipient: Address | None
    group: str | None
    key: int
    number: int
    seeks: bool
    temporary: Address | None = None
    id: int | str = 0
    origin: Origin | None = None


class Reached(_Record, tag=8):
    """The answer to a message with a number: what has become of it, a `service.core.hub.Reach`."""

    number: int
    reach: Reach


class Outcome(_Record, tag=9):
    """What became of a message with a key; `recipient` is whom it was sent to, for a group a temporary address.

    Between hosts, the sender is the client with this `temporary` address.
    """

    key: int
    recipient: Address
    name: Address
    delivered: bool
    temporary: Address | None = None


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
    """Asks how a worker is."""

    number: int


# The number of an answer that nobody has asked for.
UNASKED = 0


class Counted(_Record, tag=13):
    """A `service.core.standing.Standing`; the `number` is 0 where nobody has asked. When the sender goes, the worker
    with the number `heir` goes on with what it has counted, and has counted last.
    """

    number: int
    counts: bytes
    heir: str = ""


class Expected(_Record, tag=14):
    """Of whom an outcome will follow for a message to a group, which has a key: all others had left when it came."""

    key: int
    recipients: list[Address]


class Told(_Record, tag=15):
    """That was all that the clients of this worker had when it met the other one. While it `is_taking` clients back
    that a process before it has left, there are more to come; another one of these says that it has all.
    """

    is_taking: bool = False


class Mail(_Record, tag=16):
    """These mailboxes are there, and may have something new."""

    boxes: list[Address]


class Settled(_Record, tag=17):
    """What became of a message that was kept; its sender is the client with this temporary address."""

    temporary: Address
    id: int | str
    recipient: Address
    is_delivered: bool


class Moving(msgspec.Struct, array_like=True, gc=False):
    """A client that another worker is to serve: its addresses, of which the temporary one is the first, each since when
    it has it, and its groups. `name` is as whom others know it.
    """

    client_address: str | None
    name: Address
    addresses: list[tuple[Address, float]]
    groups: list[str]

    @property
    def temporary(self) -> Address:
        """Its first address."""
        return self.addresses[0][0]


class Moves(_Record, tag=18):
    """The worker with the number `to` is to serve these clients of the sender, or the sender after all. Both are on one
    host. `instead`: of a worker, by its number, and the number of its `Moves`, which is not to be acted on any more; of
    its clients the sender has these by now, and those that are `gone` no more, with all that they had. Without it, no
    worker of the host has those; what becomes of what they had yet to confirm, the worker with the number `teller`
    says itself, unless it dies before.
    """

    number: int
    to: str
    clients: list[Moving]
    instead: tuple[str, int] | None = None
    gone: list[Moving] = []
    teller: str = ""


class Fenced(_Record, tag=19):
    """From now on, the sender has what is for certain clients go to the worker that is to serve them; what it has sent
    to the one that did was sent before. Both are told so. `number` is that of the `Moves`, which came from the worker
    with the number `of`, on its host. Where it comes from that one itself, all of these clients have left or stay, and
    `answered` are the workers of other hosts that have said so as well. `again`: they are not to leave before the
    sender says so once more, without this.
    """

    number: int
    of: str
    answered: list[str] = []
    again: bool = False


class Passed(_Record, tag=20):
    """All that was sent for the clients of a `Moves`, as in `Fenced`, has come to where they were, or to the sender; or
    for those of a `Restarts`, who have left.
    """

    number: int
    of: str


class Restarts(_Record, tag=21):
    """The service restarts on the host of the sender, whose clients these are. They stay connected, and another worker
    of that host is to serve them, which says so with `Came`, and with `Told` that it has all of its own. Only the last
    of several such records has a `number`, and is answered with `Fenced`, unless there were not so many `in_all`;
    `Passed` says at last that they have left.
    """

    clients: list[Moving]
    number: int = 0
    in_all: int = 0


Record = (
    Came
    | Owns
    | Frees
    | Joined
    | Left
    | Text
    | Said
    | Reached
    | Outcome
    | Claim
    | Answer
    | Ask
    | Counted
    | Expected
    | Told
    | Mail
    | Settled
    | Moves
    | Fenced
    | Passed
    | Restarts
)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode
decode_batch = msgspec.msgpack.Decoder(list[Record]).decode
_array = struct.Struct("!BI")
_ARRAY_32 = 0xDD  # MessagePack: an array, with the number of its items in four bytes
_TAGS = {kind.__struct_config__.tag for kind in get_args(Record)}


def batch(encoded: Sequence[bytes]) -> bytes:
    """Several records in one, which `decode_batch` reads in one call: a call for each costs as much as to read it."""
    return b"".join((_array.pack(_ARRAY_32, len(encoded)), *encoded))


def read(data: bytes) -> Record | None:
    """A record from another host, or None when only a later release knows it.

    Raises:
        msgspec.MsgspecError: it is not a record.
    """
    try:
        record: Record = decode(data)
    except msgspec.ValidationError:
        if msgspec.msgpack.decode(data)[0] in _TAGS:
            raise
        return None
    return record
