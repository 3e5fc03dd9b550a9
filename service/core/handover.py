"""What is known of one client, apart from its socket: with it, another process of the service can serve it on.

Declared once. It comes from a process of ours, on a way that nobody else can write to, and is checked all the same:
that process may be of another release. `VERSION` grows whenever an item is added, or means something else; what has
another version is not guessed at. All times are those of the clocks of `service.core.center.Center`, of one host.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from service.core.addresses import CheckedAddress, GroupName
from service.core.frames import Id
from service.core.hub import OpenReceipt
from service.core.identity import Identity
from service.core.mailbox import Opened

VERSION = 2

_Number = Annotated[int, Meta(ge=0)]


class BoxState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """How far the mailbox of a client was read. `window` has offset and size of what it has yet to acknowledge.

    Without `opened` the client does not know of mailboxes, and hears what is stored.
    """

    box: CheckedAddress
    opened: Opened | None
    sent: _Number
    acknowledged: _Number
    window: list[tuple[_Number, _Number]]


class Unconfirmed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A message that the client has yet to confirm, and the connection that wants a receipt, by its first address;
    `origin` if that one is on another host.
    """

    key: _Number
    sender: CheckedAddress
    id: Id
    recipient: CheckedAddress
    origin: tuple[_Number, CheckedAddress] | None = None


class SessionState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A `service.core.session.Session`. What is below `box` concerns nc.v1 alone."""

    protocol: str
    addresses: Annotated[list[tuple[CheckedAddress, float]], Meta(min_length=1)]
    """Each with the time since which it has it; the temporary one is the first."""
    client_address: str | None
    identity: Identity | None
    began: float
    messages_left: float
    bytes_left: float
    refilled: float
    box: BoxState | None
    greeted: bool = False
    hello_until: float | None = None
    resume: str | None = None
    groups: list[GroupName] = []
    watched: dict[CheckedAddress, bool] = {}
    """Whether it was told last that somebody has the address."""
    unconfirmed: list[Unconfirmed] = []
    has_box: bool = False
    receipts: list[OpenReceipt] = []
    """What it has yet to be told by other hosts."""


class StreamState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is between a session and its socket, with the stream's frames at any byte.

    `begun` is what came in of a frame that is not complete, to the letter; `message` a message of which pieces came in,
    and whether it is text; `kept` the frames that are still to be carried out, as `service.fast.kept` has them, and the
    code and reason for which the client is to be closed behind them. `heard` is when it gave its last sign of life, and
    `pings` how many it has not answered since.
    """

    begun: bytes
    message: tuple[bool, list[bytes]] | None
    kept: bytes
    fault: tuple[int, str] | None
    heard: float
    pings: _Number


class ClientState(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A client."""

    session: SessionState
    stream: StreamState


class Envelope(msgspec.Struct, array_like=True):
    """What every release understands: the version of the rest, and what has to be written to the client first."""

    version: _Number
    unsent: bytes
    client: msgspec.Raw


class NotUnderstoodError(Exception):
    """This is not the state of a client, or not as this release has it; the message says why."""


_encode = msgspec.msgpack.Encoder().encode
_open = msgspec.msgpack.Decoder(Envelope).decode
_decode = msgspec.msgpack.Decoder(ClientState).decode


def seal(client: ClientState, unsent: bytes) -> bytes:
    """The state of a client, for another process."""
    return _encode(Envelope(VERSION, unsent, msgspec.Raw(_encode(client))))


def unsent_of(sealed: bytes) -> bytes:
    """What has to be written to a client before anything else, whatever release its state is of.

    Raises:
        NotUnderstoodError
    """
    try:
        return _open(sealed).unsent
    except msgspec.MsgspecError as error:
        raise NotUnderstoodError(str(error)) from None


def unseal(sealed: bytes) -> ClientState:
    """The state of a client.

    Raises:
        NotUnderstoodError
    """
    try:
        envelope = _open(sealed)
        if envelope.version != VERSION:
            raise NotUnderstoodError(f"version {envelope.version} instead of {VERSION}")
        return _decode(envelope.client)
    except msgspec.MsgspecError as error:
        raise NotUnderstoodError(str(error)) from None
