"""A notification center that keeps messages, whose time the test makes pass; the test plays the clients."""

import contextlib
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import hiredis

from service.core.addresses import Address
from service.core.mail import Mail
from service.core.mailbox import Kept, Letter, Opened, Page, Position
from service.mailbox import script
from service.mailbox.database import Database
from service.mailbox.history import new_epoch
from service.mailbox.ledger import Ledger, boxes, page
from service.settings import Mailbox
from tests.service.centers import Party, World, identity
from tests.service.servers import Server

SECOND = 1_000_000


class DiskInTurns:
    """The database of `service.mailbox.disk` without its threads: each call is a transaction, and answered next turn.

    While `is_broken`, nothing can be written or read.
    """

    def __init__(self, world: World, directory: Path, settings: Mailbox) -> None:
        self.is_broken = False
        self.is_up = True
        self.is_busy = False
        self.holds = (0, 0)
        self._world = world
        self.database = Database(directory, "second", lambda: round(world.time * SECOND))
        self._settings = settings
        self._mail: Mail = world.center.mail
        self._mail.use(self, boxes(self.database.reading))

    def draw_epoch(self) -> None:
        """As when the file was restored from a backup."""
        self.database.writing.execute("update state set inode = 0")
        self.close()
        self.database = Database(self.database.path.parent, "second", self.database.now)

    def close(self) -> None:
        self.database.close()

    @property
    def latest(self) -> int:
        return self.database.now() - 1

    @property
    def is_failing(self) -> bool:
        return self.is_broken

    @property
    def epoch(self) -> str:
        (epoch,) = self.database.reading.execute("select epoch from state").fetchone()
        return str(epoch)

    def has_box(self, name: str) -> bool:
        return name in boxes(self.database.reading)

    def read_now(self, box: Address, after: int, most: int, size: int) -> Page:
        return page(self.database.reading, box, after, most, size)

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

    def list_boxes(self, then: Callable[[Collection[Address] | None], None]) -> None:
        self._world._soon(lambda: then(None if self.is_broken else boxes(self.database.reading)))

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


class StreamsInTurns:
    """`service.mailbox.streams` without its connection: each call is answered next turn by an engine that is there.

    While `is_broken`, nothing can be written or read.
    """

    def __init__(self, world: World, directory: Path, settings: Mailbox, engine: Server, prefix: bytes = b"") -> None:
        self.is_broken = False
        self.is_up = True
        self.is_busy = False
        self.holds = (0, 0)
        self._world = world
        self._settings = settings
        self._prefix = prefix or f"nc:1:{directory}:".encode()
        self._engine = engine
        self._mail: Mail = world.center.mail
        for text in (script.STORING, script.WORKING):
            self._command(b"SCRIPT", b"LOAD", text)
        self.begin("the first")
        self._mail.use(self, self._call(script.list_boxes()).outcomes[0])

    def begin(self, run: str) -> None:
        """As when a worker that knows nothing yet connects to this run of the engine."""
        self._call(script.try_all(), script.begin(run, False, new_epoch(), ("", "", 0)))

    def draw_epoch(self) -> None:
        """As when the engine has lost the end of what was stored."""
        lost = script.begin(new_epoch(), False, new_epoch(), ("an earlier one", "its epoch", 0))
        assert self._call(lost).outcomes != [""]

    def close(self) -> None:
        """Nothing is open."""

    @property
    def latest(self) -> int:
        return self._now() - 1

    @property
    def is_failing(self) -> bool:
        return self.is_broken

    @property
    def epoch(self) -> str:
        return self._call(script.touch(Address("nobody"))).epoch

    def has_box(self, name: str) -> bool:
        return name in self._call(script.list_boxes()).outcomes[0]

    def read_now(self, box: Address, after: int, most: int, size: int) -> Page:
        page: Page = self._call(script.read_box(box, after, most, size)).outcomes[0]
        return page

    def _now(self) -> int:
        return round((self._world.time + self._world.clock_is_ahead) * SECOND)

    def _command(self, *words: bytes) -> Any:
        reader = hiredis.Reader()
        with contextlib.closing(socket.create_connection(("127.0.0.1", self._engine.port), 10)) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
            while (said := reader.gets()) is False:
                reader.feed(connection.recv(65_536))
        assert not isinstance(said, Exception), said
        return said

    def _call(self, *calls: script.Call) -> script.Answer:
        words = script.arguments(self._prefix, self._settings, calls, self._now())
        return script.answer(self._command(b"EVALSHA", script.SHA[calls[0].is_storing], b"0", *words), calls)

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        self._do(script.keep(letter), then, Kept.FAILED)

    def open(self, box: Address, position: Position | None, then: Callable[[Opened | None], None]) -> None:
        self._do(script.open_box(box, position), then, None)

    def acknowledge(self, box: Address, reader: int, offset: int) -> None:
        self._do(script.acknowledge(box, reader, offset), lambda _: None, None)

    def touch(self, box: Address) -> None:
        self._do(script.touch(box), lambda _: None, None)

    def sweep(self) -> None:
        """As it happens every second."""
        self._do(script.sweep(), lambda _: None, None)

    def read(self, box: Address, after: int, most: int, size: int, then: Callable[[Page | None], None]) -> None:
        self._do(script.read_box(box, after, most, size), then, None)

    def list_boxes(self, then: Callable[[Collection[Address] | None], None]) -> None:
        self._do(script.list_boxes(), then, None)

    def _do(self, call: script.Call, then: Callable[[Any], None], otherwise: Any) -> None:
        if self.is_broken:
            self._world._soon(lambda: then(otherwise))
            return
        answer = self._call(call)
        self.holds = answer.messages, answer.bytes

        def report() -> None:
            self._mail.note_expired(answer.expired)
            then(answer.outcomes[0])
            for box in answer.news:
                self._mail.tell(box)
            self._mail.settle(answer.settled)

        self._world._soon(report)


class Desk:
    """A center with mailboxes, on disk or in an engine; `settings` are those of `mailbox`."""

    def __init__(
        self,
        directory: Path,
        time: float = 1_000_000.0,
        engine: Server | None = None,
        prefix: bytes = b"",
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.engine = engine
        keep: Any = "disk" if engine is None else "engine"
        self.settings = Mailbox(keep=keep, directory=str(directory), **settings)
        self.world = World(auth="token", mailbox=self.settings)
        self.world.time = time
        self.store = (
            DiskInTurns(self.world, directory, self.settings)
            if engine is None
            else StreamsInTurns(self.world, directory, self.settings, engine, prefix)
        )

    def beside(self) -> "Desk":
        """Another worker of the same service."""
        return Desk(self.directory, self.world.time, self.engine)

    def restarted(self, **settings: Any) -> "Desk":
        """The same after the service was started anew."""
        self.store.close()
        return Desk(self.directory, self.world.time, self.engine, **settings)

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
        self.store.sweep()
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
            self.store.close()
