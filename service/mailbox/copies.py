"""Copies of all mailboxes: files that are like the database of one host, whichever store writes them or takes them."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from service.core.addresses import Address
from service.core.mailbox import Item, Kind, ReturnTo
from service.mailbox import history
from service.mailbox.database import MailboxError, connect_to_existing, fault_of, sync_directory
from service.mailbox.ledger import OVERHEAD, read_return_to, written_return_to

_PRIVATE = 0o600


class Box(NamedTuple):
    """A mailbox without what is in it, as `service.mailbox.ledger` keeps it."""

    name: Address
    acked: int
    lost_to: int
    seen: int
    reader: int


class Stored(NamedTuple):
    """What is in it, and who wants a receipt."""

    item: Item
    return_to: ReturnTo | None


class Copy(NamedTuple):
    """`now` is the time of the store of which it is a copy, when it was written, and `last` its last offset."""

    now: int
    last: int
    boxes: Iterable[tuple[Box, Iterable[Stored]]]


def write_new(path: Path, content: BinaryIO) -> None:
    """Write a file that was not there; nothing is left of one that cannot be completed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        with open(descriptor, "wb") as copy:
            shutil.copyfileobj(content, copy)
            copy.flush()
            os.fsync(copy.fileno())
        sync_directory(path.parent)
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file
        raise


def refuse_existing(file: Path) -> None:
    """Raises: MailboxError"""
    if file.exists():
        raise MailboxError(f"{file} is there already; name another file, or remove it")


def check(file: Path) -> None:
    """See that a file is a copy, and whole.

    Raises:
        MailboxError
    """
    if not file.is_file():
        raise MailboxError(f"there is no file {file}")
    if fault := fault_of(file) or _fault_of_version(file):
        raise MailboxError(f"{file} is not a copy of mailboxes, or is damaged: {fault}")


def _fault_of_version(file: Path) -> str:
    with contextlib.closing(connect_to_existing(file, "ro")) as database:
        (version,) = database.execute("pragma user_version").fetchone()
    return "" if 1 <= version <= history.VERSION else "no release up to this one has written it"


def write(file: Path, copy: Copy) -> None:
    """Write a copy to a file that is not there yet; nothing is left of one that cannot be completed.

    Raises:
        MailboxError
    """
    refuse_existing(file)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
    try:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("begin immediate")
            history.begin(database, file, is_first=True)
            _fill(database, copy)
            database.execute("commit")
        sync_directory(file.parent)
    except BaseException:
        file.unlink()
        raise


def _fill(database: sqlite3.Connection, copy: Copy) -> None:
    totals = [0, 0]
    for box, items in copy.boxes:
        values = (box.name, box.acked, box.lost_to, box.seen, box.reader)
        made = database.execute(
            "insert into box (name, acked, lost_to, seen, reader, messages, bytes) values (?, ?, ?, ?, ?, 0, 0)", values
        )
        number, size = 0, 0
        for (offset, kind, sender, body), return_to in items:
            row = (offset, made.lastrowid, int(kind), sender, body, written_return_to(return_to))
            database.execute("insert into mail values (?, ?, ?, ?, ?, ?)", row)
            number, size = number + 1, size + len(body) + OVERHEAD
        database.execute("update box set messages = ?, bytes = ? where id = ?", (number, size, made.lastrowid))
        totals = [totals[0] + number, totals[1] + size]
    # Of no host yet: whoever takes it begins a new epoch.
    state = (copy.last, *totals, copy.now)
    database.execute("update state set last = ?, messages = ?, bytes = ?, seen = ?, boot = '', inode = 0", state)


@contextlib.contextmanager
def reading(file: Path) -> Iterator[Copy]:
    """A copy as it stands in a file, read as it is asked for."""
    with contextlib.closing(connect_to_existing(file, "ro")) as database:
        last, seen = database.execute("select last, seen from state").fetchone()
        yield Copy(max(last, seen), last, _boxes(database))


def size_of(file: Path) -> tuple[int, int]:
    """How many mailboxes a copy has, and how many bytes are in them."""
    with contextlib.closing(connect_to_existing(file, "ro")) as database:
        (boxes,) = database.execute("select count(*) from box").fetchone()
        (size,) = database.execute("select bytes from state").fetchone()
        return int(boxes), int(size)


def _boxes(database: sqlite3.Connection) -> Iterator[tuple[Box, Iterator[Stored]]]:
    for number, *values in database.execute("select id, name, acked, lost_to, seen, reader from box"):
        yield Box(*values), _stored_in(database, number)


def _stored_in(database: sqlite3.Connection, number: int) -> Iterator[Stored]:
    query = "select off, kind, sender, body, return_to from mail where box = ? order by off"
    for offset, kind, sender, body, return_to in database.execute(query, (number,)):
        yield Stored(Item(offset, Kind(kind), Address(sender), body), read_return_to(return_to))
