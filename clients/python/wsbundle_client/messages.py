"""What a client says to the application: messages, events, and what happens to what was sent."""

import asyncio
from typing import Any, NamedTuple


class Message(NamedTuple):
    """What somebody said to the client, or to the `group` that it is in.

    `text` is the message as JSON, to the letter: numbers have lost nothing there.
    """

    sender_uuid: str
    message: Any
    recipient_uuid: str | None
    group: str | None
    text: str = ""


class Event(NamedTuple):
    """Something has changed. `kind` is one of

    - `connected`: the service has taken the client in as `uuid`
    - `disconnected`, for this `reason`: the next try is in `wait_s` seconds
    - `gone`, for this `reason`: there is no next try
    - `presence`: the watched address `uuid` has got an owner, or lost it; see `online`
    - `refused`, for this `reason`: after a reconnect the service has refused a group or a watch that it had granted
    - `missing`: the mailbox does not have everything any more that was kept for us, for this `reason`
    - `receipt`: what became of the message `id` that an earlier run of the program has sent to `uuid`; see `outcome`
    - `dropped`: a message was thrown away, one of `uuid` if the application takes none, or for this `reason`
    """

    kind: str
    uuid: str = ""
    reason: str = ""
    wait_s: float = 0.0
    online: bool = False
    id: str = ""
    outcome: str = ""


class Sent:
    """A message that the service has accepted, for `online` recipients, or has `stored` in the recipient's mailbox.

    `id` is by what a receipt names it that comes to a later run of the program.
    """

    def __init__(self, known_as: int | str = "") -> None:
        self.id = known_as
        self.online = 0
        self.stored = False
        self.outcomes: dict[str, str] = {}
        """By recipient, `delivered` or `lost`, as far as it is known; with `ack="delivered"` only."""
        self._receipts: int | None = None
        self._noted = self._delivered = 0
        self._link: object = None
        """The connection on which it was sent last."""
        self._complete = asyncio.Event()

    async def outcome(self) -> str:
        """Wait for the receipts: `delivered` when all recipients have confirmed, and else `lost`.

        `lost` means that it may have arrived or not: a recipient has gone, or cannot confirm, or we were disconnected.
        """
        await self._complete.wait()
        return "delivered" if self._delivered == (1 if self.stored else self.online) else "lost"

    def _begin(self, link: object) -> None:
        """It is sent on a connection: what recipients have said of an earlier copy no longer counts."""
        self._link = link
        if not self._complete.is_set():
            self._noted = self._delivered = 0
            self.outcomes.clear()

    def _accept(self, online: int, receipts: int | None, stored: bool = False) -> None:
        self.online, self._receipts, self.stored = online, receipts, stored
        self._look()

    def _note(self, link: object, recipient: str, outcome: str) -> None:
        """Each counts: two members of a group may have one name."""
        if link is self._link:
            self._count(recipient, outcome)
            self._look()

    def _conclude(self, recipient: str, outcome: str) -> None:
        """The receipt has come from the mailbox: it is about any copy, and no other follows."""
        self._count(recipient, outcome)
        self._complete.set()

    def _count(self, recipient: str, outcome: str) -> None:
        self.outcomes[recipient] = outcome
        self._noted += 1
        self._delivered += outcome == "delivered"

    def _look(self) -> None:
        if self._receipts is not None and self._noted >= self._receipts:
            self._complete.set()

    def _give_up(self, link: object = None) -> None:
        """This connection has ended, or there is none any more: no receipt comes there."""
        if link in (None, self._link) and self._receipts is not None:  # or else it is sent again
            self._complete.set()
