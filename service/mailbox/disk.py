"""The mailboxes of one host: a database, and two threads of each worker, so that nobody waits for a disk.

One thread commits whatever has gathered while it committed before, so that the more there is to store the less each
message costs. The other one reads.
"""

import asyncio
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from service.core.addresses import Address
from service.core.mail import Mail
from service.core.mailbox import (
    MAX_WAITING,
    MAX_WAITING_BYTES,
    SWEEP_PERIOD_S,
    Kept,
    Letter,
    Opened,
    Page,
    Position,
    Settled,
)
from service.mailbox.database import FILE, Database, NotNowError, ReplacedError, alone
from service.mailbox.ledger import Known, Ledger, boxes, page
from service.settings import Mailbox

# What one transaction may hold.
BATCH = 1000
# How long a thread keeps Python's lock from another one that wants it. The loop wants it back after each look at the
# sockets; with the usual 5 ms clients would wait so long for a transaction, which lets it go for too short to be taken.
_SWITCH_S = 0.0005

logger = logging.getLogger("service")


class _Work(NamedTuple):
    """What a transaction is to do, and who takes the outcome."""

    do: Callable[[Ledger, Any], Any]
    given: Any
    then: Callable[[Any], None]
    otherwise: Any
    """The outcome if the transaction fails."""


class Disk:
    """A `service.core.mailbox.Store`. To be made while the event loop runs.

    `latest` and `Kept` are answered by what this process knows of; several workers have the same file open.
    """

    def __init__(self, settings: Mailbox, mail: Mail) -> None:
        """Raises: MailboxError"""
        assert settings.directory is not None
        self._directory = Path(settings.directory)
        self._settings = settings
        self._mail = mail
        self._loop = asyncio.get_running_loop()
        self._database: Database | None = None
        self._opens_at = 0.0
        self._last = 0
        self.holds = (0, 0)
        self.is_up = True
        self.is_failing = False
        self._known = Known()
        self._gathered: list[_Work] = []
        """In this turn of the loop."""
        self._works: SimpleQueue[list[_Work] | None] = SimpleQueue()
        self._reads: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting = 0
        self._waiting_bytes = 0
        self._swept_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._write, name="mailbox-writer", daemon=True),
            threading.Thread(target=self._read, name="mailbox-reader", daemon=True),
        ]
        mail.use(self, self._open())
        sys.setswitchinterval(_SWITCH_S)
        for thread in self._threads:
            thread.start()

    def _open(self) -> list[Address]:
        """Open the file; if that is not possible now, look at least which addresses have a box."""
        try:
            self._database = Database(self._directory, self._settings.sync)
            return boxes(self._database.reading)
        except NotNowError as error:
            self._fail(error)
        try:
            with alone(self._directory / FILE) as database:
                (self._last,) = database.execute("select last from state").fetchone()
                return boxes(database)
        except sqlite3.Error as error:
            logger.error("the mailbox cannot be read: %s; messages to those who are away are refused or lost", error)
            return []

    @property
    def is_busy(self) -> bool:
        return self._waiting > 0

    @property
    def latest(self) -> int:
        database = self._database  # which the other thread may close
        return max(self._last, 0 if database is None else database.now() - 1)

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        size = len(letter.body)
        if self._waiting >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            then(Kept.FAILED)
            return
        self._waiting_bytes += size
        self._gather(_Work(Ledger.keep, letter, then, Kept.FAILED))

    def open(self, box: Address, position: Position | None, then: Callable[[Opened | None], None]) -> None:
        self._gather(_Work(lambda ledger, _: ledger.open(box, position), None, then, None))

    def acknowledge(self, box: Address, reader: int, offset: int) -> None:
        self._gather(_Work(lambda ledger, _: ledger.acknowledge(box, reader, offset), None, _nothing, None))

    def touch(self, box: Address) -> None:
        self._gather(_Work(Ledger.touch, box, _nothing, None))

    def _gather(self, work: _Work) -> None:
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(work)
        self._waiting += 1

    def _hand_over(self) -> None:
        works, self._gathered = self._gathered, []
        for start in range(0, len(works), BATCH):
            self._works.put(works[start : start + BATCH])

    def read(self, box: Address, after: int, most: int, size: int, then: Callable[[Page | None], None]) -> None:
        self._look(lambda database: page(database, box, after, most, size), then)

    def list_boxes(self, then: Callable[[Collection[Address] | None], None]) -> None:
        self._look(boxes, then)

    def _look(self, find: Callable[[sqlite3.Connection], Any], then: Callable[[Any], None]) -> None:
        def look() -> None:
            database = self._database
            try:
                if database is None:
                    raise NotNowError("it is not open")
                found = find(database.reading)
            except (NotNowError, sqlite3.Error) as error:
                logger.error("the mailbox cannot be read: %s", error)
                found = None
            self._loop.call_soon_threadsafe(then, found)

        self._reads.put(look)

    async def close(self) -> None:
        """Store what is still to be stored, and leave."""
        self._hand_over()
        self._works.put(None)
        self._reads.put(None)
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join)
        if self._database is not None:
            self._database.close()

    # In the threads

    def _read(self) -> None:
        while (look := self._reads.get()) is not None:
            look()

    def _write(self) -> None:
        is_open = True
        while is_open:
            works: list[_Work] = []
            try:
                while (batch := self._works.get(timeout=self._till_sweep_s())) is not None:
                    works += batch
                    if len(works) >= BATCH or self._works.empty():
                        break
                is_open = batch is not None
            except Empty:
                pass
            self._carry_out(works)

    def _till_sweep_s(self) -> float:
        return max(0.0, self._swept_at + SWEEP_PERIOD_S - time.monotonic())

    def _carry_out(self, works: list[_Work]) -> None:
        began = time.monotonic()
        try:
            database = self._opened()
            with database.turn():
                outcomes, ledger = self._commit(database, works)
        except Exception as error:  # whatever it is, the thread must go on and senders must hear of it
            if isinstance(error, ReplacedError):
                self._leave()
            self._fail(error)
            report = partial(self._report, works, [work.otherwise for work in works], set(), [], 0)
        else:
            self._last = ledger.last
            self.holds = ledger.messages, ledger.bytes
            report = partial(self._report, works, outcomes, ledger.news, ledger.settled, ledger.expired)
            if works:
                self._loop.call_soon_threadsafe(self._mail.note_commit, time.monotonic() - began)
        self._loop.call_soon_threadsafe(report)

    def _opened(self) -> Database:
        """The database, which is opened now if it could not be opened before.

        Raises: MailboxError
        """
        if self._database is None:
            if time.monotonic() < self._opens_at:
                raise NotNowError("it is not open")
            database = Database(self._directory, self._settings.sync)
            self._loop.call_soon_threadsafe(self._mail.use, self, boxes(database.reading))
            self._database = database
        return self._database

    def _leave(self) -> None:
        """Close the file, to open it again; the other thread may be reading in it."""
        if self._database is not None:
            self._reads.put(self._database.close)
            self._loop.call_soon_threadsafe(self._mail.lose)
        self._database = None
        self._known.forget()

    def _commit(self, file: Database, works: list[_Work]) -> tuple[list[Any], Ledger]:
        database, changes = file.writing, file.writing.total_changes
        database.execute("begin immediate")
        try:
            ledger = Ledger(database, self._settings, file.now(), self._known)
            outcomes = [work.do(ledger, work.given) for work in works]
            is_due = not self._till_sweep_s()
            if is_due:
                ledger.sweep()
                self._swept_at = time.monotonic()
                if self.is_failing:
                    ledger.note_time()  # to see whether it can be written again
            ledger.finish()
            database.execute("commit")
            if is_due and self._settings.sync == "second":
                file.flush()
        except BaseException:
            self._known.forget()
            if database.in_transaction:
                database.execute("rollback")
            raise
        if self.is_failing and database.total_changes > changes:
            self.is_failing = False
            logger.warning("the mailbox can be written again")
        return outcomes, ledger

    def _fail(self, error: Exception) -> None:
        if not self.is_failing:
            logger.error("the mailbox cannot be written: %s; until it can, what is sent to it is refused", error)
        self.is_failing = True
        now = time.monotonic()
        self._opens_at = max(self._opens_at, now + SWEEP_PERIOD_S)
        if not self._till_sweep_s():
            self._swept_at = now

    # In the loop again

    def _report(
        self,
        works: list[_Work],
        outcomes: list[Any],
        news: set[Address],
        settled: list[Settled],
        expired: int,
    ) -> None:
        self._mail.note_expired(expired)
        self._waiting -= len(works)
        self._waiting_bytes -= sum(len(work.given.body) for work in works if isinstance(work.given, Letter))
        for work, outcome in zip(works, outcomes, strict=True):
            work.then(outcome)
        for box in news:
            self._mail.tell(box)
        self._mail.settle(settled)


def _nothing(outcome: object) -> None:
    """Nobody waits for it."""
