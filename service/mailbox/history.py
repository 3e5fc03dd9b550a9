"""What a store knows of its own past: whether it still has all that was ever stored, and what time it is.

Its time is that of the host when the store was made; after that it is the time that passes while the host is up.
So no message expires because somebody sets the clock, or because a host without a clock of its own boots in 1970. How
long the host was off only the clock could say; it does not count.
"""

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from service.engine.identity import boot_id

VERSION = 1

# The offset of a message is the time of the store at which it came, or a few microseconds more where many came at once.
# `ahead` of the uptime is the time of the store in `boot`; `seen` is a time that it has reached; `gap` is when messages
# were lost, or 0.
_SCHEMA = """
create table state (
    epoch text, last integer, messages integer, bytes integer, lossy_boot text, inode integer,
    boot text, ahead integer, seen integer, gap integer
);
create table box (
    id integer primary key, name text unique not null, acked integer not null, lost_to integer not null,
    seen integer not null, reader integer not null, messages integer not null, bytes integer not null
);
create table mail (
    off integer primary key, box integer not null, kind integer not null, sender text not null, body blob not null,
    return_to text
);
create index empty_box_by_age on box (seen) where messages = 0;
create index mail_of_box on mail (box);
create table dedup (sender text, key text, at integer not null, primary key (sender, key)) without rowid;
create index dedup_by_age on dedup (at);
"""

logger = logging.getLogger("service")


def uptime() -> int:
    """Microseconds since the host was started, also while it slept. Nobody can set it. Source: clock_gettime(2)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def begin(database: sqlite3.Connection, path: Path, is_first: bool, up: Callable[[], int] = uptime) -> None:
    """Make the tables of a file that has none. Unless it is the first one here, messages of another one are lost."""
    for statement in filter(str.strip, _SCHEMA.split(";")):
        database.execute(statement)
    now, inode = time.time_ns() // 1000, os.stat(path).st_ino
    values = (new_epoch(), now, inode, boot_id(), now - up(), now, 0 if is_first else now)
    database.execute("insert into state values (?, ?, 0, 0, '', ?, ?, ?, ?, ?)", values)
    database.execute(f"pragma user_version = {VERSION}")
    if not is_first:
        logger.warning("%s begins anew: messages may be missing, and recipients are told so", path)


def resume(
    database: sqlite3.Connection, path: Path, sync: str, is_ours: bool = True, up: Callable[[], int] = uptime
) -> None:
    """Where messages may be missing that were stored, old positions prove nothing; and the time goes on.

    `is_ours` is whether the file seems to be as we left it, which a power cut changes as well.
    """
    boot, inode = boot_id(), os.stat(path).st_ino
    query = "select lossy_boot, inode, boot, ahead, seen from state"
    lossy_boot, inode_then, boot_then, ahead, seen = database.execute(query).fetchone()
    fault = ""
    if lossy_boot not in ("", boot):
        fault = "the host stopped while mailboxes were written with mailbox.sync: second"
    elif inode != inode_then or (boot == boot_then and not is_ours):
        fault = f"{path} was copied or restored from a backup"
    if fault or boot != boot_then or up() + ahead < seen:
        ahead = seen - up()
    if fault:
        logger.warning("%s: messages may be missing, and recipients are told so", fault)
        # Also to those who keep no position, and would otherwise be served from what they confirmed last, and to those
        # whose mailbox was made later than what is here now.
        database.execute("update state set epoch = ?, gap = ?", (new_epoch(), seen))
        database.execute("update box set lost_to = max(lost_to, acked + 1)")
    values = (inode, boot, ahead, boot if sync == "second" else "")
    database.execute("update state set inode = ?, boot = ?, ahead = ?, lossy_boot = ?", values)


def note_boot(database: sqlite3.Connection) -> None:
    """From now on a power cut may lose something: see that this is known after it."""
    boot = boot_id()
    database.execute("update state set lossy_boot = ? where lossy_boot != ?", (boot, boot))


def ahead(database: sqlite3.Connection, up: Callable[[], int] = uptime) -> int:
    """How far the time of the store is ahead of the uptime: also if nobody has opened it since the host started."""
    boot, ahead, seen = database.execute("select boot, ahead, seen from state").fetchone()
    return int(ahead if boot == boot_id() else seen - up())


def new_epoch() -> str:
    """Drawn whenever what was said about positions holds no longer."""
    return secrets.token_urlsafe(9)
