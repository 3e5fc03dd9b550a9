#!/usr/bin/env bash
# Whether aiohttp answers the pings of the other end while its own program only sends, as a feed of prices does.
#
# Documentation: `autoping`: automatically send PONG on PING message; it is on by default. Guess: so it does, at both ends;
# answering is the library's business, and the program need not do anything for it.
# Seen with aiohttp 3.14.5: it answers only within `receive()`. A handler of its server, or a client, that sends ten
# messages a second and never receives is cut off by the other end for `keepalive ping timeout` (1011): after 40 s with the
# defaults of uvicorn and `websockets`, while all that it sent arrived. Until then `closed` is False. With a task that
# receives, even if nothing ever comes, the connection stays.
# Run by hand: bash findings/aiohttp-answers-pings-while-receiving.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install aiohttp==3.14.5 websockets==16.1.1
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, logging, sys, time

import aiohttp, websockets
from aiohttp import web

PINGS = {"ping_interval": 1, "ping_timeout": 2, "close_timeout": 1}
logging.getLogger("websockets").setLevel(logging.CRITICAL)


async def feed(connection, receives):
    """Send for eight seconds: how long it was possible."""
    began = time.monotonic()
    reader = asyncio.create_task(connection.receive()) if receives else None
    try:
        while time.monotonic() - began < 8:
            await connection.send_str("a price")
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass
    if reader is not None:
        reader.cancel()
    return time.monotonic() - began


async def drained(connection):
    """Receive all: the close frame that this end has sent."""
    try:
        while True:
            await connection.recv()
    except websockets.ConnectionClosed as closed:
        return str(closed.sent)


async def server_feeds(receives):
    lasted = asyncio.get_running_loop().create_future()

    async def handler(request):
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        lasted.set_result(await feed(connection, receives))
        return connection

    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with websockets.connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/", proxy=None, **PINGS) as client:
        sent = await drained(client)
    seconds = await lasted
    await runner.cleanup()
    return seconds, sent


async def client_feeds(receives):
    ended = asyncio.get_running_loop().create_future()

    async def handler(connection):
        ended.set_result(await drained(connection))

    async with websockets.serve(handler, "127.0.0.1", 0, **PINGS) as server:
        port = server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port}/") as connection:
            seconds = await feed(connection, receives)
        return seconds, await ended


async def main():
    same = True
    for what in server_feeds, client_feeds:
        for receives in (False, True):
            seconds, sent = await what(receives)
            cut = seconds < 7 and "1011" in sent and "keepalive ping timeout" in sent
            same &= cut is not receives
            print(f"{what.__name__}, {'with' if receives else 'without'} a task that receives: lasted {seconds:.0f} s, "
                  f"the other end closed with {sent}")
    return same


sys.exit(0 if asyncio.run(main()) else "This has changed.")
PYTHON
venv/bin/python drive.py
