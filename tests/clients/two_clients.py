"""Two clients that meet: docs/clients.md shows this program, and runs it."""

import asyncio
import os

from wsbundle_client import Client

URL = os.environ.get("WEBSOCKET_URL", "ws://127.0.0.1:8765/")


async def answer(bob: Client) -> None:
    async for message in bob:
        await bob.send(message.sender_uuid, {"you said": message.message})


async def main() -> None:
    async with Client(URL, uuid="bob") as bob, Client(URL, uuid="carol") as carol:
        answering = asyncio.create_task(answer(bob))
        sent = await carol.send("bob", "hello", ack="delivered")
        print(await sent.outcome())
        async for message in carol:
            print(message.sender_uuid, message.message)
            break
        answering.cancel()


if __name__ == "__main__":
    asyncio.run(main())
