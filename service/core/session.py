"""One client's side of the protocol: its messages come in, and the results go to the clients that they concern.

Here is what both versions have in common, and v0:

- The first text a client gets is the welcome, which names its temporary UUID.
- `{"recipient_uuid": U, "message": "connected"}` registers U for the connection it came on.
- Any other object with these two keys goes to whoever owns U, to the letter as it came in. Further keys travel along.
  Nobody owns U: it goes nowhere.
- Everything else is plain text: accepted, counted, sent nowhere.
- A binary frame means the text that its bytes are in UTF-8; when they are not UTF-8, it is counted as plain text.

A client of v0 never gets a frame that it did not ask for: no acknowledgement and no error, only close codes.
Pure: no loop, no socket, no clock of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from functools import partial

import msgspec

from service.core import drops
from service.core.addresses import Address
from service.core.center import Center, Client
from service.core.close_codes import (
    ADDRESS_IN_USE,
    FORBIDDEN,
    MAILBOX_UNAVAILABLE,
    REPLACED,
    SLOW_CONSUMER,
    TOKEN_EXPIRED,
    TOO_MANY_ADDRESSES,
    CloseReason,
)
from service.core.envelope import Envelope, read_envelope, read_odd_envelope
from service.core.frames import Delivered, Lost
from service.core.handover import BoxState, SessionState
from service.core.hub import Named, Origin, Proof, Reach, Receipt, TellReach, TooManyUnconfirmedError
from service.core.identity import Identity
from service.core.mail import Reader
from service.core.mailbox import Item, Kept, Kind, Letter, Opened, Store
from service.core.message import Message
from service.core.odd_json import MAX_ODD_BYTES, ODD_BYTES_PER_SECOND, OddError, check_length, may_be_odd
from service.core.tally import count_up
from service.core.turns import LATER, NEXT_TURN, SHARE, NotNowError

# As every JSON encoder spells it; the message is not decoded to find other spellings, such as "\u0063onnected".
_CONNECTED = msgspec.Raw(b'"connected"')


# A client that owes a moment waits a little longer: to let it go on for each single message would cost more than those.
MIN_PAUSE_S = 0.01
# How often a client is asked whether it is alive, however often others ask for its address.
PROBE_PERIOD_S = 1.0
# A slow look at a long text takes as long as a message for so many bytes of it.
_BYTES_PER_COST = 256


class Session(ABC):
    """One client, from its welcome to its end. `identity` is what a token has proved, None when none is asked for.

    A shell calls `start`, then `receive` for each message, and at last `end`.
    """

    __slots__ = (
        "_asking",
        "_boxes",
        "_bytes_left",
        "_bytes_settled",
        "_center",
        "_claims",
        "_closing",
        "_deaf",
        "_farewell",
        "_has_left",
        "_hub",
        "_in_flight",
        "_messages_left",
        "_messages_settled",
        "_owner_of",
        "_probed_at",
        "_reader",
        "_refilled_at",
        "_share_ends",
        "_since",
        "addresses",
        "client",
        "client_address",
        "identity",
    )

    protocol: str

    def __init__(
        self,
        center: Center,
        client: Client,
        identity: Identity | None,
        client_address: str | None,
        address: Address | None = None,
    ) -> None:
        """`address` is the temporary one of a client that another process has served so far."""
        self.client = client
        self.client_address = client_address
        self.identity = identity
        self.addresses = [address or center.draw_address()]
        self._center = center
        self._hub = center.hub
        self._owner_of = center.hub.owner_of
        self._boxes = center.mail.boxes
        self._reader: Reader | None = None
        """Of the mailbox of its address, which it has only with a token."""
        self._claims: set[Address] | None = None
        self._closing = False
        self._deaf = False
        self._has_left = False
        """Whether another process serves the client."""
        self._asking: list[Callable[[bool], None]] = []
        """Callers that want to know whether the client is alive."""
        self._probed_at = float("-inf")
        self._in_flight = 0
        """Messages of the client of which it is not known yet what becomes of them."""
        limits = center.settings.limits
        self._messages_left: float = limits.messages_per_second
        self._share_ends = max(0.0, self._messages_left - SHARE)
        """The rest of `_messages_left` at that point."""
        """In which it had its last share."""
        self._bytes_left: float = limits.bytes_per_second
        self._messages_settled: float = self._messages_left
        self._bytes_settled: float = self._bytes_left
        """The rest of both when it was last counted."""
        self._since = self._refilled_at = center.clock()
        self._farewell: CloseReason | None = None
        center.count(client_address)
        if identity is not None:
            center.expiries[self.expired] = identity.expires
        center.hub.connect(self)

    @property
    def name(self) -> Address:
        """Under which address others know the client: its token's, the first one registered, or the temporary one."""
        if self.identity is not None:
            return self.identity.subject
        return self.addresses[0 if len(self.addresses) == 1 else 1]

    @property
    def temporary(self) -> Address:
        """Its first address, by which nobody else is ever known."""
        return self.addresses[0]

    @property
    def origin(self) -> Origin | None:
        """It is not on another host."""
        return None

    @property
    def groups(self) -> Collection[str]:
        """The groups that it is in."""
        return ()

    @property
    def watched(self) -> Collection[Address]:
        """The addresses whose owners it wants to know about."""
        return ()

    @property
    def age_s(self) -> float:
        """How long it has been connected."""
        return self._center.clock() - self._since

    @property
    def flow(self) -> object:
        """With whom the client shares its turns: see `service.core.turns`."""
        return self.client_address or self.client

    def start(self) -> None:
        """Greet the client."""
        count_up(self._hub.tally.accepted, self.protocol)
        self._greet()

    @abstractmethod
    def _greet(self) -> None: ...

    def _welcome(self) -> str:
        # Any other brace stays as it is.
        return self._center.settings.welcome.replace("{uuid}", self.addresses[0])

    @abstractmethod
    def receive(self, text: bytes) -> float:
        """Act on one text message, which is UTF-8.

        Returns: for how many seconds nothing further of the client is to be acted on, for it has sent more than it may;
            mostly 0. `NEXT_TURN`: until it is its turn. `LATER`: the same, and then with this message again.
        """

    def receive_binary(self, data: bytes) -> float:
        """Act on one binary message: it means the text that its bytes are in UTF-8."""
        try:
            data.decode()
        except UnicodeDecodeError:
            data = b""  # no message in either version
        return self.receive(data)

    def end(self, reason: CloseReason | None = None) -> None:
        """The connection is gone. Once is enough, twice does no harm.

        What the client had sent before may still be given to `receive`: what is for others goes out.
        `reason`: why the shell has closed it, if it has done so of its own accord.
        """
        if self not in self._hub.members:
            return
        self._closing = True
        self.settle()
        self._hub.tally.bytes_out += self.client.written
        self._center.deadlines.pop(self._probe, None)
        self._center.expiries.pop(self.expired, None)
        self._leave()
        if self._reader is not None:
            self._reader.end()
        self._probed(alive=False)
        self._center.events.closed(self.addresses[0], self._farewell or reason, self._center.clock() - self._since)
        self._center.uncount(self.client_address)

    def _leave(self) -> None:
        self._hub.disconnect(self)

    def close(self, reason: CloseReason) -> None:
        """Close the connection, and tell the client why. Its later messages are ignored."""
        if not self._closing:
            self._closing = self._deaf = True
            self._farewell = reason
            self._hub.tally.close(reason)
            self.client.close(reason)

    def overrun(self) -> None:
        """More than `limits.queue` waits for the client."""
        self._hub.tally.dropped[drops.SLOW_CONSUMER] += 1
        self.close(SLOW_CONSUMER)

    def abandon(self) -> None:
        self.end()
        self.client.abort()

    # Served by another process from now on, or so far

    @property
    def may_leave(self) -> bool:
        """Whether all that was begun for the client has come to an end, so that another process can serve it on."""
        return not (self._closing or self._claims or self._asking or self._in_flight)

    def leave(self) -> SessionState:
        """Serve the client no longer, without that anybody notices. Its addresses and groups are left as they are."""
        self._closing = self._deaf = self._has_left = True
        self.settle()
        self._hub.let_go(self)
        self._hub.tally.handed_over += 1
        self._hub.tally.bytes_out += self.client.written
        self._center.deadlines.pop(self._probe, None)
        self._center.expiries.pop(self.expired, None)
        box = None if self._reader is None else self._reader.leave()
        since = self._hub.bus.since
        return SessionState(
            protocol=self.protocol,
            addresses=[(address, since(address)) for address in self.addresses],
            client_address=self.client_address,
            identity=self.identity,
            began=self._since,
            messages_left=self._messages_left,
            bytes_left=self._bytes_left,
            refilled=self._refilled_at,
            box=box,
        )

    def unconfirmed(self) -> Iterable[tuple[int, Receipt, Address]]:
        return ()

    def forget_unconfirmed(self) -> None:  # noqa: B027  v0 confirms nothing
        pass

    def when_here(self, act: Callable[[], None]) -> bool:
        return False

    def go_on(self, state: SessionState, opened: Opened | None) -> None:
        """Serve a client on, which has been greeted, where another process has left it. `opened` is its mailbox."""
        self._go_on(state, opened)
        self._hub.bus.arrived(self)

    def _go_on(self, state: SessionState, opened: Opened | None) -> None:
        self._since, self._refilled_at = state.began, state.refilled
        self._messages_left = self._messages_settled = state.messages_left
        self._bytes_left = self._bytes_settled = state.bytes_left
        self._share_ends = max(0.0, self._messages_left - SHARE)
        for address, since in state.addresses[1:]:
            self._hub.adopt(self, address, since)
        store = self._center.mail.store
        if store is not None and state.box is not None:
            self._reader = self._read_on(store, state.box, opened)

    def catch_up(self, state: SessionState) -> None:  # noqa: B027  v0 watches nobody
        """Hear what has changed meanwhile. To be called when all others that came along are there as well."""

    def _read_on(self, store: Store, box: BoxState, opened: Opened | None) -> Reader | None:
        reader = Reader(store, box.box, self, 0, opened, box.sent)
        reader.look()
        return reader

    def accepts(self, proof: Proof) -> bool:
        return proof is True

    def probe(self, address: Address, proof: Proof, answered: Callable[[bool], None]) -> None:
        # A claimant can ask for the address again and again. So all of them share a probe, and the next one waits.
        self._asking.append(answered)
        if len(self._asking) > 1:
            return
        if self._center.clock() >= self._probed_at + PROBE_PERIOD_S:
            self._probe()
        else:
            self._center.deadlines[self._probe] = self._probed_at + PROBE_PERIOD_S

    def answer_probes(self) -> None:
        """Tell who asks whether the client is alive: it is read no further, and so that is known at once."""
        if self._asking:
            self._center.deadlines.pop(self._probe, None)
            self._probe()

    def _probe(self) -> None:
        self.client.probe(self._probed)

    def _probed(self, alive: bool) -> None:
        self._probed_at = self._center.clock()
        asking, self._asking = self._asking, []
        for answered in asking:
            answered(alive)

    def expired(self) -> None:
        """The token of the client has ended."""
        self.close(TOKEN_EXPIRED)

    def goaway(self, reconnect_in_ms: int, deadline_ms: int) -> None:  # noqa: B027  v0 has no such frame
        """Announce that the connection will be closed, and when it is a good time to come back."""

    @abstractmethod
    def deliver(self, message: Message) -> None: ...

    def deliver_to_member(self, message: Message, temporary: Address, receipt: Receipt | None = None) -> None:
        if receipt is not None and message.key is not None:
            try:
                self.expect(message.key, receipt, message)
            except TooManyUnconfirmedError:
                self._hub.tally.dropped[drops.UNCONFIRMED] += 1
                receipt.lose(self.name)
                return
        self.deliver(message)

    def hand_over(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        if self._closing:  # it is sent nothing any more, or not by us
            then(Reach(lost=1) if self._has_left else Reach())
            return
        receipts = 0
        if receipt is not None and message.key is not None:
            try:
                receipts = self.expect(message.key, receipt, message)
            except TooManyUnconfirmedError:
                self._hub.tally.dropped[drops.UNCONFIRMED] += 1
                then(Reach(full=1))
                return
        self.deliver(message)
        if receipts:
            then(Reach(online=1, receipts=receipts))
        else:
            self.client.when_left(lambda has_left: then(Reach(online=1) if has_left else Reach(lost=1)))

    def reach(self, group: str | None) -> int:
        return 1

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        return 0

    @abstractmethod
    def forward(self, text: bytes, sender: Named, recipient: Address) -> None: ...

    def granted(self, address: Address) -> None:
        self._settled(address)
        self._center.events.registered(self.addresses[0], address)

    def _overhear(self, address: Address) -> None:
        """The client does not know of mailboxes: if the address has one, it hears what is stored from now on."""
        store = self._center.mail.store
        if store is not None and self.identity is not None and self.identity.subject == address:
            self._reader = Reader(store, address, self, 0, None, store.latest)

    def has_mail(self, box: Address) -> None:
        if self._reader is not None:
            self._reader.look()

    @abstractmethod
    def hear(self, item: Item) -> None:
        """Send what was in the mailbox of the client."""

    def lose_mail(self) -> None:
        self.close(MAILBOX_UNAVAILABLE)

    def tell_outcome(self, outcome: Delivered | Lost) -> None:  # noqa: B027  v0 has no receipts
        """What became of a message for which the client wanted a receipt."""

    @abstractmethod
    def refused(self, address: Address) -> None: ...

    def replaced(self, address: Address) -> None:
        self.close(REPLACED)

    def displaced(self, address: Address) -> None:
        self.close(ADDRESS_IN_USE)

    def changed(self, address: Address, online: bool) -> None:  # noqa: B027  v0 watches nobody
        pass

    def _settled(self, address: Address) -> None:
        if self._claims:
            self._claims.discard(address)
            self._claims = self._claims or None  # an empty set takes 200 bytes of every client

    def _may_claim_one_more(self, address: Address) -> bool:
        claims = self._claims or ()
        known = address in self.addresses or address in claims
        return known or len(self.addresses) - 1 + len(claims) < self._center.settings.limits.registrations

    def _claim(self, address: Address, proof: Proof) -> None:
        if self._claims is None:
            self._claims = set()
        self._claims.add(address)
        self._hub.claim(self, address, proof)

    def _may_send(self, permission: str) -> bool:
        return self.identity is None or self.identity.may_send(permission)

    def spend(self, messages: float, size: int) -> float:
        """Take messages from what the client may send; the result is that of `receive`."""
        self._messages_left -= messages
        self._bytes_left -= size
        return self._pause() if self._messages_left < self._share_ends or self._bytes_left < 0 else 0.0

    def pay(self, messages: float, size: int) -> float:
        """The same for what is no message, and is not counted as one."""
        self._messages_settled -= messages
        return self.spend(messages, size)

    def settle(self) -> None:
        # The buckets also count what was sent, so counting costs a message nothing.
        if self._bytes_left == self._bytes_settled and self._messages_left == self._messages_settled:
            return  # most clients, most of the time
        tally = self._hub.tally
        tally.received += round(self._messages_settled - self._messages_left)
        tally.bytes_in += round(self._bytes_settled - self._bytes_left)
        self._messages_settled, self._bytes_settled = self._messages_left, self._bytes_left

    def owe(self, messages: float) -> None:
        """Take so much for work that is as expensive as so many messages."""
        self._messages_left -= messages
        self._messages_settled -= messages

    def give_back(self, messages: int, size: int) -> None:
        """The inverse of `spend`: an answer that we asked for costs the client nothing."""
        self._messages_left += messages
        self._bytes_left += size

    def _pause(self) -> float:
        debt = self._refill()
        self._share_ends = max(0.0, self._messages_left - SHARE)
        if debt:
            return max(debt, MIN_PAUSE_S)
        return 0.0 if self._center.turns.may_go_on() else NEXT_TURN

    def _begin_a_slow_look(self, size: int) -> None:
        """Raises: NotNowError"""
        size = min(size, MAX_ODD_BYTES)  # of what is longer, no more is looked at
        self._center.turns.begin(size // _BYTES_PER_COST)
        self.owe(self._center.settings.limits.messages_per_second * size / ODD_BYTES_PER_SECOND)

    def _refill(self) -> float:
        # A bucket holds what one second may bring. It is filled only when a share of it is used up, so that most
        # messages ask no clock: after a silence a client of a small bucket can send two of them at once, and no more.
        self.settle()
        limits, now = self._center.settings.limits, self._center.clock()
        elapsed, self._refilled_at = now - self._refilled_at, now
        messages, size = limits.messages_per_second, limits.bytes_per_second
        self._messages_left = min(messages, self._messages_left + elapsed * messages)
        self._bytes_left = min(size, self._bytes_left + elapsed * size)
        self._messages_settled, self._bytes_settled = self._messages_left, self._bytes_left
        return max(0.0, -self._messages_left / messages, -self._bytes_left / size)


class SessionV0(Session):
    """A client that has offered no subprotocol."""

    __slots__ = ()

    protocol = "v0"

    def _greet(self) -> None:
        self.client.send(self._welcome().encode())

    def receive(self, text: bytes) -> float:
        if self._deaf:
            return 0.0
        pause = self.spend(1, len(text))
        try:
            envelope = read_envelope(text)
        # ValueError: not JSON, or not our object. RecursionError: nested too deep.
        except (ValueError, RecursionError):
            try:
                odd = self._look_slowly(text)
            except NotNowError:
                self.give_back(1, len(text))
                return LATER
            pause = self.spend(0, 0) or pause
            if odd is None:
                return pause
            envelope = odd
        address = envelope.recipient_uuid
        if envelope.message == _CONNECTED:
            if not self._closing:
                self._register(address)
        elif self.identity is not None and not self.identity.may_send(address):
            self._hub.tally.dropped[drops.FORBIDDEN] += 1
        elif address in self._boxes and envelope.is_json:
            letter = Letter(address, self.name, Kind.TEXT, text)
            self._in_flight += 1
            self._center.mail.keep(letter, partial(self._kept, address, text))
        else:
            self._route(address, text)
        return pause

    def _route(self, address: Address, text: bytes) -> None:
        owner = self._owner_of(address)
        if owner is None:
            self._hub.bus.seek(text, self)
        else:
            self._hub.tally.routed += 1
            owner.forward(text, self, address)

    def _kept(self, address: Address, text: bytes, kept: Kept) -> None:
        self._in_flight -= 1
        if kept is Kept.NO_BOX:
            self._route(address, text)
        elif kept is Kept.STORED:
            self._hub.tally.routed += int(self._owner_of(address) is not None)

    def _look_slowly(self, text: bytes) -> Envelope | None:
        """The message, if it can be passed on after all. Raises: NotNowError"""
        if may_be_odd(text):
            self._begin_a_slow_look(len(text))
        try:
            check_length(text)
            return read_odd_envelope(text)
        except OddError:
            self._hub.tally.dropped[drops.UNREADABLE] += 1
        except ValueError:
            self._hub.tally.dropped[drops.PLAIN] += 1
        return None

    def _register(self, address: Address) -> None:
        if self.identity is not None and address != self.identity.subject:
            self.close(FORBIDDEN)
        elif self._may_claim_one_more(address):
            self._claim(address, self.identity is not None)
        else:
            self.close(TOO_MANY_ADDRESSES)

    def granted(self, address: Address) -> None:
        super().granted(address)
        self._overhear(address)

    def refused(self, address: Address) -> None:
        self._settled(address)
        self.close(ADDRESS_IN_USE)

    def deliver(self, message: Message) -> None:
        self.client.send(message.v0)

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        self.client.send(text)

    def hear(self, item: Item) -> None:
        if item.kind is Kind.TEXT:
            self.client.send(item.body)
        elif item.kind is Kind.JSON:
            self.deliver(Message(msgspec.Raw(item.body), item.sender, recipient=self.name))
