"""A message from a script: `POST /publish/ADDRESS` or `POST /publish/group:NAME`, with a token that allows it.

Pure: a shell asks `Publisher.admit` before it reads the body, and `Publisher.publish` with it.
Source of `Idempotency-Key`: draft-ietf-httpapi-idempotency-key-header; of `WWW-Authenticate`: RFC 6750, section 3; of
415: RFC 9110, section 15.5.16.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import ceil
from typing import NamedTuple

import msgspec

from service.core import drops
from service.core.addresses import MAX_ADDRESS_LENGTH, Address
from service.core.center import Center
from service.core.hub import Reach, TellReach
from service.core.identity import GROUP, TokenError, bearer_tokens
from service.core.mailbox import Kept, Kind, Letter
from service.core.message import Message
from service.core.odd_json import OddError, read_json
from service.core.plain_http import DRAINING, Answer, respond, say
from service.core.tally import count_up
from service.core.turns import NotNowError
from service.web.remembered import REMEMBERED_S, Outcome, Remembered

PREFIX = "/publish/"

# Whoever is forgotten begins with a full bucket, which a second of silence brings as well.
MAX_BUCKETS = 10_000

# The rest of the body is not read, so that the connection cannot serve another request.
_CLOSE = ("connection", "close")

METHOD_NOT_ALLOWED = say(405, "Publish with POST\n", ("allow", "POST"))
TOO_SLOW = say(408, "The body did not come in time\n", _CLOSE)
TOO_LARGE = say(413, "The message is longer than limits.message_size\n", _CLOSE)
# Any of them would be passed on as it is, in words that nobody has sent.
_COMPRESSED = say(415, "The body is compressed; send it as it is\n", ("accept-encoding", "identity"))
_FORM_OF_PARTS = say(415, "A form of several parts is not a message; send the text, or JSON, alone\n")
_NOT_LIKE_ASCII = say(415, "The body must be in UTF-8\n")
# How long a script waits to hear whether its message has left. nginx gives the service longer, as it may be restarting.
PATIENCE_S = 3.0
NOT_LEFT_YET = say(
    503, "The recipient, or its mailbox, takes it too slowly; it may still arrive\n", ("retry-after", "3")
)
_UNDER_WAY = say(409, "This Idempotency-Key is just being published\n", ("retry-after", "1"))
_ANOTHER_MESSAGE = say(422, "This Idempotency-Key belongs to another message\n")
# RFC 4918, section 11.5: the server cannot store what is needed to complete the request.
_MAILBOX_FULL = say(507, "The mailbox of the recipient is full\n", ("retry-after", "60"))
_MAILBOX_UNAVAILABLE = say(507, "The mailbox of the recipient cannot be written now\n", ("retry-after", "3"))
_MAILBOX_UNSURE = say(507, "The mailbox of the recipient has not confirmed it; it may arrive\n", ("retry-after", "3"))
_RECIPIENT_LOST = say(503, "The recipient was lost; the message may have arrived\n", ("retry-after", "1"))
_REFUSALS = {Kept.FULL: _MAILBOX_FULL, Kept.FAILED: _MAILBOX_UNAVAILABLE, Kept.UNSURE: _MAILBOX_UNSURE}
_CUT_OFF = say(503, "Other hosts cannot be reached now\n", ("retry-after", "1"))
_DROPS = {
    **dict.fromkeys((400, 408, 415, 422), drops.BAD_REQUEST),
    **dict.fromkeys((401, 403), drops.FORBIDDEN),
    **dict.fromkeys((413, 429), drops.LIMIT),
}
_KEY = re.compile("[!-~]{1,128}")
# Those in which a text of ASCII has other bytes: in all others it is the same, whatever a library writes there.
_WIDE = re.compile(r"""charset\s*=\s*["']?(utf-?(16|32|7)|ucs-?[24])""")


class Request(NamedTuple):
    """The head of a request. `path` is decoded; `fields` has the values of each header field by its lower-case name."""

    method: str
    path: str
    fields: Mapping[str, Sequence[str]]

    def values(self, name: str) -> Sequence[str]:
        """All values of a header field."""
        return self.fields.get(name, ())

    def value(self, name: str) -> str:
        """The last value of a header field; nothing where there is none."""
        return next(reversed(self.values(name)), "")

    @property
    def length(self) -> int | None:
        """The length of the body, where the head says it."""
        said = self.value("content-length")
        return int(said.lstrip("0") or 0) if said else None  # `int` reads no more than 4300 digits, zeros or not


@dataclass(slots=True)
class Bucket:
    """What a token may still send at `filled_at`; below zero, what it has sent in advance."""

    messages: float
    size: float
    filled_at: float


class Permit(NamedTuple):
    """A publication that goes out when its body is there. `target` is an address, or a group behind `group:`."""

    sender: Address
    target: str
    is_json: bool
    key: str


class Publisher:
    """Who may publish, how fast, and what has become of it."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._buckets: OrderedDict[Address, Bucket] = OrderedDict()
        self._remembered = Remembered()

    def admit(self, request: Request) -> Permit | Answer:
        """Let a publication in, or say why not, before its body is read."""
        center, target = self._center, request.path.removeprefix(PREFIX)
        if request.method != "POST":
            return METHOD_NOT_ALLOWED
        if center.draining:
            return DRAINING
        tokens = bearer_tokens(request.values("authorization"))
        if len(tokens) != 1:
            return _unauthorized("One token is needed: Authorization: Bearer TOKEN")
        try:
            identity = center.verify(tokens[0])
        except TokenError as error:
            return _unauthorized(str(error))
        keys = request.values("idempotency-key")
        # Servers read each byte of a path that is not UTF-8 as U+FFFD: different addresses would become one.
        if not 1 <= len(target.removeprefix(GROUP)) <= MAX_ADDRESS_LENGTH or "\ufffd" in target:
            return say(400, f"An address has 1 to {MAX_ADDRESS_LENGTH} characters, in UTF-8\n")
        if len(keys) > 1 or not all(map(_KEY.fullmatch, keys)):
            return say(400, "An Idempotency-Key has 1 to 128 visible ASCII characters\n")
        if not identity.may_send(target):
            return say(403, "The token does not allow to send there\n")
        if refusal := self._unfit(request) or self._too_much(self._bucket(identity.subject)):
            return refusal
        media_type = request.value("content-type").partition(";")[0].strip().lower()
        return Permit(identity.subject, target, media_type == "application/json", "".join(keys))

    def publish(self, permit: Permit, body: bytes, then: Callable[[Answer], None]) -> None:
        """Send a publication to whoever is there; what has the key of an earlier one is not sent again.

        `then` takes the answer: at once, or when the other workers have said whether they know the address.
        """
        bucket = self._bucket(permit.sender)
        # Again: many may have been admitted before the first of their bodies came.
        if refusal := self._too_much(bucket):
            then(refusal)
            return
        bucket.messages -= 1
        bucket.size -= len(body)
        fingerprint = sha256(b"%d %s\n%s" % (permit.is_json, permit.target.encode(), body)).digest()
        earlier = self._remembered.get(permit.sender, permit.key, self._center.clock())
        if earlier is not None:
            then(earlier.answer if earlier.fingerprint == fingerprint else _ANOTHER_MESSAGE)
            return
        message = self._message(permit, body)
        if isinstance(message, Answer):
            then(message)
            return
        if refusal := self._pay_for_group(message, bucket):
            then(refusal)
            return
        outcome = Outcome(fingerprint, self._center.clock() + REMEMBERED_S, _UNDER_WAY)
        if permit.key:
            self._remembered.put(permit.sender, permit.key, outcome)

        deliver = partial(self._deliver, message, lambda reach: then(self._answer(permit, message, outcome, reach)))
        if message.recipient in self._center.mail.boxes:
            # The store knows no fingerprints: the same key of another message, also over a WebSocket, is another one.
            dedup = f"{permit.key} {fingerprint.hex()}" if permit.key else None
            letter = Letter(message.recipient, permit.sender, Kind.JSON, bytes(message.body), dedup=dedup)
            self._center.mail.keep(letter, partial(self._kept, permit, outcome, then, deliver))
        else:
            deliver()

    def _answer(self, permit: Permit, message: Message, outcome: Outcome, reach: Reach) -> Answer:
        """What became of a publication that went out."""
        bus, tally = self._center.hub.bus, self._center.hub.tally
        tally.routed += reach.online
        refusal = None
        if reach.lost and not reach.online:
            tally.dropped[drops.GONE] += 1
            refusal = _RECIPIENT_LOST
        elif message.group is None and not reach.online:
            tally.dropped[bus.nobody] += 1
            refusal = _CUT_OFF if bus.is_cut_off else None
        if refusal is not None:
            self._remembered.forget(permit.sender, permit.key)  # what is tried again is sent again
            return refusal
        outcome.answer = respond(201 if reach.online else 202, "application/json", b'{"online": %d}' % reach.online)
        return outcome.answer

    def _kept(
        self,
        permit: Permit,
        outcome: Outcome,
        then: Callable[[Answer], None],
        deliver: Callable[[], None],
        kept: Kept,
    ) -> None:
        if kept is Kept.NO_BOX:
            deliver()
        elif kept.is_stored:
            online = int(self._center.mail.is_online(Address(permit.target)))
            self._center.hub.tally.routed += online if kept is Kept.STORED else 0
            body = b'{"online": %d, "stored": true}' % online
            outcome.answer = respond(201 if online else 202, "application/json", body)
            then(outcome.answer)
        else:
            self._remembered.forget(permit.sender, permit.key)
            then(_REFUSALS[kept])

    def count(self, answer: Answer) -> None:
        """Add the answer that a request got to the tally."""
        tally = self._center.hub.tally
        count_up(tally.published, answer.status)
        if answer.status in _DROPS:
            tally.dropped[_DROPS[answer.status]] += 1

    def _message(self, permit: Permit, body: bytes) -> Message | Answer:
        """What is sent, or why nothing is."""
        try:
            text = body.decode()
            content = read_json(body) if permit.is_json else msgspec.Raw(msgspec.json.encode(text))
        except UnicodeDecodeError:
            return say(400, "The body is not UTF-8\n")
        except OddError as error:
            return say(400, f"The body is not JSON that can be passed on: {error}\n")
        # As a string of JSON a text is longer than it was.
        if memoryview(content).nbytes > self._center.settings.limits.message_size:
            return TOO_LARGE
        if permit.target.startswith(GROUP):
            return Message(content, permit.sender, group=permit.target.removeprefix(GROUP))
        return Message(content, permit.sender, recipient=Address(permit.target))

    def _pay_for_group(self, message: Message, bucket: Bucket) -> Answer | None:
        """Take what a message to a group costs beyond one to an address; the same limit as that of a WebSocket."""
        if message.group is None:
            return None
        recipients, most = self._reach(message.group), self._center.settings.limits.messages_per_second
        if recipients > most:
            return say(429, f"The group has {recipients} members; limits.messages_per_second allows {most}\n")
        bucket.messages -= max(0, recipients - 1)
        return None

    def _reach(self, group: str) -> int:
        return sum(recipient.reach(group) for recipient in self._center.hub.members_of(group))

    def _deliver(self, message: Message, then: TellReach) -> None:
        hub = self._center.hub
        if message.recipient is not None:
            owner = hub.owner_of(message.recipient)
            if owner is None:
                hub.bus.seek_to_deliver(message, None, then)
            else:
                owner.hand_over(message, None, then)
            return
        online = self._reach(str(message.group))
        try:
            self._center.turns.begin(online)
        except NotNowError:
            self._center.turns.wait(message.sender, lambda: self._deliver(message, then))
            return
        for recipient in hub.members_of(str(message.group)):
            recipient.deliver(message)
        then(Reach(online=online))

    def _bucket(self, sender: Address) -> Bucket:
        limits, now = self._center.settings.limits, self._center.clock()
        messages, size = limits.messages_per_second, limits.bytes_per_second
        bucket = self._buckets.setdefault(sender, Bucket(messages, size, now))
        self._buckets.move_to_end(sender)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        elapsed, bucket.filled_at = now - bucket.filled_at, now
        bucket.messages = min(messages, bucket.messages + elapsed * messages)
        bucket.size = min(size, bucket.size + elapsed * size)
        return bucket

    def _unfit(self, request: Request) -> Answer | None:
        """Why the body of a request cannot be a message, as far as its head says so."""
        is_too_large = (request.length or 0) > self._center.settings.limits.message_size
        return TOO_LARGE if is_too_large else _disguised(request)

    def _too_much(self, bucket: Bucket) -> Answer | None:
        """Why nothing may be taken from a bucket, and for how long; None when something may."""
        limits = self._center.settings.limits
        wait_s = max((1 - bucket.messages) / limits.messages_per_second, -bucket.size / limits.bytes_per_second)
        if wait_s <= 0:
            return None
        return say(429, "The token has published too much\n", ("retry-after", str(ceil(wait_s))))


def _disguised(request: Request) -> Answer | None:
    """Why the body is not the message itself, although its bytes may look like one; None when it is."""
    content_type = request.value("content-type").lower()
    if _codings(request, "content-encoding") - {"identity"} or _codings(request, "transfer-encoding") - {"chunked"}:
        return _COMPRESSED
    if content_type.startswith("multipart/"):
        return _FORM_OF_PARTS
    return _NOT_LIKE_ASCII if _WIDE.search(content_type) else None


def _codings(request: Request, name: str) -> set[str]:
    members = ",".join(request.values(name)).lower().split(",")
    return {coding for member in members if (coding := member.strip())}


def _unauthorized(what: str) -> Answer:
    return say(401, f"{what}\n", ("www-authenticate", "Bearer"))
