"""A client as tests drive it: what a table of behaviours needs of a client in any language, and ours for Python."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import Any

from wsbundle_client.client import Client, Token
from wsbundle_client.errors import GoneError, RequestError
from wsbundle_client.mailbox import Memory
from wsbundle_client.messages import Sent

# Reached by nothing but a failure, however busy the machine is.
DEADLINE_S = 60.0

Frame = dict[str, Any]


class Call(ABC):
    """A method of the client that goes on."""

    @abstractmethod
    async def answer(self) -> Any:
        """What it has returned, `{"error": code}` with `temporary`, or `{"gone": reason}`."""

    @abstractmethod
    async def outcome(self) -> str:
        """Of a message that was sent with `ack="delivered"`."""


class Driver(ABC):
    """A client, and what it tells the application: its events, and `message`. `second` is how long a second lasts."""

    def __init__(self, second: float = 1.0) -> None:
        self.second = second

    @abstractmethod
    async def open(
        self,
        url: str,
        uuid: str | None = "alice",
        token: str | list[str] | None = None,
        max_kept: int = 1000,
        second: float | None = None,
        answers: bool = False,
        keeps: bool = False,
    ) -> None:
        """Begin to connect. A list of tokens is fetched one by one. `answers`: it sends "thanks" for each message.
        `keeps`: it has a mailbox, and keeps its position in memory.
        """

    @abstractmethod
    async def next_event(self) -> Frame:
        """What it tells next, with `kind`."""

    @abstractmethod
    async def call(self, method: str, *arguments: object, **options: object) -> Call: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def event(self, kind: str) -> Frame:
        """The next event, which is of this kind."""
        event = await self.next_event()
        if event["kind"] != kind:
            raise AssertionError(f"{event!r} in place of {kind!r}")
        return event


class PythonCall(Call):
    """A coroutine of `Client`."""

    def __init__(self, work: "asyncio.Task[Any]") -> None:
        self._work = work

    async def answer(self) -> Any:
        try:
            result = await asyncio.wait_for(self._work, DEADLINE_S)
        except RequestError as error:
            return {"error": error.code, "temporary": error.temporary}
        except GoneError as error:
            return {"gone": str(error)}
        if isinstance(result, Sent):
            return {"online": result.online}
        return sorted(result) if isinstance(result, set) else result

    async def outcome(self) -> str:
        sent: Sent = await asyncio.wait_for(self._work, DEADLINE_S)
        return await asyncio.wait_for(sent.outcome(), DEADLINE_S)


class PythonDriver(Driver):
    """`Client`, which waits as long as it says: its random share is 1."""

    def __init__(self, second: float = 1.0) -> None:
        super().__init__(second)
        self._events: asyncio.Queue[Frame] = asyncio.Queue()
        self._life: asyncio.Task[None] | None = None

    async def open(
        self,
        url: str,
        uuid: str | None = "alice",
        token: str | list[str] | None = None,
        max_kept: int = 1000,
        second: float | None = None,
        answers: bool = False,
        keeps: bool = False,
    ) -> None:
        self._client = Client(
            url,
            uuid,
            token=fetching(token) if isinstance(token, list) else token,
            on_event=lambda event: self._events.put_nowait(event._asdict()),
            mailbox=Memory() if keeps else None,
            max_kept=max_kept,
            second=second or self.second,
            random_share=lambda: 1.0,
        )
        self._life = asyncio.create_task(self._live(answers))
        await asyncio.sleep(0)

    async def _live(self, answers: bool) -> None:
        with contextlib.suppress(GoneError):
            async with self._client as client:
                async for message in client:
                    self._events.put_nowait({"kind": "message", **message._asdict()})
                    if answers:
                        await client.send(message.sender_uuid, "thanks")

    async def next_event(self) -> Frame:
        return await asyncio.wait_for(self._events.get(), DEADLINE_S)

    async def call(self, method: str, *arguments: object, **options: object) -> PythonCall:
        work = asyncio.create_task(getattr(self._client, method)(*arguments, **options))
        await asyncio.sleep(0)
        return PythonCall(work)

    async def close(self) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)


def fetching(tokens: list[str]) -> Token:
    """A function that gives one after the other."""
    left = iter(tokens)

    async def fetch() -> str:
        return next(left)

    return fetch
