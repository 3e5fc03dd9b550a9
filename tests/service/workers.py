"""Several workers of one host in one process: the test says when a record arrives, and when a worker dies."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from service.core.bus import PeerBus
from service.core.bus_records import batch
from service.core.peer import Peer
from tests.service.centers import Party, World


class FakeWire:
    """A stream to another worker; what was sent waits in `records` until the test lets it arrive.

    `send_also` is called for each record.
    """

    def __init__(self) -> None:
        self.records: deque[bytes] = deque()
        self.queued = 0
        self.send_also: Callable[[], object] = lambda: None

    def send(self, record: bytes) -> None:
        self.records.append(record)
        self.send_also()


class Worker(World):
    """One worker with its clients, and the wires on which it hears of the others."""

    def __init__(self, number: str, host: str = "", /, **settings: object) -> None:
        super().__init__(f"t{host}{number}-", int(number) + 1, **settings)
        self.number = number
        self.bus = PeerBus(self.center, number)
        self.center.hub.bus = self.bus
        self.parties: list[Party] = []
        self.peers: dict[str, Peer] = {}
        self.incoming: dict[str, FakeWire] = {}

    def meet(self, other: "Worker") -> None:
        """Be connected with another worker of the host."""
        self.incoming[other.number], other.incoming[self.number] = FakeWire(), FakeWire()
        self.peers[other.number] = self.bus.meet(other.number, other.incoming[self.number])
        other.peers[self.number] = other.bus.meet(self.number, self.incoming[other.number])

    def arrive(self, sender: str) -> bool:
        """Let the next record of another worker arrive, if there is one."""
        records = self.incoming[sender].records
        if records and sender in self.peers:
            self.bus.receive(self.peers[sender], batch([records.popleft()]))
            return True
        return False


class Host:
    """All workers; each is connected to each."""

    def __init__(self, size: int, **settings: object) -> None:
        self.settings = settings
        self.workers: dict[str, Worker] = {}
        for number in range(size):
            self.add(str(number))

    def add(self, number: str) -> Worker:
        """Start one more worker."""
        new = Worker(number, **self.settings)
        for other in self.workers.values():
            new.meet(other)
        self.workers[number] = new
        return new

    def kill(self, number: str) -> None:
        """Let a worker die: what it has sent still arrives, and then the others see that it is gone."""
        del self.workers[number]
        for other in self.workers.values():
            while other.arrive(number):
                pass
            other.bus.part(other.peers.pop(number))

    def settle(self, but: tuple[str, str] | None = None) -> None:
        """Let everything arrive that is on its way, but for what one worker has sent to another one."""
        while any(
            worker.arrive(sender)
            for number, worker in self.workers.items()
            for sender in worker.peers
            if (sender, number) != but
        ):
            pass


class Audience:
    """Clients who hear from each other, and whom chance has confirm it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.parties: dict[str, Party] = {}
        self.still: set[str] = set()
        """Those who are just moving, and are not read."""
        self.heard: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.unconfirmed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """Of them, those that are to be confirmed and were not yet."""

    def listen(self, confirmed: float) -> None:
        """Everybody hears what has come, and confirms this part of what is to be confirmed and was not yet."""
        for name, party in self.parties.items():
            heard = party.heard()
            self.heard[name] += heard
            due = self.unconfirmed[name] + [frame for frame in heard if "key" in frame]
            now = [] if name in self.still else [frame for frame in due if self.chance.random() < confirmed]
            for frame in now:
                party.say(type="ack", key=frame["key"])
            self.unconfirmed[name] = [frame for frame in due if frame not in now]


def newer_ones(source: str, others: Sequence[str], moving: Collection[tuple[str, str]]) -> list[str]:
    """To which of the other workers a client may pass: a worker that is replaced gets none of those that replace it,
    while clients pass `moving` from one to another.
    """
    older, before = {source}, set[str]()
    while older != before:
        before = older
        older = older | {each for each, target in moving if target in older}
    return [other for other in others if other not in older]
