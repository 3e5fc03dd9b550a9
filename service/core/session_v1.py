"""nc.v1: requests with answers, receipts, presence and groups. Its frames are in `service.core.frames`.

Every request with an `id` is answered by one `ok` or one `error` with that `id`. Pure, as `service.core.session`.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from hmac import compare_digest
from typing import Any

import msgspec
from msgspec import UNSET, structs

from service.core import drops
from service.core.addresses import Address
from service.core.center import Center, Client
from service.core.close_codes import GIVEN_TWICE, MAILBOX_UNAVAILABLE, NO_HELLO, UNAUTHORIZED
from service.core.depth import bounded
from service.core.envelope import open_envelope
from service.core.frames import (
    REQUESTS,
    SUBPROTOCOL,
    Ack,
    Changed,
    Delivered,
    Failure,
    Failures,
    Goaway,
    Heading,
    Hello,
    Id,
    Join,
    Leave,
    Lost,
    Mailbox,
    Ok,
    Ping,
    Pong,
    Presence,
    ReceiptBody,
    Refresh,
    Reply,
    Send,
    Welcome,
)
from service.core.handover import BoxState, SessionState, Unconfirmed
from service.core.held import Held
from service.core.hub import Named, Origin, Owner, Proof, Reach, Receipt, TooManyUnconfirmedError
from service.core.identity import GROUP, Identity, TokenError
from service.core.mail import SHARE_OF_QUEUE, Reader
from service.core.mailbox import Item, Kept, Kind, Letter, Opened, Position, ReturnTo, Store
from service.core.message import Message
from service.core.odd_json import Disguise, OddError, check_length, find_id
from service.core.session import Session
from service.core.turns import LATER, NotNowError

# How much one client can make the service remember.
MAX_GROUPS = 64
MAX_WATCHED = 256
MAX_UNCONFIRMED = 1024

# A token or a `resume` may be a guess, and to check a token takes as long as many messages: each counts as a tenth of
# what a second allows.
GUESSES_PER_SECOND = 10
# In messages, for the turn of the loop in which it is checked.
TOKEN_COST = 64
# To look up so many addresses takes as long as a message.
ADDRESSES_OF_A_MESSAGE = 10

_heading = bounded(msgspec.json.Decoder(Heading).decode)
_receipt = msgspec.json.Decoder(ReceiptBody).decode
_decoders: dict[str, Callable[[bytes], Any]] = {
    name: msgspec.json.Decoder(request).decode for name, request in REQUESTS.items()
}


class ByAddress:
    """The sender of a message, wherever its connection is served by now: `temporary` is its first address."""

    def __init__(self, center: Center, temporary: Address, origin: Origin | None) -> None:
        self.temporary = temporary
        self.origin = origin
        self._center = center

    def tell_outcome(self, outcome: Delivered | Lost) -> None:
        if self.origin is None:
            self._center.mail.tell_outcome(self.temporary, outcome)
        else:
            self._center.hub.bus.tell_origin(self.temporary, self.origin, outcome)


class SessionV1(Session):
    """A client that speaks nc.v1."""

    __slots__ = (
        "_greeted",
        "_groups",
        "_has_box",
        "_held",
        "_hello",
        "_is_early",
        "_resume",
        "_unconfirmed",
        "_watched",
    )

    protocol = SUBPROTOCOL

    def __init__(
        self,
        center: Center,
        client: Client,
        identity: Identity | None,
        client_address: str | None,
        address: Address | None = None,
    ) -> None:
        super().__init__(center, client, identity, client_address, address)
        self._greeted = False
        self._hello: dict[Address, Hello] = {}
        """The requests that wait until their address is decided about."""
        self._has_box = False
        """Whether it has asked for its mailbox: receipts that come later are kept there."""
        self._held: Held | None = None
        """In place of the client until its mailbox is open."""
        self._resume: str | None = None
        self._groups: dict[str, None] = {}
        self._watched: dict[Address, None] = {}
        self._is_early = False
        """Whether others that have come along from another process may not be there yet."""
        self._unconfirmed: dict[int, tuple[Receipt, Address]] = {}
        center.deadlines[self._no_hello] = center.clock() + center.settings.limits.hello_timeout

    def _greet(self) -> None:
        self._say(Welcome(uuid=self.addresses[0], message=self._welcome(), server_time=self._center.now()))

    def receive(self, text: bytes) -> float:
        if self._deaf:
            return 0.0
        pause = self.spend(1, len(text))
        try:
            try:
                heading = _heading(text)
            except (ValueError, RecursionError):
                self._look_slowly(text)
            else:
                self._obey(heading, text, heading.id, None)
        except NotNowError:
            self.give_back(1, len(text))
            return LATER
        return self._pause() if self._messages_left < 0 else pause

    def _look_slowly(self, text: bytes) -> None:
        """Act on a frame that the fast decoder does not read, or refuse it with its own id, and say why."""
        self._begin_a_slow_look(len(text))
        to = find_id(text)
        try:
            check_length(text)
            disguise = Disguise(text)
            heading = disguise.read(_heading)
        except OddError as error:
            self._fail(to, Failures.BAD_REQUEST, drops.BAD_REQUEST, str(error))
        else:
            self._obey(heading, disguise.text, to, disguise)

    def _obey(self, heading: Heading, text: bytes, to: Id | msgspec.Raw | None, disguise: Disguise | None) -> None:
        """Raises: NotNowError"""
        decode = _decoders.get(heading.type)
        if decode is None:
            self._fail(to, Failures.UNKNOWN_TYPE, drops.BAD_REQUEST)
        elif not self._greeted and heading.type not in ("hello", "ping"):
            self._fail(to, Failures.UNAUTHORIZED, drops.NO_HELLO, "say hello first")
        elif not self._closing or heading.type == "send":  # of a client that has gone, the rest is for itself alone
            try:
                request = decode(text) if disguise is None else disguise.undo(decode(text))
            except (ValueError, RecursionError) as error:
                self._fail(to, Failures.BAD_REQUEST, drops.BAD_REQUEST, str(error))
            else:
                self._act(request, len(text))

    def _act(self, request: Any, size: int) -> None:
        match request:
            case Send():
                self._send(request)
            case Ack():
                self._take_ack(request, size)
            case Hello():
                self._say_hello(request)
            case Ping():
                self._say(Pong(id=UNSET if request.id is None else request.id))
            case Join():
                self._join(request)
            case Leave():
                self._leave_group(request)
            case Presence():
                self._tell_presence(request)
            case Refresh():
                self._refresh(request)

    def _say(self, reply: Reply) -> None:
        self.client.send(reply.encode())

    def _fail(self, to: Id | msgspec.Raw | None, failure: Failure, drop: str, reason: str = "") -> None:
        self._hub.tally.dropped[drop] += 1
        self._say(failure.answer(to, reason))

    @property
    def groups(self) -> Collection[str]:
        return self._groups

    @property
    def watched(self) -> Collection[Address]:
        return self._watched

    @property
    def may_leave(self) -> bool:
        is_settled = not self._hello and self._held is None
        return super().may_leave and is_settled and all(each.sender.temporary for each, _ in self._unconfirmed.values())

    def leave(self) -> SessionState:
        state = super().leave()
        hello_until = self._center.deadlines.pop(self._no_hello, None)
        self._center.deadlines.pop(self._still_here, None)
        unconfirmed = [
            Unconfirmed(key, receipt.sender.temporary, receipt.id, recipient, receipt.sender.origin)
            for key, (receipt, recipient) in self._unconfirmed.items()
            if receipt.sender.temporary
        ]
        return structs.replace(
            state,
            greeted=self._greeted,
            hello_until=hello_until,
            resume=self._resume,
            groups=list(self._groups),
            watched={address: self._owner_of(address) is not None for address in self._watched},
            unconfirmed=unconfirmed,
            has_box=self._has_box,
            receipts=self._hub.bus.open_receipts(self),
        )

    def unconfirmed(self) -> Iterable[tuple[int, Receipt, Address]]:
        return [(key, receipt, recipient) for key, (receipt, recipient) in self._unconfirmed.items()]

    def forget_unconfirmed(self) -> None:
        self._unconfirmed = {key: each for key, each in self._unconfirmed.items() if each[0].sender.origin is not None}

    def _go_on(self, state: SessionState, opened: Opened | None) -> None:
        super()._go_on(state, opened)
        self._center.deadlines.pop(self._no_hello, None)
        if state.hello_until is not None:
            self._center.deadlines[self._no_hello] = state.hello_until
        self._greeted, self._resume, self._has_box = state.greeted, state.resume, state.has_box
        for group in state.groups:
            self._groups[group] = None
            self._hub.join(self, group)
        self._is_early = True
        for address in state.watched:
            self._watched[address] = None
            self._hub.watch(self, address)
        for each in state.unconfirmed:
            receipt = Receipt(ByAddress(self._center, each.sender, each.origin), each.id)
            self._unconfirmed[each.key] = (receipt, each.recipient)
        self._hub.bus.hold_receipts(self, state.receipts)

    def catch_up(self, state: SessionState) -> None:
        super().catch_up(state)
        self._is_early = False
        for address, was_online in state.watched.items():
            is_online = self._owner_of(address) is not None
            if is_online != was_online and address in self._watched:
                self.changed(address, is_online)

    def _read_on(self, store: Store, box: BoxState, opened: Opened | None) -> Reader | None:
        if opened is None or box.opened is None:
            return super()._read_on(store, box, None)
        if opened.epoch != box.opened.epoch:
            self.lose_mail()
            return None
        self._center.deadlines[self._still_here] = self._center.clock() + self._touch_period_s
        reader = Reader(store, box.box, self, round(self._center.settings.limits.queue * SHARE_OF_QUEUE), opened)
        reader.go_on(box)
        reader.look()
        return reader

    # Who the client is

    def _say_hello(self, request: Hello) -> None:
        if request.token is not None and not self._prove(request.id, request.token):
            return
        if self.identity is None and self._center.settings.auth == "token":
            self.close(UNAUTHORIZED)
            return
        address = request.uuid or self.addresses[0]
        if self.identity is not None and request.uuid not in (None, self.identity.subject):
            self._fail(request.id, Failures.FORBIDDEN, drops.FORBIDDEN, "the token is for another address")
        elif not self._may_claim_one_more(address):
            self._fail(request.id, Failures.LIMIT, drops.LIMIT, "too many addresses")
        elif address in self._hello:
            self._fail(
                request.id, Failures.BAD_REQUEST, drops.BAD_REQUEST, "an earlier hello asks for this address already"
            )
        else:
            self._hello[address] = request
            if request.resume is not None:
                self._pay_for_a_guess()
            self._claim(address, self.identity is not None or request.resume or False)

    def _pay_for_a_guess(self) -> None:
        self.owe(self._center.settings.limits.messages_per_second / GUESSES_PER_SECOND)

    def _prove(self, to: Id, token: str) -> bool:
        self._center.turns.begin(TOKEN_COST)
        self._pay_for_a_guess()
        try:
            identity = self._center.verify(token)
        except TokenError as error:
            failure = Failures.TOKEN_EXPIRED if error.expired else Failures.UNAUTHORIZED
            self._fail(to, failure, drops.FORBIDDEN, str(error))
            return False
        if self.identity is not None and identity.subject != self.identity.subject:
            self._fail(to, Failures.FORBIDDEN, drops.FORBIDDEN, "the token is for another address")
            return False
        if self.identity is not None and (what := self._has_beyond(identity)) is not None:
            reason = f"the token does not allow {what}, which the client is in or watches"
            self._fail(to, Failures.FORBIDDEN, drops.FORBIDDEN, reason)
            return False
        self.identity = identity
        if self._greeted:
            self._center.expiries[self.expired] = identity.expires
        return True

    def _has_beyond(self, identity: Identity) -> str | None:
        """A group that the client is in, or an address that it watches, which it may not with this token: it ends with
        the token that allowed it.
        """
        allowed_before = (*(GROUP + group for group in self._groups), *self._watched)
        return next((each for each in allowed_before if not identity.may_send(each)), None)

    def accepts(self, proof: Proof) -> bool:
        if isinstance(proof, bool) or self._resume is None:
            return super().accepts(proof)
        return compare_digest(proof.encode(), self._resume.encode())

    def granted(self, address: Address) -> None:
        super().granted(address)
        hello = self._hello.pop(address)
        to, wanted = hello.id, hello.mailbox
        self._greeted = True
        self._center.deadlines.pop(self._no_hello, None)
        if self.identity is not None:
            self._center.expiries[self.expired] = self.identity.expires
        if self._resume is None:
            self._resume = self._center.draw_secret()
        store = self._center.mail.store
        has_proof = self.identity is not None and self.identity.subject == address
        if wanted is None or store is None or not has_proof:
            if self._reader is None:
                self._overhear(address)
            self._say_ok(to, address)
        elif self._held is not None:
            self._fail(to, Failures.BAD_REQUEST, drops.BAD_REQUEST, "the mailbox is being opened already")
        else:
            if self._reader is not None:
                self._reader.end()
            self.client = self._held = Held(self.client, self._center.settings.limits.queue, self.overrun)
            self._has_box = True
            position = None if wanted.epoch is None else Position(wanted.epoch, wanted.after or 0)
            store.open(address, position, partial(self._open, to, address, store))

    def _open(self, to: Id, address: Address, store: Store, opened: Opened | None) -> None:
        held, self._held = self._held, None
        if held is None or self._closing:
            return
        self.client = held.client
        if opened is None:
            held.drop()
            self.close(MAILBOX_UNAVAILABLE)
            return
        size = round(self._center.settings.limits.queue * SHARE_OF_QUEUE)
        self._reader = Reader(store, address, self, size, opened)
        self._say_ok(to, address, opened)
        held.release()
        self._center.mail.opened(address)
        self._center.deadlines[self._still_here] = self._center.clock() + self._touch_period_s
        self._reader.look()

    @property
    def _touch_period_s(self) -> float:
        return self._center.settings.mailbox.ttl / 4

    def _still_here(self) -> None:
        if self._reader is not None:
            self._reader.touch()
            self._center.deadlines[self._still_here] = self._center.clock() + self._touch_period_s

    def _say_ok(self, to: Id, address: Address, opened: Opened | None = None) -> None:
        settings = self._center.settings
        limits = settings.limits
        self._say(
            Ok(
                id=to,
                uuid=address,
                resume=UNSET if self._resume is None else self._resume,
                ping_ms=round(settings.ping.interval * 1000),
                limits={
                    "message_size": limits.message_size,
                    "messages_per_second": limits.messages_per_second,
                    "bytes_per_second": limits.bytes_per_second,
                    "registrations": limits.registrations,
                },
                expires=UNSET if self.identity is None else self.identity.expires,
                mailbox=UNSET if opened is None else _as_found(opened),
            )
        )

    def refused(self, address: Address) -> None:
        self._settled(address)
        self._fail(self._hello.pop(address).id, Failures.IN_USE, drops.ADDRESS_TAKEN)

    def displaced(self, address: Address) -> None:
        self.close(GIVEN_TWICE)  # it has heard `ok`: the address was its own

    def _no_hello(self) -> None:
        self.close(NO_HELLO)

    def _refresh(self, request: Refresh) -> None:
        if self.identity is None:
            self._fail(request.id, Failures.BAD_REQUEST, drops.BAD_REQUEST, "there is no token to refresh")
        elif self._prove(request.id, request.token):
            self._say(Ok(id=request.id, expires=self.identity.expires))

    # Its requests

    def _send(self, request: Send) -> None:
        to, group, address = request.id, request.group, request.recipient_uuid
        if (group is None) == (address is None):
            self._refuse(to, Failures.BAD_REQUEST, drops.BAD_REQUEST, "give one of recipient_uuid and group")
        elif not self._may_send(address or GROUP + str(group)):
            self._refuse(to, Failures.FORBIDDEN, drops.FORBIDDEN)
        elif address is not None:
            self._send_to_one(request, self._owner_of(address))
        else:
            recipients = [member for member in self._hub.members_of(str(group)) if member is not self]
            reached = sum([member.reach(group) for member in recipients])
            most = self._center.settings.limits.messages_per_second
            if reached > most:
                reason = f"{reached} recipients; {most} messages per second are allowed"
                self._refuse(to, Failures.LIMIT, drops.LIMIT, reason)
            else:
                self._center.turns.begin(reached)
                self.owe(max(0, reached - 1))
                self._send_to_group(request, recipients)

    def _message(self, request: Send) -> tuple[Message, Receipt | None]:
        """The message to pass on, and the receipt for it, if one is wanted."""
        to = request.id
        receipt = Receipt(self, to) if request.ack == "delivered" and to is not None else None
        key = None if receipt is None else self._center.next_key()
        message = Message(request.message, self.name, recipient=request.recipient_uuid, group=request.group, key=key)
        return message, receipt

    def _send_to_one(self, request: Send, owner: Owner | None) -> None:
        if request.recipient_uuid in self._boxes:
            self._keep(request, request.recipient_uuid)
        else:
            self._hand_to_owner(request, owner)

    def _keep(self, request: Send, box: Address) -> None:
        return_to = None
        if request.ack == "delivered" and request.id is not None:
            return_to = ReturnTo(self.name if self._has_box else self.addresses[0], request.id, self._has_box)
        letter = Letter(box, self.name, Kind.JSON, bytes(request.message), return_to, request.dedup)
        self._in_flight += 1
        self._center.mail.keep(letter, partial(self._kept, request))

    def _kept(self, request: Send, kept: Kept) -> None:
        self._in_flight -= 1
        address = request.recipient_uuid
        assert address is not None
        if kept.is_stored:
            online = int(self._owner_of(address) is not None)
            self._hub.tally.routed += online if kept is Kept.STORED else 0
            receipts = int(kept is not Kept.AGAIN)
            self._answer_send(request, online, receipts, stored=True)
        elif kept is Kept.NO_BOX:
            self._hand_to_owner(request, self._owner_of(address))
        elif request.id is None:
            return
        elif kept is Kept.UNSURE:
            self._say(Failures.GONE.answer(request.id, "the mailbox has not confirmed it"))
        else:
            reason = "" if kept is Kept.FULL else "the mailbox cannot be written now"
            self._say(Failures.MAILBOX_FULL.answer(request.id, reason))

    def _hand_to_owner(self, request: Send, owner: Owner | None) -> None:
        self._in_flight += 1
        message, receipt = self._message(request)
        then = partial(self._reached, request)
        if owner is None:
            self._hub.bus.seek_to_deliver(message, receipt, then)
        elif request.id is not None and request.ack != "none":
            owner.hand_over(message, receipt, then)
        else:
            then(Reach(online=owner.reach(None)))
            owner.deliver(message)

    def _reached(self, request: Send, reach: Reach) -> None:
        self._in_flight -= 1
        self._hub.tally.routed += reach.online
        if reach.online:
            self._answer_send(request, reach.online, reach.receipts)
        elif reach.full:
            self._say(Failures.QUEUE_FULL.answer(request.id))
        elif reach.lost:
            self._refuse(request.id, Failures.GONE, drops.GONE)
        elif self._hub.bus.is_cut_off:
            self._refuse(request.id, Failures.CUT_OFF, drops.CUT_OFF)
        else:
            self._refuse(request.id, Failures.NOBODY, drops.NOBODY)

    def _send_to_group(self, request: Send, recipients: Iterable[Owner]) -> None:
        message, receipt = self._message(request)
        online = receipts = full = 0
        for recipient in recipients:
            if receipt is not None and message.key is not None:
                try:
                    receipts += recipient.expect(message.key, receipt, message)
                except TooManyUnconfirmedError:
                    full += 1
                    continue
            online += recipient.reach(message.group)  # before it is delivered: that may fill a queue
            recipient.deliver(message)
        self._hub.tally.dropped[drops.UNCONFIRMED] += full
        self._hub.tally.routed += online
        if full and not online:
            self._say(Failures.QUEUE_FULL.answer(request.id))
        else:
            self._answer_send(request, online, receipts)

    def _answer_send(self, request: Send, online: int, receipts: int, stored: bool = False) -> None:
        if request.id is not None and request.ack != "none":
            counted = receipts if request.ack == "delivered" else UNSET
            self._say(Ok(id=request.id, online=online, receipts=counted, stored=stored or UNSET))

    def _refuse(self, to: Id | None, failure: Failure, drop: str, reason: str = "") -> None:
        # A request without an id wants no answer, as in v0.
        if to is None:
            self._hub.tally.dropped[drop] += 1
        else:
            self._fail(to, failure, drop, reason)

    # What it receives

    def deliver(self, message: Message) -> None:
        self.client.send(message.v1)

    def forward(self, text: bytes, sender: Named, recipient: Address) -> None:
        envelope = open_envelope(text)
        if envelope.is_json:
            self.deliver(Message(envelope.message, sender.name, recipient=envelope.recipient_uuid))
        else:
            self._hub.tally.dropped[drops.UNREADABLE] += 1

    def hear(self, item: Item) -> None:
        offset = None if self._reader is None or not self._reader.is_open else item.offset
        if item.kind is Kind.RECEIPT:
            if offset is not None:
                receipt = _receipt(item.body)
                kind = Delivered if receipt.is_delivered else Lost
                self._say(kind(id=receipt.id, recipient_uuid=item.sender, offset=offset))
            return
        body = msgspec.Raw(item.body) if item.kind is Kind.JSON else open_envelope(item.body).message
        self.deliver(Message(body, item.sender, recipient=self.name, offset=offset))

    def expect(self, key: int, receipt: Receipt, message: Message) -> int:
        if len(self._unconfirmed) >= MAX_UNCONFIRMED:
            raise TooManyUnconfirmedError
        self._unconfirmed[key] = (receipt, message.recipient or self.name)
        return 1

    def _take_ack(self, request: Ack, size: int) -> None:
        if request.key is not UNSET:
            self._confirm(request.key, size)
        elif request.offset is not UNSET and self._reader is not None and self._reader.acknowledge(request.offset):
            self.give_back(1, size)  # the service has asked for it

    def _confirm(self, key: int, size: int) -> None:
        noted = self._unconfirmed.pop(key, None)
        if noted is not None:
            self.give_back(1, size)  # others have asked for it
            receipt, address = noted
            receipt.sender.tell_outcome(Delivered(id=receipt.id, recipient_uuid=address))

    def tell_outcome(self, outcome: Delivered | Lost) -> None:
        if self._has_left:
            self._center.mail.tell_outcome(self.temporary, outcome)
        elif not self._closing:
            self._say(outcome)

    def goaway(self, reconnect_in_ms: int, deadline_ms: int) -> None:
        self._say(Goaway(reconnect_in_ms=reconnect_in_ms, deadline_ms=deadline_ms))

    # Whom it knows

    def _join(self, request: Join) -> None:
        if not self._may_send(GROUP + request.group):
            self._fail(request.id, Failures.FORBIDDEN, drops.FORBIDDEN)
        elif request.group not in self._groups and len(self._groups) >= MAX_GROUPS:
            self._fail(request.id, Failures.LIMIT, drops.LIMIT, "too many groups")
        else:
            self._groups[request.group] = None
            self._hub.join(self, request.group)
            self._say(Ok(id=request.id))

    def _leave_group(self, request: Leave) -> None:
        if request.group in self._groups:
            del self._groups[request.group]
            self._hub.leave(self, request.group)
        self._say(Ok(id=request.id))

    def _tell_presence(self, request: Presence) -> None:
        self.owe(len(request.uuids) // ADDRESSES_OF_A_MESSAGE)
        new = set(request.uuids) - self._watched.keys()
        if not all(map(self._may_send, request.uuids)):
            self._fail(request.id, Failures.FORBIDDEN, drops.FORBIDDEN)
            return
        if request.watch and len(self._watched) + len(new) > MAX_WATCHED:
            self._fail(request.id, Failures.LIMIT, drops.LIMIT, "too many watched addresses")
            return
        for address in request.uuids:
            if request.watch and address not in self._watched:
                self._watched[address] = None
                self._hub.watch(self, address)
            elif request.watch is False and address in self._watched:
                del self._watched[address]
                self._hub.unwatch(self, address)
        online = [address for address in request.uuids if self._owner_of(address) is not None]
        self._say(Ok(id=request.id, online=online))

    def changed(self, address: Address, online: bool) -> None:
        if not self._is_early:
            self._say(Changed(uuid=address, state="online" if online else "offline"))

    def _leave(self) -> None:
        self._center.deadlines.pop(self._no_hello, None)
        self._center.deadlines.pop(self._still_here, None)
        if self._held is not None:
            self._held.drop()
        self._hub.disconnect(self, self._groups, self._watched)
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for receipt, address in unconfirmed.values():
            receipt.lose(address)


def _as_found(opened: Opened) -> Mailbox:
    lost_to = UNSET if opened.is_whole else opened.lost_to
    return Mailbox(epoch=opened.epoch, after=opened.after, last=opened.last, whole=opened.is_whole, lost_to=lost_to)
