#!/usr/bin/env bash
# What `max_message_size_bytes` of the library httpx-ws, the WebSockets of httpx, does with a longer message.
#
# Documentation: "Message size in bytes to receive from the server", 65,536 by default. Guess: a longer one is refused, and
# the connection closed with 1009, as the options of nearly this name do in `websockets`, aiohttp and uvicorn.
# Seen with the versions below: it is how much is read from the socket at a time. With 1000 a message of a million
# characters is received whole, so that nothing bounds the memory that a server can take from such a client.
# Run by hand: bash findings/httpx-ws-max-message-size.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install httpx-ws==0.9.0 websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

import httpx, httpx_ws
from websockets.asyncio.server import serve
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LENGTH, LIMIT = 1_000_000, 1000


async def of_httpx_ws(address):
    async with httpx.AsyncClient() as http:
        async with httpx_ws.aconnect_ws(f"http://{address}", http, max_message_size_bytes=LIMIT) as client:
            return len(await client.receive_text(timeout=20))


async def of_websockets(address):
    async with connect(f"ws://{address}", max_size=LIMIT) as client:
        try:
            return len(await client.recv())
        except ConnectionClosed as closed:
            return f"closed with {closed.sent.code}"


async def main():
    async def handle(connection):
        await connection.send("x" * LENGTH)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        address = "127.0.0.1:{}/".format(server.sockets[0].getsockname()[1])
        got, other = await of_httpx_ws(address), await of_websockets(address)
    print(f"a message of {LENGTH} characters, and a limit of {LIMIT}: httpx-ws receives {got}; websockets: {other}")
    return got == LENGTH and other == "closed with 1009"


if not asyncio.run(main()):
    sys.exit("This has changed.")
PYTHON
venv/bin/python drive.py
