"""What became of every message on two hosts of two workers, while the engine between them was killed and held up, its
connections were cut, and workers were killed, held up and replaced.

As in `tests.service.test_history`, whose promises are checked.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from tests.service.processes import Processes, several
from tests.service.releases import release_before
from tests.service.servers import PROGRAMS, Server, serving
from tests.service.shells import ROOT
from tests.service.test_history import SEED, Actor, Faults, History, Life, Sent, play

SILENCE_S = 2
CLIENTS = 12
# The engine is away for so long at most.
AWAY_S = 4.0


class HistoryOfHosts(History):
    """Also of messages to a group of all clients. What is told may take longer than between workers."""

    def __init__(self) -> None:
        super().__init__()
        self.to_group: dict[int, Sent] = {}
        self.heard_in_group: dict[int, list[int]] = {}
        """By the life in which they were heard, in order."""

    def violations(self) -> Iterator[str]:
        yield from super().violations()
        heard: Counter[int] = Counter()
        for numbers in self.heard_in_group.values():
            heard.update(numbers)
            for number, times in Counter(numbers).items():
                if times > 1:
                    yield f"{self.to_group[number]} came {times} times to one client"
            last: dict[int, int] = {}
            for number in numbers:
                sender = id(self.to_group[number].life)
                if number < last.get(sender, 0):
                    yield f"{self.to_group[number]} came after {last[sender]}"
                last[sender] = number
        for sent in self.to_group.values():
            waited = sent.life.lasts(sent.at, sent.at + self.patience_s)
            receipts = sum(answer.get("receipts", 0) for answer in sent.answers)
            if len(sent.answers) > 1 or (waited and not sent.answers):
                yield f"{sent} has {len(sent.answers)} answers"
            if len(sent.outcomes) > receipts or (waited and len(sent.outcomes) < receipts):
                yield f"{sent} has {receipts} receipts"
            if sent.outcomes.count("delivered") > heard[sent.number]:
                yield f"{sent} came {heard[sent.number]} times"

    @property
    def patience_s(self) -> float:
        # Short absences of the engine, one after another, hold up a message, its answer, and what is behind them.
        return super().patience_s + SILENCE_S + 2 * AWAY_S


class ActorOfHosts(Actor):
    """A client that is in a group with all others."""

    _history: HistoryOfHosts

    async def _hear(self, link: ClientConnection, frame: dict[str, Any]) -> None:
        if frame.get("type") == "msg" and "group" in frame:
            self._history.heard_in_group.setdefault(id(self.life), []).append(frame["message"])
            if "key" in frame:
                with contextlib.suppress(WebSocketException):
                    await link.send(json.dumps({"type": "ack", "key": frame["key"]}))
        elif frame.get("id") in self._history.to_group:
            sent = self._history.to_group[frame["id"]]
            if frame["type"] in ("ok", "error"):
                sent.answers.append(frame)
            else:
                sent.outcomes.append(frame["type"])
        elif frame.get("id") != "join":
            await super()._hear(link, frame)
            if frame.get("id") == "hello":
                with contextlib.suppress(WebSocketException):
                    await link.send(json.dumps({"type": "join", "id": "join", "group": "all"}))

    def _one_message(self, life: Life, to: str) -> dict[str, Any]:
        message = super()._one_message(life, to)
        if self._dice.random() < 0.2:
            number = message["id"]
            self._history.to_group[number] = self._history.sent.pop(number)
            del message["recipient_uuid"]
            message["group"] = "all"
        return message


class Hosts:
    """Both hosts, as one to whoever looks for a worker."""

    def __init__(self, hosts: list[Processes]) -> None:
        self.hosts = hosts

    @property
    def shell(self) -> Any:
        return random.choice(self.hosts).shell

    def pids(self) -> list[int]:
        return [pid for host in self.hosts for pid in host.pids()]

    def worker_of(self, client_port: int) -> int:
        return next(filter(None, (host.worker_of(client_port) for host in self.hosts)), 0)


class FaultsOfHosts(Faults):
    """What happens to the engine as well."""

    def __init__(self, hosts: Hosts, history: History, actors: list[Actor], engine: Server) -> None:
        super().__init__(hosts, history, actors)  # type: ignore[arg-type]
        self._engine = engine
        self._is_there = asyncio.Event()
        self._is_there.set()

    def weighted(self) -> dict[Any, int]:
        return {
            self._kill_engine: 3,
            self._hold_engine: 4,
            self._cut: 2,
            self._kill: 2,
            self._hold: 2,
            self._hang_up: 1,
            self._disconnect: 6,
        }

    def _away(self) -> float:
        self._is_there.clear()
        return self._dice.uniform(0.1, AWAY_S)

    def _kill_engine(self) -> object:
        if not self._is_there.is_set():
            return ""
        self._engine.kill()
        away = self._away()
        asyncio.get_running_loop().call_later(away, self._start_engine)
        return away

    def _start_engine(self) -> None:
        self._engine.start()
        self._is_there.set()

    def _hold_engine(self) -> object:
        if not self._is_there.is_set():
            return ""
        self._engine.send(signal.SIGSTOP)
        away = self._away()
        asyncio.get_running_loop().call_later(away, self.let_engine_go)
        return away

    def let_engine_go(self) -> None:
        """It goes on."""
        self._engine.send(signal.SIGCONT)
        self._is_there.set()

    def _cut(self) -> object:
        return self._engine.ask("CLIENT", "KILL", "TYPE", "pubsub") if self._is_there.is_set() else ""

    async def happen(self, until: float) -> None:
        """At the end the engine is there again."""
        await super().happen(until)
        await self._is_there.wait()


async def live(hosts: Hosts, engine: Server) -> tuple[HistoryOfHosts, FaultsOfHosts]:
    """All of it; at the end everybody reaches everybody, soon."""
    history = HistoryOfHosts()
    names = [f"client {number}" for number in range(CLIENTS)]
    actors: list[Actor] = [
        ActorOfHosts(name, "nc.v1", hosts.hosts[number % 2], history, names)  # a client stays on its host
        for number, name in enumerate(names)
    ]
    faults = FaultsOfHosts(hosts, history, actors, engine)
    await play(history, actors, faults)
    return history, faults


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_message_between_hosts_becomes_what_was_promised(name: str, tmp_path: Path) -> None:
    happens(name, tmp_path, {"a": str(ROOT), "b": str(ROOT)})


@pytest.mark.slow
def test_so_it_does_between_hosts_of_two_releases(tmp_path: Path) -> None:
    happens(PROGRAMS[0], tmp_path, {"a": str(ROOT), "b": release_before(tmp_path / "before")})


def happens(name: str, tmp_path: Path, releases: dict[str, str]) -> None:
    """All of it, with the code of each host."""
    print(f"WEBSOCKET_HISTORY_SEED={SEED}")
    with contextlib.ExitStack() as both:
        engine = both.enter_context(serving(name, tmp_path))
        settings = {
            "WEBSOCKET_ENGINE_URL": engine.url,
            "WEBSOCKET_ENGINE_SILENCE": str(SILENCE_S),
            "WEBSOCKET_DRAIN_WINDOW": "1",
        }
        hosts = Hosts(
            [
                both.enter_context(several("runner", 2, tmp_path / host, at, WEBSOCKET_ENGINE_HOST=host, **settings))
                for host, at in releases.items()
            ]
        )
        history, faults = asyncio.run(live(hosts, engine))
        left = sum(sent.has_left for sent in history.sent.values())
        across = sum(
            sent.has_left and (int(sent.life.owner[7:]) + int(sent.to[7:])) % 2 for sent in history.sent.values()
        )
        print(f"{len(history.to_group)} to the group, {sum(map(len, history.heard_in_group.values()))} heard of them")
        print(f"{len(history.sent)} sent, {left} told to have left, {across} of them for the other host")
        codes = [answer.get("code") for sent in history.sent.values() for answer in sent.answers]
        print(dict(faults.happened), f"{history.late_s:.2f} s late", {code: codes.count(code) for code in set(codes)})
        broken = list(itertools.islice(history.violations(), 50))
        assert not broken, "\n".join((*faults.told, *broken))
        for host in hosts.hosts:
            assert "Traceback" not in host.shell.log()
    assert across > 0
