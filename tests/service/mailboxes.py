"""A notification center that keeps messages, whose time the test makes pass; the test plays the clients."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from service.core.addresses import Address
from service.core.mail import Mail
from service.core.mailbox import Kept, Letter, Opened, Page, Position
from service.mailbox.database import Database
from service.mailbox.ledger import Ledger, boxes, page
from service.settings import Mailbox
from tests.service.centers import Party, World, identity

SECOND = 1_000_000


class DiskInTurns:
    """The database of `service.mailbox.disk` without its threads: each call is a transaction, and answered next turn.

    While `is_broken`, nothing can be written or read.
    """

    def __init__(self, world: World, directory: Path, settings: Mailbox) -> None:
        self.is_broken = False
        self.holds = (0, 0)
        self._world = world
        self.database = Database(directory, "second", lambda: round(world.time * SECOND))
        self._settings = settings
        self._mail: Mail = world.center.mail
        self._mail.use(self, boxes(self.database.reading))

    @property
    def latest(self) -> int:
        return self.database.now() - 1

    @property
    def is_failing(self) -> bool:
        return self.is_broken

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        self._transact(lambda ledger: ledger.keep(letter), then, Kept.FAILED)

    def open(self, box: Address, position: Position | None, then: Callable[[Opened | None], None]) -> None:
        self._transact(lambda ledger: ledger.open(box, position), then, None)

    def acknowledge(self, box: Address, reader: int, offset: int) -> None:
        self._transact(lambda ledger: ledger.acknowledge(box, reader, offset), lambda _: None, None)

    def touch(self, box: Address) -> None:
        self._transact(lambda ledger: ledger.touch(box), lambda _: None, None)

    def sweep(self) -> None:
        """As it happens every second."""
        self._transact(lambda ledger: ledger.sweep(), lambda _: None, None)

    def read(self, box: Address, after: int, most: int, size: int, then: Callable[[Page | None], None]) -> None:
        self._world._soon(lambda: then(None if self.is_broken else page(self.database.reading, box, after, most, size)))

    def list_boxes(self, then: Callable[[Iterable[Address]], None]) -> None:
        self._world._soon(lambda: then(boxes(self.database.reading)))

    def _transact(self, do: Callable[[Ledger], Any], then: Callable[[Any], None], otherwise: Any) -> None:
        database = self.database.writing
        if self.is_broken:
            self._world._soon(lambda: then(otherwise))
            return
        database.execute("begin immediate")
        ledger = Ledger(database, self._settings, self.database.now())
        outcome = do(ledger)
        ledger.finish()
        database.execute("commit")
        self.holds = ledger.messages, ledger.bytes

        def report() -> None:
            self._mail.note_expired(ledger.expired)
            then(outcome)
            for box in ledger.news:
                self._mail.tell(box)
            self._mail.settle(ledger.settled)

        self._world._soon(report)


class Desk:
    """A center with mailboxes; `settings` are those of `mailbox`."""

    def __init__(self, directory: Path, time: float = 1_000_000.0, **settings: Any) -> None:
        self.directory = directory
        self.settings = Mailbox(keep="disk", directory=str(directory), **settings)
        self.world = World(auth="token", mailbox=self.settings)
        self.world.time = time
        self.disk = DiskInTurns(self.world, directory, self.settings)

    def restarted(self, **settings: Any) -> "Desk":
        """The same after the service was started anew."""
        self.disk.database.close()
        return Desk(self.directory, self.world.time, **settings)

    def comes(self, name: str, **mailbox: Any) -> Party:
        """A client of nc.v1 with a token of this name says hello, with what it wants of its mailbox."""
        party = self.world.v1(identity=identity(name, "*"))
        party.say(type="hello", id=0, uuid=name, mailbox=mailbox)
        self.turns()
        return party

    def arrives(self, name: str, **mailbox: Any) -> tuple[Party, dict[str, Any]]:
        """The same, and what it finds."""
        party = self.comes(name, **mailbox)
        assert party.client.sent, "no answer to hello"
        first = party.heard_first()
        assert first["type"] == "ok", first
        return party, first["mailbox"]

    def leaves(self, party: Party) -> None:
        """Its connection is lost."""
        party.session.end()
        self.turns()

    def away(self, *names: str) -> None:
        """Clients of these names have a mailbox, and are not there."""
        for name in names:
            self.leaves(self.comes(name))

    def turns(self) -> None:
        """The loop turns until nothing is left to do."""
        self.world.turns()

    def passes(self, seconds: float) -> None:
        """Let time pass, and what is due happen. A little more: offsets grow also while the time stands still."""
        self.world.passes(seconds)
        self.world.time += 0.0001
        self.disk.sweep()
        self.turns()

    def send(self, sender: Party, to: str, *messages: Any, **fields: Any) -> list[Any]:
        """Send some messages, each as a request. Returns: the answers."""
        sender.heard()
        for number, message in enumerate(messages, start=1):
            sender.say(**{"recipient_uuid": to, "message": message, "id": number, **fields})
        self.turns()
        return sender.heard()

    def acknowledges(self, party: Party, offset: int) -> None:
        """It has everything up to here."""
        party.say(type="ack", offset=offset)
        self.turns()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.disk.database.close()
