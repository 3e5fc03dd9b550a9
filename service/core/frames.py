"""The frames of nc.v1: what a client may say, and what it may hear. docs/protocol.md derives its tables from here.

One JSON object in one text frame. Unknown keys are ignored, so that a newer client can talk to an older service.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.core.addresses import Address, CheckedAddress, GroupName

SUBPROTOCOL = "nc.v1"

# A presence request with more would make one message cost the service a thousand.
MAX_ASKED_FOR = 100

# What every client can send back as it came: integers are exact up to here in JavaScript.
MAX_ID = 2**53 - 1
MAX_ID_LENGTH = 64
MAX_DEDUP_LENGTH = 128

Id = Annotated[int, Meta(ge=0, le=MAX_ID)] | Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]


class Heading(msgspec.Struct, gc=False):
    """What is read first of every frame: its type, and how the answer is to be marked."""

    type: str = "send"
    id: Id | None = None


class MailboxPosition(msgspec.Struct):
    """Up to where a client has everything that was in its mailbox."""

    epoch: str | None = None
    after: Annotated[int, Meta(ge=0, le=MAX_ID)] | None = None

    def __post_init__(self) -> None:
        # A position without its epoch would be believed by whoever does not look.
        if (self.epoch is None) != (self.after is None):
            raise ValueError("give epoch and after, or neither")


class Hello(msgspec.Struct):
    """Says who the client is. It must come first, and may come again to register a further address."""

    id: Id
    uuid: Annotated[
        CheckedAddress | None, Meta(description="The address to register; left out, the temporary one.")
    ] = None
    token: Annotated[str | None, Meta(description="Proof of the address, with `auth: token`.")] = None
    resume: Annotated[
        str | None,
        Meta(description="`resume` of an earlier `ok`: takes the address over from that connection at once."),
    ] = None
    mailbox: Annotated[
        MailboxPosition | None,
        Meta(
            description="`{}` or `{epoch, after}`: send me what was kept for this address, and keep what comes. See "
            "Mailbox."
        ),
    ] = None


class Send(msgspec.Struct):
    """Says something to an address or to a group. The type may be left out: a message of v0 is one of these."""

    message: Annotated[msgspec.Raw, Meta(description="Any JSON; it is passed on to the letter.")]
    recipient_uuid: Annotated[CheckedAddress | None, Meta(description="The address, or else")] = None
    group: Annotated[GroupName | None, Meta(description="the group; the sender itself gets no copy.")] = None
    ack: Annotated[
        Literal["none", "accepted", "delivered"],
        Meta(
            description="`accepted`: `ok` when it has left the service for the recipient, or is stored. `delivered`: "
            "`delivered` or `lost` for each recipient as well. Without an `id` nothing is answered."
        ),
    ] = "accepted"
    id: Id | None = None
    dedup: Annotated[
        Annotated[str, Meta(pattern=f"^[!-~]{{1,{MAX_DEDUP_LENGTH}}}$")] | None,
        Meta(
            description="Up to 128 visible ASCII characters. The same ones again to the same recipient within "
            "five minutes mean the same message: a mailbox stores it once."
        ),
    ] = None


class Ack(msgspec.Struct):
    """Confirms a `msg` that had a `key`, or everything in the mailbox up to an `offset`, which is then deleted."""

    key: Annotated[int | UnsetType, Meta(description="The key, or else")] = UNSET
    offset: Annotated[int | UnsetType, Meta(description="the offset up to which everything was taken care of.")] = UNSET

    def __post_init__(self) -> None:
        if (self.key is UNSET) == (self.offset is UNSET):
            raise ValueError("give one of key and offset")


class Join(msgspec.Struct):
    """Makes the client a member of a group."""

    id: Id
    group: GroupName


class Leave(msgspec.Struct):
    """The inverse of `join`."""

    id: Id
    group: GroupName


class Presence(msgspec.Struct):
    """Asks which addresses have an owner now."""

    id: Id
    uuids: Annotated[list[CheckedAddress], Meta(max_length=MAX_ASKED_FOR, description="The addresses.")]
    watch: Annotated[bool | None, Meta(description="true: tell me of every change from now on; false: no longer.")] = (
        None
    )


class Refresh(msgspec.Struct):
    """Shows a newer token for the same address, before the old one expires."""

    id: Id
    token: str


class Ping(msgspec.Struct):
    """Asks for a sign of life: browsers cannot see the pings of WebSocket."""

    id: Id | None = None


REQUESTS: dict[str, type[msgspec.Struct]] = {
    "hello": Hello,
    "send": Send,
    "ack": Ack,
    "join": Join,
    "leave": Leave,
    "presence": Presence,
    "refresh": Refresh,
    "ping": Ping,
}


class Reply(msgspec.Struct, tag_field="type", kw_only=True):
    """A frame from the service."""

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


class Welcome(Reply, tag="welcome"):
    """The first frame, before `hello`."""

    uuid: Annotated[Address, Meta(description="The temporary address.")]
    message: Annotated[str, Meta(description="The setting `welcome`.")]
    server_time: Annotated[float, Meta(description="In seconds since the epoch.")]
    protocol: Annotated[str, Meta(description="`nc.v1`.")] = SUBPROTOCOL


class Mailbox(msgspec.Struct):
    """What a client finds in its mailbox."""

    epoch: str
    after: int
    last: int
    whole: bool
    lost_to: int | UnsetType = UNSET


class Ok(Reply, tag="ok"):
    """A request was carried out. Each request answers with the keys that concern it."""

    id: Id
    uuid: Annotated[Address | UnsetType, Meta(description="To `hello`: the address.")] = UNSET
    resume: Annotated[str | UnsetType, Meta(description="To `hello`: takes the address over later; a secret.")] = UNSET
    ping_ms: Annotated[int | UnsetType, Meta(description="To `hello`: how often the service pings.")] = UNSET
    limits: Annotated[dict[str, int] | UnsetType, Meta(description="To `hello`: see Limits.")] = UNSET
    expires: Annotated[float | UnsetType, Meta(description="To `hello` and `refresh`: when the token does.")] = UNSET
    online: Annotated[
        int | list[Address] | UnsetType,
        Meta(description="To `send`: for how many recipients. To `presence`: the addresses that have an owner."),
    ] = UNSET
    receipts: Annotated[
        int | UnsetType,
        Meta(description="To a `send` that wants receipts: how many `delivered` or `lost` will follow."),
    ] = UNSET
    stored: Annotated[
        bool | UnsetType,
        Meta(description="To `send`: true when the message is in the recipient's mailbox; `online` may be 0 then."),
    ] = UNSET
    mailbox: Annotated[
        Mailbox | UnsetType,
        Meta(description="To a `hello` with `mailbox`: what is there, and whether it is all. See Mailbox."),
    ] = UNSET


class Error(Reply, tag="error"):
    """A request was not carried out, and has changed nothing."""

    id: Annotated[Id | None, Meta(description="null when the request had none that could be read.")]
    code: Annotated[int, Meta(description="See Errors.")]
    reason: Annotated[str, Meta(description="For people; it may change.")]
    temporary: Annotated[bool, Meta(description="Whether the same request may succeed later.")]


class Msg(Reply, tag="msg"):
    """Somebody says something to the client, or to a group that it is in."""

    sender_uuid: Annotated[
        Address, Meta(description="That of the sender's token, the first one it registered, or its temporary one.")
    ]
    message: Annotated[msgspec.Raw, Meta(description="What the sender gave, to the letter.")]
    recipient_uuid: Annotated[Address | UnsetType, Meta(description="The address it was sent to, or else")] = UNSET
    group: Annotated[str | UnsetType, Meta(description="the group.")] = UNSET
    key: Annotated[int | UnsetType, Meta(description="Confirm it with `ack`: the sender asks for a receipt.")] = UNSET
    offset: Annotated[
        int | UnsetType, Meta(description="Its place in the mailbox; confirm it, and all before it, with `ack`.")
    ] = UNSET


class Delivered(Reply, tag="delivered"):
    """A recipient has confirmed the message with this `id`."""

    id: Id
    recipient_uuid: Annotated[Address, Meta(description="What it was sent to; for a group, the member.")]
    offset: Annotated[
        int | UnsetType,
        Meta(description="When it comes from the mailbox, its place there; confirm it, and all before it, with `ack`."),
    ] = UNSET


class Lost(Reply, tag="lost"):
    """A recipient has gone without confirming the message, or did not fetch it from its mailbox in time: it may have
    arrived, or not.
    """

    id: Id
    recipient_uuid: Annotated[Address, Meta(description="What it was sent to; for a group, the member.")]
    offset: Annotated[
        int | UnsetType,
        Meta(description="When it comes from the mailbox, its place there; confirm it, and all before it, with `ack`."),
    ] = UNSET


class Changed(Reply, tag="presence"):
    """An address that the client watches has got an owner, or lost it."""

    uuid: Annotated[Address, Meta(description="The address.")]
    state: Annotated[Literal["online", "offline"], Meta(description="What it is now.")]


class Goaway(Reply, tag="goaway"):
    """The service is about to stop."""

    reconnect_in_ms: Annotated[int, Meta(description="When to come back; each client is told another time.")]
    deadline_ms: Annotated[int, Meta(description="When the service closes what is still open.")]


class Pong(Reply, tag="pong"):
    """The answer to `ping`."""

    id: Id | UnsetType = UNSET


REPLIES: tuple[type[Reply], ...] = (Welcome, Ok, Error, Msg, Delivered, Lost, Changed, Goaway, Pong)


class ReceiptBody(msgspec.Struct):
    """What became of a message with this id, as it is kept for its sender."""

    id: Id
    is_delivered: bool


class Failure(msgspec.Struct, frozen=True):
    """A row of the table of errors."""

    code: int
    reason: str
    temporary: bool = False

    def answer(self, to: Any, reason: str = "") -> Error:
        return Error(id=to, code=self.code, reason=reason or self.reason, temporary=self.temporary)


class Failures:
    """Every error. Numbers follow Centrifugo's where the meaning is the same."""

    UNAUTHORIZED: ClassVar = Failure(101, "unauthorized")
    FORBIDDEN: ClassVar = Failure(103, "forbidden")
    UNKNOWN_TYPE: ClassVar = Failure(104, "unknown type")
    LIMIT: ClassVar = Failure(106, "limit exceeded")
    BAD_REQUEST: ClassVar = Failure(107, "bad request")
    TOKEN_EXPIRED: ClassVar = Failure(109, "token expired")
    IN_USE: ClassVar = Failure(113, "address in use")
    NOBODY: ClassVar = Failure(114, "nobody has this address", temporary=True)
    QUEUE_FULL: ClassVar = Failure(115, "too many unconfirmed messages", temporary=True)
    GONE: ClassVar = Failure(116, "the recipient was lost; it may have arrived", temporary=True)
    CUT_OFF: ClassVar = Failure(117, "other hosts cannot be reached now", temporary=True)
    MAILBOX_FULL: ClassVar = Failure(118, "mailbox full", temporary=True)
