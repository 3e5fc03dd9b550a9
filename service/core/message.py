"""A message on its way to one client or to many, in the words of either version of the protocol."""

from functools import cached_property

import msgspec

from service.core.addresses import Address
from service.core.frames import Msg


class _V0(msgspec.Struct):
    recipient_uuid: Address | None
    message: msgspec.Raw


class Message:
    """What a client, or somebody over HTTP, says to an address or to a group.

    `body` is JSON as the sender wrote it. With a `key` the recipient is asked to confirm that it has the message, with
    an `offset` to confirm that it has all in its mailbox up to there.
    """

    def __init__(
        self,
        body: msgspec.Raw,
        sender: Address,
        *,
        recipient: Address | None = None,
        group: str | None = None,
        key: int | None = None,
        offset: int | None = None,
    ) -> None:
        self.body = body
        self.sender = sender
        self.recipient = recipient
        self.group = group
        self.key = key
        self.offset = offset

    # A group's members all get the same bytes.
    @cached_property
    def v0(self) -> bytes:
        """As a client gets it that knows v0: the two keys of v0, and no more."""
        return msgspec.json.encode(_V0(self.recipient, self.body))

    @cached_property
    def v1(self) -> bytes:
        """As a client of nc.v1 gets it."""
        heard = Msg(sender_uuid=self.sender, message=self.body)
        if self.recipient is not None:
            heard.recipient_uuid = self.recipient
        if self.group is not None:
            heard.group = self.group
        if self.key is not None:
            heard.key = self.key
        if self.offset is not None:
            heard.offset = self.offset
        return heard.encode()
