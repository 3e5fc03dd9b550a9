"""Clients as users have them, with the Python client: they talk in pairs, whatever happens to the service meanwhile."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.hosts.console import DOMAIN, Console, clients_come_to
from wsbundle_client import Client, RequestError

# With all other clients of a test, fewer than limits.connections_per_address.
TALKERS = 12
PATIENCE_S = 10.0


class Talker:
    """One client. `accepted` has the numbers that the service has taken from it, `heard` those that came to it."""

    def __init__(self, number: int) -> None:
        self.uuid = f"talker-{number}"
        self.client = Client(f"ws://{DOMAIN}/", uuid=self.uuid)
        self.accepted: set[int] = set()
        self.heard: set[int] = set()

    async def talk(self, to: "Talker") -> None:
        for number in itertools.count():
            try:
                await self.client.send(to.uuid, number)
            except RequestError as error:
                if not error.temporary:
                    raise
            else:
                self.accepted.add(number)
            await asyncio.sleep(0.02)

    async def listen(self) -> None:
        async for message in self.client:
            self.heard.add(message.message)


class Talk:
    """All of them. The next one of each is whom it talks to."""

    def __init__(self) -> None:
        self.talkers = [Talker(number) for number in range(TALKERS)]
        self.pairs = list(itertools.pairwise([*self.talkers, self.talkers[0]]))

    @property
    def accepted(self) -> int:
        return sum(len(talker.accepted) for talker in self.talkers)

    def missing(self) -> list[str]:
        """What was accepted and has not come."""
        return [f"{one.uuid}: {lost}" for one, other in self.pairs if (lost := sorted(one.accepted - other.heard))]

    async def has_come(self) -> None:
        """Wait for all that was accepted."""
        for _ in range(round(PATIENCE_S / 0.05)):
            if not self.missing():
                break
            await asyncio.sleep(0.05)


@asynccontextmanager
async def talk(console: Console) -> AsyncIterator[Talk]:
    """They talk as long as the block lasts; at its end all that was accepted must have come."""
    with clients_come_to(console.host.address):
        async with AsyncExitStack() as stack:
            of = Talk()
            for talker in of.talkers:
                await asyncio.wait_for(stack.enter_async_context(talker.client), PATIENCE_S)
            listening = [asyncio.create_task(talker.listen()) for talker in of.talkers]
            talking = [asyncio.create_task(one.talk(other)) for one, other in of.pairs]
            try:
                yield of
            finally:
                ended = [task for task in (*talking, *listening) if task.done()]
                for task in talking:
                    task.cancel()
            await of.has_come()
            assert of.missing() == []
            for task in ended:
                task.result()
            assert not ended
            for task in listening:
                task.cancel()
