"""The file that the mailboxes of one host are in: opened, checked, and set aside when it is broken.

SQLite in WAL mode: a crash of the process loses nothing, and a power cut nothing that was synced. All workers have the
file open, and one after another writes to it, as a lock beside it decides.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

FILE = "mail.db"
# What SQLite puts beside the file.
BESIDE = ("-wal", "-shm")
VERSION = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# How much the WAL may grow before it is copied into the file, in pages.
_CHECKPOINT_PAGES = 1000

_SCHEMA = """
create table state (epoch text, last integer, messages integer, bytes integer, lossy_boot text, inode integer);
create table box (
    id integer primary key, name text unique not null, acked integer not null, lost_to integer not null,
    seen integer not null, reader integer not null, messages integer not null, bytes integer not null
);
create table mail (
    off integer primary key, box integer not null, at integer not null, kind integer not null, sender text not null,
    body blob not null, return_to text
);
create index empty_box_by_age on box (seen) where messages = 0;
create index mail_of_box on mail (box);
create index mail_by_age on mail (at);
create table dedup (sender text, key text, at integer not null, primary key (sender, key)) without rowid;
create index dedup_by_age on dedup (at);
"""

logger = logging.getLogger("service")


class MailboxError(Exception):
    """The mailboxes cannot be used; the message says where, what, and the fix."""


class Lock:
    """A lock between processes, which ends with the process that has it. Source: flock(2)."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait until nobody else has it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def share(self) -> None:
        """Have it beside others who share it."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def is_ours_alone(self) -> bool:
        """Have it alone, if nobody else shares it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)


def connect(path: Path, sync: str = "turn") -> sqlite3.Connection:
    """A connection for one thread, whichever it is."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    database.execute("pragma journal_mode = wal")
    database.execute(f"pragma synchronous = {'full' if sync == 'turn' else 'normal'}")
    database.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return database


class Database:
    """The file, as one process has it open."""

    def __init__(self, directory: Path, sync: str, now: int) -> None:
        """`now` is in microseconds since the epoch.

        Raises:
            MailboxError
        """
        self.path = directory / FILE
        self._sync = sync
        self._now = now
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            self.lock = Lock(directory / "lock")
            self._users = Lock(directory / "users")
            with self.lock.held():
                if self._users.is_ours_alone():
                    self._look(directory)
                elif sync == "second":
                    self._note_boot()  # those who were here before may have synced each turn
                self._users.share()
            self.writing, self.reading = connect(self.path, sync), connect(self.path, sync)
        except (OSError, sqlite3.Error) as error:
            what = error.strerror if isinstance(error, OSError) else str(error)
            raise MailboxError(
                f"the mailboxes in {directory} cannot be used: {what}; let the service's user write there, and see "
                "that there is room"
            ) from None

    def _look(self, directory: Path) -> None:
        """Nobody else has the file open: see that it is whole, or put another one in its place."""
        if self.path.exists() and (fault := fault_of(self.path)):
            aside = _set_aside(self.path)
            logger.error("%s is broken (%s); it is now %s, and a new one begins", self.path, fault, aside)
        # Nobody else reads the mail, whoever made the directory; what SQLite puts beside the file has the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.closing(connect(self.path)) as database:
            (version,) = database.execute("pragma user_version").fetchone()
            if version > VERSION:
                raise MailboxError(
                    f"{self.path} was written by a newer release; install that one again, or move the file away: its "
                    "messages are then not delivered"
                )
            database.execute("begin immediate")
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    database.execute(statement)
                database.execute(
                    "insert into state values (?, ?, 0, 0, '', ?)", (new_epoch(), self._now, self._inode())
                )
                database.execute(f"pragma user_version = {VERSION}")
            self._begin_epoch(database)
            database.execute("commit")

    def _begin_epoch(self, database: sqlite3.Connection) -> None:
        """Where messages may be missing that were stored, positions of before prove nothing."""
        boot = _BOOT.read_text().strip()
        lossy_boot, inode = database.execute("select lossy_boot, inode from state").fetchone()
        fault = ""
        if lossy_boot not in ("", boot):
            fault = "the host stopped while mailboxes were written with mailbox.sync: second"
        elif inode != self._inode():
            fault = f"{self.path} was copied or restored from a backup"
        if fault:
            logger.warning("%s: messages may be missing, and recipients are told so", fault)
            database.execute("update state set epoch = ?, inode = ?", (new_epoch(), self._inode()))
            # Also for those who keep no position, and would otherwise be served from what they confirmed last.
            database.execute("update box set lost_to = max(lost_to, acked + 1)")
        database.execute("update state set lossy_boot = ?", (boot if self._sync == "second" else "",))

    def _note_boot(self) -> None:
        """From now on a power cut may lose something: see that this is known after it."""
        with contextlib.closing(connect(self.path)) as database:
            boot = _BOOT.read_text().strip()
            database.execute("update state set lossy_boot = ? where lossy_boot != ?", (boot, boot))

    def _inode(self) -> int:
        return self.path.stat().st_ino

    def flush(self) -> None:
        """See that everything that was written is on the disk, also without synchronous commits."""
        descriptor = os.open(self.path.with_name(FILE + BESIDE[0]), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """The last one to leave sees that everything is on the disk."""
        self.reading.close()
        with self.lock.held():  # or somebody who comes meanwhile would take us for one who stays
            try:
                if self._users.is_ours_alone():
                    self.writing.execute("pragma synchronous = full")
                    self.writing.execute("update state set lossy_boot = ''")
                    self.writing.execute("pragma wal_checkpoint(truncate)")
            except sqlite3.Error as error:
                logger.error("%s: %s", self.path, error)
            finally:
                self.writing.close()
                self._users.close()
        self.lock.close()


def new_epoch() -> str:
    """Drawn whenever what was said about positions holds no longer."""
    return secrets.token_urlsafe(9)


def fault_of(path: Path) -> str:
    """What is wrong with a database; nothing if it is whole."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute("pragma quick_check(1)").fetchone()
            return "" if answer == "ok" else str(answer).splitlines()[-1]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # it cannot be opened, which says nothing about what is in it
        return str(error)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", *BESIDE):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
