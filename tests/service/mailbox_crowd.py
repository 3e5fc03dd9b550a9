"""Senders and recipients of a service that is killed again and again, and what they were told.

Each sender numbers its messages to each recipient, and sends again what had no answer. A recipient keeps its position,
as an application would.
"""

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

_LOST = (OSError, WebSocketException, asyncio.TimeoutError, TimeoutError)
IN_FLIGHT = 200
PATIENCE_S = 10.0
FINISH_S = 600.0


class Crowd:
    """Some senders and recipients; `told` has, by sender and recipient, how many messages were told to be stored."""

    def __init__(
        self,
        url: str | list[str],
        tokens: dict[str, str],
        senders: list[str],
        recipients: list[str],
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.in_flight = in_flight
        self.url, self.tokens = url, tokens
        self.senders, self.recipients = senders, recipients
        self.told: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.heard: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.broken: list[str] = []
        self.full = 0
        self.news = asyncio.Event()
        self.is_over = False
        self.done: set[str] = set()
        """Senders that have an answer to everything."""
        self.positions: dict[str, dict[str, Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open_all(self) -> None:
        """Every recipient asks for its mailbox once."""
        for name in self.recipients:
            async with self._connected(name, mailbox={}) as (_, answer):
                found = answer["mailbox"]
                self.positions[name] = {"epoch": found["epoch"], "after": found["after"]}

    def start(self) -> None:
        """Let everybody send and receive."""
        works = [*map(self.send, self.senders), *map(self.receive, self.recipients)]
        self._tasks = [asyncio.create_task(work) for work in works]

    async def finish(self) -> None:
        """Send nothing new, and wait until everything is answered and fetched."""
        self.is_over = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), FINISH_S)

    @contextlib.asynccontextmanager
    async def _connected(self, name: str, **hello: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
        async with connect(
            self.url if isinstance(self.url, str) else random.choice(self.url),
            proxy=None,
            compression=None,
            subprotocols=[Subprotocol("nc.v1")],
            open_timeout=PATIENCE_S,
            close_timeout=1,
            max_queue=None,
        ) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "hello", "id": 0, "uuid": name, "token": self.tokens[name], **hello}))
            answer = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
            if answer["type"] != "ok":
                raise OSError(answer["reason"])
            yield socket, answer

    async def send(self, name: str) -> None:
        """Send until it is over, and until everything is answered."""
        numbers = self._numbers(name)
        open_ones: dict[str, str] = {}
        while not self.is_over or open_ones:
            try:
                async with self._connected(name) as (socket, _):
                    for text in open_ones.values():
                        await socket.send(text)
                    await self._exchange(name, socket, numbers, open_ones)
            except _LOST:
                await asyncio.sleep(random.uniform(0.05, 0.3))
        self.done.add(name)

    def _numbers(self, name: str) -> Iterator[tuple[str, str]]:
        number = 0
        while True:
            number += 1
            for to in self.recipients:
                key = f"{to}:{number}"
                frame = {"recipient_uuid": to, "message": [name, number], "id": key, "dedup": key}
                yield key, json.dumps(frame)

    async def _exchange(
        self, name: str, socket: ClientConnection, numbers: Iterator[tuple[str, str]], open_ones: dict[str, str]
    ) -> None:
        while not self.is_over or open_ones:
            while len(open_ones) < self.in_flight and not self.is_over:
                key, text = next(numbers)
                open_ones[key] = text
                await socket.send(text)
            answer = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
            key = answer["id"]
            if answer["type"] == "ok":
                to, _, number = key.partition(":")
                if answer.get("stored") is not True:
                    self.broken.append(f"{name}: {answer}")
                self.told[name, to].add(int(number))
                self.news.set()
                del open_ones[key]
            elif answer["code"] in (116, 117, 118):
                # In order, or a later one would be stored before it.
                self.full += 1
                raise OSError("not now")
            else:
                self.broken.append(f"{name}: {answer}")
                del open_ones[key]

    async def receive(self, name: str) -> None:
        """Take everything, confirm some of it at a time, until everything is there that was told."""
        while not self.has_all(name):
            position = self.positions.get(name, {})
            try:
                async with self._connected(name, mailbox=position) as (socket, answer):
                    found = answer["mailbox"]
                    if not found["whole"]:
                        self.broken.append(f"{name}: {found} after {position}")
                    at = self.positions[name] = {"epoch": found["epoch"], "after": found["after"]}
                    while not self.has_all(name):
                        await self._take(name, socket, at)
            except _LOST:
                await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _take(self, name: str, socket: ClientConnection, at: dict[str, Any]) -> None:
        try:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 1.0))
        except (asyncio.TimeoutError, TimeoutError):
            return  # to see whether all is there
        if frame["type"] != "msg" or frame["offset"] <= at["after"]:
            return
        sender, number = frame["message"]
        self.heard[sender, name].append(number)
        at["after"] = frame["offset"]
        if random.random() < 0.2:
            await socket.send(json.dumps({"type": "ack", "offset": frame["offset"]}))

    def has_all(self, name: str) -> bool:
        return len(self.done) == len(self.senders) and all(
            len(self.heard[sender, name]) >= max(self.told[sender, name], default=0) for sender in self.senders
        )

    @property
    def told_in_all(self) -> int:
        return sum(map(len, self.told.values()))

    def faults(self) -> list[str]:
        """What was told and not heard, heard twice or out of order, or not told as it was."""
        faults = list(self.broken)
        for (sender, name), numbers in self.told.items():
            heard = self.heard[sender, name]
            if missing := numbers - set(heard):
                faults.append(f"{sender} to {name}: {len(missing)} were told stored and are lost")
            if heard != sorted(set(heard)):
                faults.append(f"{sender} to {name}: out of order, or twice")
        return faults
