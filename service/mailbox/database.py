"""The file that the mailboxes of one host are in: opened, checked, and set aside when it is broken.

SQLite in WAL mode: a crash of the process loses nothing, and a power cut nothing that was synced. All workers have the
file open, and one after another writes to it, as a lock beside it decides.
"""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from service.mailbox import history
from service.mailbox.mark import Mark

FILE = "mail.db"
# What SQLite puts beside the file.
BESIDE = ("-wal", "-shm")
# How much the WAL may grow before it is copied into the file, in pages.
_CHECKPOINT_PAGES = 1000

logger = logging.getLogger("service")


class MailboxError(Exception):
    """The mailboxes cannot be used; the message says where, what, and the fix."""


class NotNowError(MailboxError):
    """They cannot be used now, for example because the disk is full; it may pass."""


class ReplacedError(NotNowError):
    """Another program has written to the file."""


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
    try:
        database.execute("pragma journal_mode = wal")
        database.execute(f"pragma synchronous = {'full' if sync == 'turn' else 'normal'}")
        database.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    except sqlite3.Error:
        database.close()
        raise
    return database


def connect_to_existing(path: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """A connection that creates no file; with `ro` it changes none either. Source: "Uniform Resource Identifiers" of
    SQLite.
    """
    # Path.as_uri() of Python 3.13 imports when it is called, which somebody else than root may not be able to do.
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode={mode}", uri=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that needs no room on the disk, to read while nobody else has the file open.

    Source: "Use of WAL Without Shared-Memory" of SQLite.
    """
    with contextlib.closing(connect_to_existing(path, "rw")) as database:
        database.execute("pragma locking_mode = exclusive")
        yield database


class Database:
    """The file, as one process has it open."""

    def __init__(self, directory: Path, sync: str, up: Callable[[], int] = history.uptime) -> None:
        """`up` is the uptime of the host, in microseconds.

        Raises:
            MailboxError
        """
        self.path = directory / FILE
        self._sync = sync
        self._up = up
        try:
            with contextlib.ExitStack() as open_files:
                self._open(directory, open_files)
                open_files.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise _explained(error, directory) from None

    def _open(self, directory: Path, open_files: contextlib.ExitStack) -> None:
        with contextlib.suppress(FileExistsError):  # also if another worker has made it just now
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)
        self.lock = Lock(directory / "lock")
        open_files.callback(self.lock.close)
        self._users = Lock(directory / "users")
        open_files.callback(self._users.close)
        self._mark = Mark(self.path)
        open_files.callback(self._mark.close)
        with self.lock.held():
            is_alone = self._users.is_ours_alone()
            self._users.share()
            if is_alone:
                self._look()
            elif not self._mark.fits():
                raise _replaced(self.path)
            self.writing = open_files.enter_context(contextlib.closing(connect(self.path, self._sync)))
            self.reading = open_files.enter_context(contextlib.closing(connect(self.path, self._sync)))
            if not is_alone and self._sync == "second":
                history.note_boot(self.writing)  # those who were here before may have synced each turn
            self._ahead = history.ahead(self.reading, self._up)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the file for one transaction.

        Raises:
            ReplacedError: close it, and open it again.
        """
        with self.lock.held():
            if not self._mark.fits():
                raise _replaced(self.path)
            self._mark.begin()
            try:
                yield
            finally:
                self._mark.note()

    def now(self) -> int:
        """The time of the store, in microseconds since the epoch."""
        return self._up() + self._ahead

    def _look(self) -> None:
        """Nobody else has the file open: see that it is whole, or put another one in its place."""
        is_ours, is_first = self._mark.fits(), self._mark.is_blank
        if is_ours:
            self._mark.begin()
        self._make_files()
        if fault := fault_of(self.path, "quick_check" if is_ours else "integrity_check"):
            aside, is_first = _set_aside(self.path), False
            logger.error("%s is broken (%s); it is now %s", self.path, fault, aside)
            self._make_files()
        with contextlib.closing(connect(self.path)) as database:
            (version,) = database.execute("pragma user_version").fetchone()
            if version > history.VERSION:
                raise MailboxError(
                    f"{self.path} was written by a newer release; install that one again, or move the file away: its "
                    "messages are then not delivered"
                )
            database.execute("begin immediate")
            if version == 0:
                history.begin(database, self.path, is_first, self._up)
            history.resume(database, self.path, self._sync, is_ours, self._up)
            database.execute("commit")
        self._mark.note()

    def _make_files(self) -> None:
        # Nobody else reads the mail, whoever made the directory. And what hinders SQLite has an errno here.
        for path in (self.path, self.path.with_name(f"{FILE}-shm")):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

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
            is_ours = self._mark.fits()
            if is_ours:
                self._mark.begin()
            try:
                if self._users.is_ours_alone() and is_ours:
                    self.writing.execute("pragma synchronous = full")
                    self.writing.execute("update state set lossy_boot = ''")
                    self.writing.execute("pragma wal_checkpoint(truncate)")
            except sqlite3.Error as error:
                logger.error("%s: %s", self.path, error)
            finally:
                self.writing.close()
                if is_ours:
                    self._mark.note()
                self._users.close()
                self._mark.close()
        self.lock.close()


def _explained(error: OSError | sqlite3.Error, directory: Path) -> MailboxError:
    """What it is, and the fix; and whether it may pass."""
    if isinstance(error, sqlite3.Error):
        return NotNowError(f"{directory}: {error}; see that there is room, and that no other program has it open")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return NotNowError(f"{directory}: {error.strerror}; make room")
    return MailboxError(
        f"the mailboxes in {directory} cannot be used: {error.strerror}; let the service's user write there"
    )


def _replaced(path: Path) -> ReplacedError:
    return ReplacedError(f"{path} was changed by another program; copy with --export, and restore with --import")


def sync_directory(path: Path) -> None:
    """See that the names in it are on the disk. Source: fsync(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault_of(path: Path, check: str = "quick_check") -> str:
    """What is wrong with a database; nothing if it is whole."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute(f"pragma {check}(1)").fetchone()
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
