"""A notification center without a network, whose time the test makes pass; the test plays the clients."""

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any

from service.core.center import Center
from service.core.close_codes import CloseReason
from service.core.depth import MAX_DEPTH
from service.core.identity import Identity, TokenError
from service.core.session import Session, SessionV0
from service.core.session_v1 import SessionV1
from service.settings import Limits, Settings

TOO_DEEP = MAX_DEPTH + 1


class FakeClient:
    """What the service sends lands in `sent` and `closed`; a probe waits until the test answers it.

    What is sent has left at once, unless the client `reads_slowly`: then the test says in `leaving` whether it has.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: list[CloseReason] = []
        self.aborted = False
        self.probes: list[Callable[[bool], None]] = []
        self.reads_slowly = False
        self.leaving: list[Callable[[bool], None]] = []
        self.written = self.queued = 0

    def send(self, text: bytes) -> None:
        self.sent.append(text)

    def when_left(self, then: Callable[[bool], None]) -> None:
        if self.reads_slowly:
            self.leaving.append(then)
        else:
            then(True)

    def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)

    def abort(self) -> None:
        self.aborted = True

    def probe(self, answered: Callable[[bool], None]) -> None:
        self.probes.append(answered)


class Party:
    """A client, its session, and what it says and hears."""

    def __init__(self, center: Center, kind: type[Session], identity: Identity | None, address: str | None) -> None:
        self.client = FakeClient()
        self.session = kind(center, self.client, identity, address)
        self.session.start()
        self.welcome = self.client.sent.pop()

    def say(self, **frame: Any) -> float:
        """Send one object."""
        return self.session.receive(json.dumps(frame).encode())

    def heard(self) -> list[Any]:
        """Everything since the last call."""
        texts, self.client.sent = self.client.sent, []
        return [json.loads(text) for text in texts]

    def heard_first(self) -> Any:
        """The first of those texts; the others are still to be heard."""
        return json.loads(self.client.sent.pop(0))

    def register(self, address: str) -> None:
        """As v0 does."""
        self.say(recipient_uuid=address, message="connected")

    def answer_probe(self, alive: bool) -> None:
        """The ping of the service is answered, or not in time."""
        self.client.probes.pop()(alive)


class World:
    """A center, and a clock that stands still; `tokens` are the ones that it takes."""

    def __init__(self, prefix: str = "temporary-", number: int = 0, **settings: Any) -> None:
        self.time = 1_000_000.0
        self.clock_is_ahead = 0.0
        self.tokens: dict[str, Identity] = {}
        self._next_turn: list[Callable[[], None]] = []
        temporary, secrets = count(1), count(1)
        self.center = Center(
            Settings(**{"welcome": "{uuid}", **settings}),
            self._verify,
            clock=lambda: self.time,
            now=lambda: self.time + self.clock_is_ahead,
            soon=self._soon,
            draw_address=lambda: f"{prefix}{next(temporary)}",
            draw_secret=lambda: f"secret-{next(secrets)}",
            number=number,
        )

    def _soon(self, act: Callable[[], None]) -> None:
        try:
            asyncio.get_running_loop().call_soon(act)
        except RuntimeError:  # there is none
            self._next_turn.append(act)

    def turns(self) -> None:
        """The loop turns until nobody waits for that."""
        while self._next_turn:
            self._next_turn.pop(0)()

    def _verify(self, token: str) -> Identity:
        try:
            identity = self.tokens[token]
        except KeyError:
            raise TokenError("unknown token") from None
        if identity.expires <= self.time:
            raise TokenError("token expired", expired=True)
        return identity

    def v0(self, identity: Identity | None = None, address: str | None = None) -> Party:
        """A client that has offered no subprotocol."""
        return Party(self.center, SessionV0, identity, address)

    def v1(self, uuid: str | None = None, identity: Identity | None = None) -> Party:
        """A client of nc.v1; with a `uuid` it has said hello."""
        party = Party(self.center, SessionV1, identity, None)
        if uuid is not None:
            party.say(type="hello", id=0, uuid=uuid)
            assert [frame["type"] for frame in party.heard()] == ["ok"]
        return party

    def dropped(self, reason: str) -> int:
        """How many messages went nowhere for this reason."""
        return self.center.hub.tally.dropped[reason]

    def keeps(self) -> list[object]:
        """What the center remembers of clients; empty when all have left."""
        hub = self.center.hub
        kept = (hub.members, hub._owners, hub._claimants, hub._groups, hub._watchers)
        return [
            each for each in (*kept, self.center.deadlines, self.center.expiries, self.center.connections_of) if each
        ]

    def passes(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.time += seconds
        self.center.tick()


def identity(subject: str, *may_send_to: str, expires: float = 2_000_000.0) -> Identity:
    """What a token says."""
    from service.core.addresses import Address

    return Identity(subject=Address(subject), may_send_to=frozenset(may_send_to), expires=expires)


def limits(**values: int) -> Limits:
    """Limits, the rest at their defaults."""
    return Limits(**values)
