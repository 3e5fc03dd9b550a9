"""What one transaction on the mailboxes does: store, open, acknowledge, and remove what is too old.

Nothing here waits or knows of threads; the caller begins the transaction and commits it, and only then is anything that
happened here true.
"""

import contextlib
import sqlite3
from dataclasses import dataclass

import msgspec

from service.core.addresses import Address
from service.core.frames import Id, ReceiptBody
from service.core.mailbox import Item, Kept, Kind, Letter, Opened, Page, Position, ReturnTo, Settled
from service.settings import Mailbox

SECOND = 1_000_000
# A sender that has heard nothing tries again within minutes, or not at all; as `Idempotency-Key`.
DEDUP_S = 300
# How many boxes a worker remembers: a few megabytes.
MOST_KNOWN = 10_000
# What one transaction removes, so that nobody waits long for it.
SWEEP = 1000
# For how many `mailbox.ttl` it is remembered that an owner, who may keep no position, has lost something.
UNTOLD_TTLS = 30
# How much time a crash of the host may give to what is kept.
SEEN_S = 60
# What a message costs beside its body.
OVERHEAD = 64

_encode = msgspec.json.Encoder().encode
_return_to = msgspec.json.Decoder(tuple[Address, Id, bool]).decode


def written_return_to(to: ReturnTo | None) -> str | None:
    """As it stands beside a message."""
    return None if to is None else _encode(to).decode()


def read_return_to(text: str | None) -> ReturnTo | None:
    return None if text is None else ReturnTo(*_return_to(text))


def _receipt_of(dedup: str, to: ReturnTo | None) -> str:
    """What stands beside a `dedup` if a mailbox is to get a receipt. None of these begins with a space."""
    return f" {written_return_to(to)} {dedup}"


@dataclass(slots=True)
class _Box:
    id: int
    name: Address
    acked: int
    lost_to: int
    seen: int
    reader: int
    messages: int
    bytes: int


class Known:
    """The boxes that earlier transactions of this connection have read or made: so they are as long as only they write.

    Source: `pragma data_version` of SQLite, which changes with what others commit.
    """

    def __init__(self) -> None:
        self._boxes: dict[str, _Box | None] = {}
        self._version = 0

    def look(self, database: sqlite3.Connection) -> dict[str, _Box | None]:
        """What is still true in the transaction that has begun; it adds to it, and changes it."""
        (version,) = database.execute("pragma data_version").fetchone()
        if version != self._version or len(self._boxes) > MOST_KNOWN:
            self._boxes.clear()
        self._version = version
        return self._boxes

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._boxes.clear()


class Ledger:
    """One transaction. `now` is in microseconds since the epoch; what is `known` is looked up in the transaction.

    `news` are boxes that have got something beside the letters, `settled` is what connections want to hear, `expired`
    is how many messages were removed because nobody had acknowledged them in time.
    """

    def __init__(self, database: sqlite3.Connection, settings: Mailbox, now: int, known: Known | None = None) -> None:
        self._db = database
        self._settings = settings
        self._now = now
        self._horizon = now - settings.ttl * SECOND
        """What is not newer is not kept."""
        row = database.execute("select epoch, gap, seen, last, messages, bytes from state").fetchone()
        self.epoch, self._gap, self._seen, *self._before = row
        self.last, self.messages, self.bytes = self._before
        self._boxes = (known or Known()).look(database)
        self._changed: dict[int, _Box] = {}
        self._rows: list[tuple[int, int, int, str, bytes, str | None]] = []
        self._noted = 0
        """How much is known of what senders call their messages since this transaction began."""
        self.news: set[Address] = set()
        self.settled: list[Settled] = []
        self.expired = 0

    def keep(self, letter: Letter) -> Kept:
        """Store a letter, unless it is there already."""
        box = self._box(letter.box)
        if box is None or box.seen <= self._horizon:
            return Kept.NO_BOX
        # What was told to be stored in one mailbox is not stored in another one: a key is one of sender and recipient.
        dedup = None if letter.dedup is None else f"{letter.dedup} {letter.box}"
        if dedup is not None and self._is_known(letter.sender, dedup):
            is_awaited = self._is_known(letter.sender, _receipt_of(dedup, letter.return_to))
            return Kept.AWAITED if is_awaited else Kept.AGAIN
        size = len(letter.body) + OVERHEAD
        if not self._has_room(box, size) or not self._has_room_for_a_receipt(letter.return_to):
            return Kept.FULL
        self._add(box, letter.kind, letter.sender, letter.body, written_return_to(letter.return_to))
        if dedup is not None:
            self._note(letter.sender, dedup)
            if letter.return_to is not None and letter.return_to.has_box:
                self._note(letter.sender, _receipt_of(dedup, letter.return_to))
        return Kept.STORED

    def _note(self, sender: str, key: str) -> None:
        self._db.execute("insert or replace into dedup values (?, ?, ?)", (sender, key, self._now))
        self._noted += 1

    def _has_room(self, box: _Box, size: int) -> bool:
        limits = self._settings
        fits = box.messages < limits.messages and box.bytes + size <= limits.bytes
        return fits and self.bytes + size <= limits.total

    def _has_room_for_a_receipt(self, to: ReturnTo | None) -> bool:
        """A receipt that is due is kept in any case. So who has no room asks for none, or could fill all mailboxes."""
        box = None if to is None or not to.has_box else self._box(to.address)
        return box is None or self._has_room(box, OVERHEAD)

    def _is_known(self, sender: str, key: str) -> bool:
        since = self._now - DEDUP_S * SECOND
        query = "select 1 from dedup where sender = ? and key = ? and at > ?"
        return self._db.execute(query, (sender, key, since)).fetchone() is not None

    def _add(self, box: _Box, kind: Kind, sender: str, body: bytes, return_to: str | None) -> None:
        self.last = max(self.last + 1, self._now)
        self._rows.append((self.last, box.id, int(kind), sender, body, return_to))
        self._count(box, 1, len(body) + OVERHEAD)

    def _count(self, box: _Box, messages: int, size: int) -> None:
        box.messages += messages
        box.bytes += size
        self._changed[box.id] = box
        self.messages += messages
        self.bytes += size

    def open(self, name: Address, position: Position | None) -> Opened:
        """Open a box for its owner."""
        box = self._box(name) or self._make(name)
        self._write()
        self._expire(box)
        acked, lost_to = box.acked, max(box.acked, box.lost_to)
        if position is not None and position.epoch == self.epoch and position.after <= self.last:
            after, is_whole = position.after, position.after >= lost_to
            self._acknowledge(box, after)
        else:
            after, is_whole = acked, position is None and acked >= box.lost_to
        box.reader += 1
        self._see(box)
        first, last = self._db.execute("select min(off), max(off) from mail where box = ?", (box.id,)).fetchone()
        if first is not None:
            lost_to = min(lost_to, first - 1)  # who confirms a loss confirms nothing that is still to come
        return Opened(self.epoch, box.reader, after, last or after, is_whole, lost_to)

    def _make(self, name: Address) -> _Box:
        # Offsets of an earlier box of this address mean that something is missing.
        acked = self.last
        if self._now < self._gap + UNTOLD_TTLS * self._settings.ttl * SECOND:
            self.last += 1  # an offset for what may have been lost together with such a box
        values = (name, acked, self.last, self._now)
        made = self._db.execute(
            "insert into box (name, acked, lost_to, seen, reader, messages, bytes) values (?, ?, ?, ?, 0, 0, 0)", values
        )
        assert made.lastrowid is not None
        box = self._boxes[name] = _Box(made.lastrowid, name, acked, self.last, self._now, 0, 0, 0)
        return box

    def acknowledge(self, name: Address, reader: int, offset: int) -> None:
        """Delete what the reader has, if it is still the one that reads."""
        box = self._box(name)
        if box is not None and box.reader == reader:
            self._write()
            self._acknowledge(box, offset)
            self._see(box)

    def _acknowledge(self, box: _Box, offset: int) -> None:
        if offset > box.acked:
            self._remove(box, offset, is_delivered=True)
            box.acked = offset
            self._changed[box.id] = box

    def touch(self, name: Address) -> None:
        """The owner is here."""
        box = self._box(name)
        if box is not None:
            self._see(box)

    def _see(self, box: _Box) -> None:
        box.seen = self._now
        self._changed[box.id] = box

    def sweep(self) -> None:
        """Remove what is too old, a part of it at a time."""
        old = self._db.execute("select box from mail where off <= ? limit ?", (self._horizon, SWEEP)).fetchall()
        for number in {number for (number,) in old}:
            self._expire(self._by_number(number))
        self._forget_what_is_sent_no_more(SWEEP)
        self._save()
        lapsed = """delete from box where id in (select id from box where messages = 0
            and seen <= ? and (lost_to <= acked or seen <= ?) limit ?)"""
        ttl = self._settings.ttl * SECOND
        if self._db.execute(lapsed, (self._now - 2 * ttl, self._now - UNTOLD_TTLS * ttl, SWEEP)).rowcount:
            self._boxes.clear()

    def _forget_what_is_sent_no_more(self, most: int) -> None:
        since = self._now - DEDUP_S * SECOND
        forgotten = "delete from dedup where (sender, key) in (select sender, key from dedup where at <= ? limit ?)"
        self._db.execute(forgotten, (since, most))

    def _expire(self, box: _Box) -> None:
        lost = self._remove(box, self._horizon, is_delivered=False)
        box.lost_to = max(box.lost_to, *lost, 0)

    def _remove(self, box: _Box, bound: int, is_delivered: bool) -> list[int]:
        """Remove all up to an offset. Returns: the offsets of what was removed."""
        query = "select off, length(body), kind, return_to from mail where box = ? and off <= ?"
        rows = self._db.execute(query, (box.id, bound)).fetchall()
        if not rows:
            return []
        self._db.execute("delete from mail where box = ? and off <= ?", (box.id, bound))
        self._count(box, -len(rows), -sum(row[1] + OVERHEAD for row in rows))
        if not is_delivered:
            self.expired += len(rows)
        for _offset, _size, kind, text in rows:
            return_to = read_return_to(text)
            if return_to is not None and kind != Kind.RECEIPT:
                self._return(return_to, box.name, is_delivered)
        return [row[0] for row in rows]

    def _return(self, to: ReturnTo, recipient: Address, is_delivered: bool) -> None:
        if not to.has_box:
            self.settled.append(Settled(to.address, to.id, recipient, is_delivered))
            return
        box = self._box(to.address)
        if box is not None:
            # Whether it is full or not: when it asked for it, it was not.
            self._add(box, Kind.RECEIPT, recipient, _encode(ReceiptBody(to.id, is_delivered)), None)
            self.news.add(box.name)

    def _box(self, name: Address) -> _Box | None:
        try:
            return self._boxes[name]
        except KeyError:
            query = "select id, name, acked, lost_to, seen, reader, messages, bytes from box where name = ?"
            row = self._db.execute(query, (name,)).fetchone()
            self._boxes[name] = None if row is None else _Box(*row)
        return self._boxes[name]

    def _by_number(self, number: int) -> _Box:
        (name,) = self._db.execute("select name from box where id = ?", (number,)).fetchone()
        box = self._box(name)
        assert box is not None
        return box

    def _write(self) -> None:
        """Put the letters into the table."""
        if self._rows:
            self._db.executemany("insert into mail values (?, ?, ?, ?, ?, ?)", self._rows)
            self._rows.clear()

    def _save(self) -> None:
        if self._changed:
            self._db.executemany(
                "update box set acked = ?, lost_to = ?, seen = ?, reader = ?, messages = ?, bytes = ? where id = ?",
                [(b.acked, b.lost_to, b.seen, b.reader, b.messages, b.bytes, b.id) for b in self._changed.values()],
            )
            self._changed.clear()

    def finish(self) -> None:
        """Write down what is left, before the commit."""
        if self._noted:
            # More than came, however many that is in a second.
            self._forget_what_is_sent_no_more(2 * self._noted)
        self._write()
        self._save()
        state = [self.last, self.messages, self.bytes]
        if state != self._before or self._now >= self._seen + SEEN_S * SECOND:
            self.note_time()

    def note_time(self) -> None:
        """Let the time of the store go on from here when the host was started anew."""
        state = (self.last, self.messages, self.bytes, self._now)
        self._db.execute("update state set last = ?, messages = ?, bytes = ?, seen = ?", state)


def page(database: sqlite3.Connection, box: Address, after: int, most: int, size: int) -> Page:
    """Some items of a box, as `service.core.mailbox.Store.read` has it."""
    # All in one statement: what is removed meanwhile is here, or counts as lost.
    query = """select lost_to, off, kind, sender, body from box left join mail on mail.box = box.id and off > ?
        where name = ? order by off limit ?"""
    items: list[Item] = []
    lost_to = 0
    # Row by row: what does not fit is not read, or long messages would be read again for each one that is acknowledged.
    with contextlib.closing(database.execute(query, (after, box, most + 1))) as rows:
        for lost_to, offset, kind, sender, body in rows:
            if offset is None:
                break
            size -= len(body)
            if len(items) == most or (size < 0 and items):
                return Page(items, True, lost_to)
            items.append(Item(offset, Kind(kind), Address(sender), body))
    return Page(items, False, lost_to)


def boxes(database: sqlite3.Connection) -> list[Address]:
    """Every address that has a box."""
    return [Address(name) for (name,) in database.execute("select name from box")]
