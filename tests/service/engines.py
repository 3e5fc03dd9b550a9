"""Several hosts in one process, over an engine that does what the test wants. One worker on each host."""

from collections import deque
from typing import Any

from service.core.bus import PeerBus
from service.engine.envelope import decode
from service.engine.links import Identity, Links
from service.settings import Engine
from tests.service.centers import World

SILENCE_S = 4.0


class FakeTeller:
    """The log."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def error(self, text: str, /, *details: object) -> None:
        self.told.append(text % details)

    warning = error


class FakeEngine:
    """What is published waits in `messages`, with its channel; None is that of all. It is lost while the engine is
    `down`.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, HostOfOne] = {}
        self.messages: deque[tuple[str | None, bytes]] = deque()
        self.is_down = False

    def publish(self, channel: str | None, data: bytes) -> None:
        if not self.is_down:
            self.messages.append((channel, data))

    def pass_on(self) -> None:
        """Let the next message arrive at all who are there."""
        channel, data = self.messages.popleft()
        for host in tuple(self.hosts.values()):
            if channel in (None, host.links.me.name) and not host.is_deaf:
                host.links.hear(data)

    def settle(self) -> None:
        """Let everything arrive, and what follows from it."""
        while sum(host.turns() for host in self.hosts.values()) or self.messages:
            while self.messages:
                self.pass_on()

    def passes(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass on all hosts."""
        for _ in range(round(seconds / step_s)):
            for host in self.hosts.values():
                host.time += step_s
                host.links.tick()
            self.settle()

    def kinds(self) -> list[str]:
        """What is on its way."""
        return [type(decode(data)).__name__ for _, data in self.messages]


class HostOfOne(World):
    """A host with one worker."""

    def __init__(
        self,
        engine: FakeEngine,
        host: str,
        *,
        pid: str = "7",
        boot: str = "boot",
        random: str = "",
        silence: float = SILENCE_S,
        **settings: Any,
    ) -> None:
        super().__init__(f"t{host}-", engine=Engine(url="redis://test"), **settings)
        self.teller = FakeTeller()
        self.is_deaf = False
        self.bus = PeerBus(self.center, pid)
        self.center.hub.bus = self.bus
        me = Identity(f"{host}.{pid}.{random or len(engine.hosts)}", host, boot, f"{host}.example")
        self.links = Links(self.bus, me, silence, publish=engine.publish, soon=self._soon, teller=self.teller)
        self.bus.far = self.links
        engine.hosts[f"{host}.{pid}"] = self
        self.links.begin()

    def turns(self) -> bool:  # type: ignore[override]
        """The loop turns until nobody waits for that; whether anybody did."""
        waited = bool(self._next_turn)
        super().turns()
        return waited


def hosts(size: int) -> tuple[FakeEngine, list[HostOfOne]]:
    """So many hosts that know each other."""
    engine = FakeEngine()
    all_of_them = [HostOfOne(engine, chr(ord("a") + number)) for number in range(size)]
    engine.settle()
    return engine, all_of_them
