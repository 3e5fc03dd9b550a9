"""The mailboxes of a host: look at them, write a copy of them, or put a copy in their place.

    python -m service.mailbox show DIRECTORY [ADDRESS]    prints JSON
    python -m service.mailbox export DIRECTORY FILE       also while the service runs
    python -m service.mailbox import DIRECTORY FILE       only while it does not run

Root acts as the owner of the directory, so that no file appears in it that the service could not use. Exit codes: 1
when it cannot be done, 2 when it was asked for the wrong way.
"""

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from service.mailbox import copies
from service.mailbox.database import BESIDE, FILE, Lock, MailboxError, connect, connect_to_existing, sync_directory
from service.mailbox.history import ahead, uptime


@contextlib.contextmanager
def as_owner(directory: Path) -> Iterator[None]:
    """Act as whoever owns the directory. Source: credentials(7)."""
    if os.geteuid():
        yield
        return
    state = directory.stat()
    os.setegid(state.st_gid)
    os.seteuid(state.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def show(directory: Path, address: str | None = None) -> dict[str, Any]:
    """What is in all mailboxes, or in one; times are in seconds since the epoch."""
    with as_owner(directory), contextlib.closing(connect_to_existing(directory / FILE, "ro")) as database:
        if address is not None:
            return _box(database, address)
        messages, size = database.execute("select messages, bytes from state").fetchone()
        (boxes,) = database.execute("select count(*) from box").fetchone()
        (oldest,) = database.execute("select min(off) from mail").fetchone()
        since = _since(database)
        fullest = "select name, messages, bytes from box where messages > 0 order by messages desc, name limit 10"
        return {
            "mailboxes": boxes,
            "messages": messages,
            "bytes": size,
            "oldest": since(oldest),
            "file_bytes": (directory / FILE).stat().st_size,
            "fullest": [
                {"address": name, "messages": number, "bytes": taken}
                for name, number, taken in database.execute(fullest)
            ],
        }


def _box(database: sqlite3.Connection, address: str) -> dict[str, Any]:
    row = database.execute("select id, messages, bytes, seen from box where name = ?", (address,)).fetchone()
    if row is None:
        raise MailboxError(f"{address} has no mailbox: its owner has never asked for one, or was away for too long")
    number, messages, size, seen = row
    oldest, newest = database.execute("select min(off), max(off) from mail where box = ?", (number,)).fetchone()
    since = _since(database)
    return {
        "address": address,
        "messages": messages,
        "bytes": size,
        "oldest": since(oldest),
        "newest": since(newest),
        "owner_seen": since(seen),
    }


def _since(database: sqlite3.Connection) -> Callable[[int | None], float | None]:
    """From a time of the store to the seconds since the epoch by the clock of the host."""
    behind = time.time_ns() // 1000 - uptime() - ahead(database)
    return lambda at: None if at is None else (at + behind) / 1_000_000


def export(directory: Path, file: Path) -> None:
    """Write a copy of all mailboxes as they are at one moment. Source: VACUUM INTO of SQLite."""
    copies.refuse_existing(file)
    made = directory / "export"
    # Root follows no link that the owner of the directory may have put there.
    with as_owner(directory):
        made.unlink(missing_ok=True)
        try:
            with contextlib.closing(connect_to_existing(directory / FILE, "ro")) as database:
                database.execute("vacuum into ?", (str(made),))
            original = made.open("rb")
        finally:
            made.unlink(missing_ok=True)
    with original:
        copies.write_new(file, original)


def restore(directory: Path, file: Path) -> None:
    """Put a copy in the place of all mailboxes: what was stored since it was written is gone, and recipients hear that.

    The service sees by its inode that it is another file, and begins a new epoch.
    """
    if not directory.is_dir():
        raise MailboxError(
            f"there is no {directory}; start the service once with mailbox.keep: disk, and stop it again"
        )
    copies.check(file)
    # Root follows no link that the owner of the directory may have put there.
    with file.open("rb") as copy, as_owner(directory):
        lock, users = Lock(directory / "lock"), Lock(directory / "users")
        with lock.held():
            if not users.is_ours_alone():
                raise MailboxError("the service is running; stop it first, and start it again after this")
            _replace(directory, copy)
            users.close()
        lock.close()


def _replace(directory: Path, copy: BinaryIO) -> None:
    new = directory / "import"
    new.unlink(missing_ok=True)
    try:
        copies.write_new(new, copy)
        with contextlib.closing(sqlite3.connect(new)) as database:
            database.execute("update state set inode = 0")
            database.commit()
        with contextlib.suppress(sqlite3.Error):
            # What is beside the old file goes into it: if the power is cut now, it is whole, and not without its end.
            connect(directory / FILE).close()
        for suffix in BESIDE:
            (directory / f"{FILE}{suffix}").unlink(missing_ok=True)
            (directory / f"import{suffix}").unlink(missing_ok=True)
        new.replace(directory / FILE)
        sync_directory(directory)
    finally:
        new.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> str:
    """Do what the command line says, and return the text to print.

    Raises:
        MailboxError, OSError, sqlite3.Error
    """
    match arguments:
        case ["-h" | "--help", *_]:
            return str(__doc__)
        case ["show", directory, *address] if len(address) < 2:
            return json.dumps(show(_existing(directory), *address))
        case ["export", directory, file]:
            export(_existing(directory), Path(file))
            return ""
        case ["import", directory, file]:
            restore(Path(directory), Path(file))
            return ""
    print(__doc__, file=sys.stderr)
    sys.exit(2)


def _existing(directory: str) -> Path:
    if not (Path(directory) / FILE).exists():
        raise MailboxError(f"there are no mailboxes in {directory}; mailbox.keep: disk makes them")
    return Path(directory)


if __name__ == "__main__":
    try:
        if said := main(sys.argv[1:]):
            print(said)
    except MailboxError as error:
        sys.exit(str(error))
    except OSError as error:
        fix = "; use sudo" if isinstance(error, PermissionError) else ""
        sys.exit(f"{error.filename or sys.argv[2]}: {error.strerror}{fix}")
    except sqlite3.Error as error:
        sys.exit(f"{sys.argv[2]}: {error}")
