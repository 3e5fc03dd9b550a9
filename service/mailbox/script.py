"""What the engine does with the mailboxes of all hosts: the rules of `service.mailbox.ledger`, as a script that runs
there, `mailboxes`, so that no two workers are ever in each other's way. Here are its text, its words, and how its
answers are read.

Below `nc:1:NAME:` are `state`, a hash for all; `box:ADDRESS`, a hash for each mailbox; `mail:ADDRESS`, a stream with
what is in it, where an item with offset N is entry N-0; `old`, the mailboxes that hold something, by the age of the
first; `idle`, those that hold nothing, by when the owner was there; and `once:KEY`, what was sent
lately, and to which mailbox a receipt of it is to go.
"""

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any, NamedTuple

import msgspec

from service.core.addresses import Address
from service.core.frames import Id
from service.core.mailbox import Item, Kept, Kind, Letter, Opened, Page, Position, ReturnTo, Settled
from service.mailbox.copies import Box, Stored
from service.mailbox.history import new_epoch
from service.mailbox.ledger import DEDUP_S, OVERHEAD, SECOND, SWEEP, UNTOLD_TTLS
from service.mailbox.mailboxes import TEXT
from service.settings import Engine, Mailbox

# Of what is stored. A release that does not know it refuses to touch it.
VERSION = 1
# What is read of a box at once, in bytes, if it is more than one message.
PAGE = 65_536
_NUMBERS = {
    "ONCE": DEDUP_S * SECOND,
    "OVERHEAD": OVERHEAD,
    "PAGE": PAGE,
    "SWEEP": SWEEP,
    "UNTOLD": UNTOLD_TTLS,
    "VERSION": VERSION,
}
_BODY = "".join(f"local {name} = {number}\n" for name, number in _NUMBERS.items()) + TEXT
# An engine that is full stores nothing more, and does all else: what is fetched makes room.
STORING = f"#!lua\n{_BODY}".encode()
WORKING = f"#!lua flags=allow-oom\n{_BODY}".encode()
# By the name that the engine gives them. Source: SCRIPT LOAD of valkey.io.
SHA = {True: sha1(STORING).hexdigest().encode(), False: sha1(WORKING).hexdigest().encode()}

_encode = msgspec.json.Encoder().encode
_id = msgspec.json.Decoder(Id).decode


class Call(NamedTuple):
    """Something that the script is to do: its words, and how to read what it answers."""

    words: tuple[bytes, ...]
    read: Callable[[Any], Any]
    is_storing: bool = False


def prefix(engine: Engine) -> bytes:
    """Of the keys of a center."""
    return f"nc:1:{engine.name or 'center'}:".encode()


def keep(letter: Letter) -> Call:
    once = awaited = b""
    if letter.dedup is not None:
        # What was told to be stored in one mailbox is not stored in another one: a key is one of sender and recipient.
        once = _encode((letter.sender, letter.box, letter.dedup))
        if letter.return_to is not None and letter.return_to.has_box:
            awaited = _encode((letter.sender, letter.box, letter.dedup, *letter.return_to))
    back = _written(letter.return_to)
    words = (letter.box.encode(), letter.sender.encode(), b"%d" % letter.kind, letter.body, back, once, awaited)
    return Call((b"keep", *words), Kept, is_storing=True)


def _written(to: ReturnTo | None) -> bytes:
    if to is None:
        return b""
    address = to.address.encode()
    return b"%d%d:%b%b" % (to.has_box, len(address), address, _encode(to.id))


def _read(back: bytes) -> ReturnTo | None:
    if not back:
        return None
    length, _, rest = back[1:].partition(b":")
    at = int(length)
    return ReturnTo(Address(rest[:at].decode()), _id(rest[at:]), back[:1] == b"1")


def open_box(name: Address, position: Position | None) -> Call:
    """Its answer lacks the epoch, which is that of the whole answer."""
    epoch, after = (b"", 0) if position is None else (position.epoch.encode() or b"?", position.after)

    def read(said: list[Any]) -> Opened:
        reader, at, last, is_whole, lost_to = map(int, said)
        return Opened("", reader, at, last, bool(is_whole), lost_to)

    return Call((b"open", name.encode(), epoch, b"%d" % after), read)


def acknowledge(name: Address, reader: int, offset: int) -> Call:
    return Call((b"acknowledge", name.encode(), b"%d" % reader, b"%d" % offset), _nothing)


def touch(name: Address) -> Call:
    return Call((b"touch", name.encode()), _nothing)


def sweep() -> Call:
    return Call((b"sweep",), _nothing)


def read_box(name: Address, after: int, most: int, size: int) -> Call:
    def read(said: list[Any]) -> Page:
        has_more, items, lost_to = said
        found = [Item(int(at), Kind(int(kind)), Address(sender.decode()), body) for at, kind, sender, body in items]
        return Page(found, bool(has_more), int(lost_to))

    return Call((b"read", name.encode(), b"%d" % after, b"%d" % most, b"%d" % size), read)


def list_boxes() -> Call:
    return Call((b"list",), lambda said: [Address(name.decode()) for names in said for name in names])


def try_all() -> Call:
    """To be the first of a worker, before it begins."""
    return Call((b"try",), _nothing)


def begin(run: str, is_lossy: bool, fresh: str, mine: tuple[str, str, int]) -> Call:
    """`mine` is the run, the epoch and the last offset that this worker knows of."""
    words = (run, str(int(is_lossy)), fresh, *map(str, mine))
    return Call((b"begin", *(word.encode() for word in words)), bytes.decode)


def try_to_store() -> Call:
    """To be refused as long as nothing can be stored."""
    return Call((b"touch", b""), _nothing, is_storing=True)


def show(most: int) -> Call:
    return Call((b"show", b"%d" % (most - 1)), lambda said: said)


def show_one(name: str) -> Call:
    return Call((b"show_one", name.encode()), lambda said: said)


# Copies. What is there is read key by key, and only this module knows which they are.


def box_fields(prefix: bytes, name: Address) -> tuple[bytes, ...]:
    """The command whose answer `box_of` reads."""
    return (b"HMGET", prefix + b"box:" + name.encode(), b"acked", b"lost", b"seen", b"reader")


def box_of(name: Address, said: list[bytes | None]) -> Box | None:
    """None when it has gone meanwhile."""
    numbers = [int(each) for each in said if each is not None]
    return Box(name, *numbers) if len(numbers) == len(said) else None


def letters_after(prefix: bytes, name: Address, after: int, most: int) -> tuple[bytes, ...]:
    """The command whose answer `letters_of` reads: so many of what is in a mailbox."""
    return (b"XRANGE", prefix + b"mail:" + name.encode(), b"(%d-0" % after, b"+", b"COUNT", b"%d" % most)


def letters_of(said: list[tuple[bytes, list[bytes]]]) -> list[Stored]:
    def stored(at: bytes, fields: list[bytes]) -> Stored:
        kind, sender, body, back = fields[3::2]
        item = Item(int(at.partition(b"-")[0]), Kind(int(kind)), Address(sender.decode()), body)
        return Stored(item, _read(back))

    return [stored(at, fields) for at, fields in said]


def restore() -> Call:
    """A copy takes the place of all mailboxes, by `only` and the other three. The answer has the epoch until a worker
    begins, which draws another one.
    """
    return Call((b"restore", new_epoch().encode()), _nothing, is_storing=True)


def only(epoch: str) -> Call:
    """Refuse all that follows, with STARTED, in another epoch."""
    return Call((b"only", epoch.encode()), _nothing)


def drop(name: Address) -> Call:
    """Remove a mailbox, and what is in it."""
    return Call((b"drop", name.encode()), _nothing)


def put(box: Box) -> Call:
    """Make a mailbox that is not there."""
    return Call((b"put", box.name.encode(), *(b"%d" % number for number in box[1:])), _nothing, is_storing=True)


def fill(name: Address, stored: Stored) -> Call:
    """Put a message into it, behind all others."""
    offset, kind, sender, body = stored.item
    words = (b"%d" % offset, b"%d" % kind, sender.encode(), body, _written(stored.return_to))
    return Call((b"fill", name.encode(), *words), _nothing, is_storing=True)


def arguments(prefix: bytes, settings: Mailbox, calls: Sequence[Call], now: int | None = None) -> list[bytes]:
    """What the script is called with; `now` in microseconds, and the engine's own time if it is left out."""
    limits = (settings.messages, settings.bytes, settings.total, settings.ttl * SECOND)
    words = [prefix, b"" if now is None else b"%d" % now, *(b"%d" % limit for limit in limits)]
    for call in calls:
        words += (call.words[0], b"%d" % (len(call.words) - 1), *call.words[1:])
    return words


class Answer(NamedTuple):
    """What the script has done: as `service.mailbox.ledger.Ledger` has it; `outcomes` are those of its calls."""

    epoch: str
    last: int
    now: int
    messages: int
    bytes: int
    expired: int
    news: set[Address]
    settled: list[Settled]
    outcomes: list[Any]


def answer(said: list[Any], calls: Sequence[Call]) -> Answer:
    epoch, last, now, messages, size, expired, news, settled, outcomes = said
    name = epoch.decode()
    results = [call.read(outcome) for call, outcome in zip(calls, outcomes, strict=True)]
    return Answer(
        name,
        *(int(last), int(now), int(messages), int(size), int(expired)),
        {Address(box.decode()) for box in news},
        [Settled(Address(to.decode()), _id(key), Address(whose.decode()), bool(ok)) for to, key, whose, ok in settled],
        [each._replace(epoch=name) if isinstance(each, Opened) else each for each in results],
    )


def _nothing(said: object) -> None:
    """It has no outcome."""
