"""Protocol v0, from one client's point of view: a frame in, effects out. Pure: the shells carry the effects out.

- The first text a client gets is the welcome, which names its temporary UUID.
- `{"recipient_uuid": U, "message": "connected"}` registers U for the connection it came on.
- Any other object with these two keys goes to whoever owns U, to the letter as it came in. Further keys travel along.
  Nobody owns U: it goes nowhere.
- Everything else is plain text: accepted, counted, sent nowhere.
- A binary frame means the text that its bytes are in UTF-8; when they are not UTF-8, it is counted as plain text.

A client never gets a frame that it did not ask for: no acknowledgement and no error, only close codes.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from service.close_codes import TOO_MANY_ADDRESSES, CloseReason
from service.hub import Address, ConnectionId, Hub, TooManyRegistrationsError

# A UUID has 36 characters, names of one's own are longer. The bound keeps what a client can store in the hub small.
MAX_ADDRESS_LENGTH = 128

# As every JSON encoder spells it; the message is not decoded to find other spellings, such as "\u0063onnected".
_CONNECTED = b'"connected"'


class Send(NamedTuple):
    """A text for a client."""

    connection: ConnectionId
    text: str


class Close(NamedTuple):
    """The end of a connection."""

    connection: ConnectionId
    reason: CloseReason


Effect = Send | Close


class _Envelope(msgspec.Struct, gc=False):
    """What the service reads of a message. `message` is checked to be JSON, and never built: width costs nothing."""

    recipient_uuid: Annotated[Address, msgspec.Meta(min_length=1, max_length=MAX_ADDRESS_LENGTH)]
    message: msgspec.Raw


_decode = msgspec.json.Decoder(_Envelope).decode


class Session:
    """One client, from its welcome to its end."""

    def __init__(self, hub: Hub, temporary: Address) -> None:
        self.connection = hub.connect(temporary)
        self._hub = hub
        self._temporary = temporary
        self._closing = False

    def welcome(self, text: str) -> Sequence[Effect]:
        """Greet the client; `{uuid}` in the text becomes its temporary UUID, any other brace stays as it is."""
        return (Send(self.connection, text.replace("{uuid}", self._temporary)),)

    def receive(self, frame: str | bytes) -> Sequence[Effect]:
        """Act on one message of the client, whatever it may be."""
        if self._closing:
            return ()
        try:
            text = frame if isinstance(frame, str) else frame.decode()
            envelope = _decode(text)
        # ValueError: not JSON, not UTF-8 or not our object. RecursionError: nested a thousand deep.
        except (ValueError, RecursionError):
            self._hub.tally.plain += 1
            return ()
        if bytes(envelope.message) == _CONNECTED:
            return self._register(envelope.recipient_uuid)
        recipient = self._hub.route(envelope.recipient_uuid)
        return () if recipient is None else (Send(recipient, text),)

    def _register(self, address: Address) -> Sequence[Effect]:
        try:
            self._hub.register(self.connection, address)
        except TooManyRegistrationsError:
            self._closing = True
            return (Close(self.connection, TOO_MANY_ADDRESSES),)
        return ()

    def end(self) -> None:
        """The connection is gone."""
        self._hub.disconnect(self.connection)
