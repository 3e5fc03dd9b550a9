#!/usr/bin/env bash
# Whether a WebSocket client of curl_cffi answers pings while nothing else comes.
#
# Guess: it does. libcurl answers pings by itself (curl_ws_recv(3)), and the client reads in a task of its own.
# Seen with the versions below: it does not. The pong is written when the next message comes, or is sent. A server that
# pings, and has nothing to say for longer than its ping timeout, closes the connection with 1011.
# Run by hand: bash findings/curl-cffi-pings-of-a-quiet-server.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install curl_cffi==0.17.0 websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

from curl_cffi import AsyncSession
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def handle(connection):
    pong = await connection.ping()
    quiet = await answered(pong)
    await connection.send("a message")
    seen.append((quiet, await answered(pong)))
    await connection.wait_closed()


async def answered(pong):
    done, _ = await asyncio.wait([pong], timeout=2)
    return "answered" if done else "not answered"


async def of_curl_cffi(address):
    async with AsyncSession() as http:
        client = await http.ws_connect(address)
        await client.recv()
        await asyncio.sleep(3)
        await client.close()


async def of_websockets(address):
    async with connect(address) as client:
        await client.recv()
        await asyncio.sleep(3)


async def main():
    async with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        address = "ws://127.0.0.1:{}".format(server.sockets[0].getsockname()[1])
        for client in of_curl_cffi, of_websockets:
            await client(address)
            quiet, later = seen[-1]
            print(f"{client.__name__}, waiting for a message: a ping is {quiet} in 2 s; after a message it is {later}")
    return seen == [("not answered", "answered"), ("answered", "answered")]


seen = []
if not asyncio.run(main()):
    sys.exit("This has changed.")
PYTHON
venv/bin/python drive.py
