#!/usr/bin/env bash
# What the WebSocket client of aiosonic does with a message in several frames, and with a ping.
#
# Guess: `receive_text()` gives the whole message, and a ping is answered: RFC 6455 asks for both (sections 5.4, 5.5.2).
# Seen with the versions below: of a message in three frames the application gets the first frame as if it were all of
# it, without an error, and the others are dropped. No ping is answered, so that a server that pings closes the connection;
# that code is not told either (`close_code` is None). The client's own pings (`keepalive_interval`) help with neither.
# Run by hand: bash findings/aiosonic-pieces-and-pings.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install aiosonic==1.3.3 websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

from aiosonic.exceptions import ConnectionDisconnected
from aiosonic.web_socket_client import WebSocketClient
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def handle(connection):
    if connection.request.path == "/pieces":
        await connection.send(["one ", "two ", "three"])
        await connection.send("next")
    await connection.wait_closed()
    ended.append(connection.protocol.close_sent.reason)


async def of_aiosonic(address, receive):
    async with WebSocketClient() as http, await http.connect(address, keepalive_interval=0.5) as client:
        return await receive(client)


async def of_websockets(address, receive):
    async with connect(address) as client:
        client.receive_text = client.recv
        return await receive(client)


async def two_messages(client):
    return [await client.receive_text(), await client.receive_text()]


async def quiet_for_3_s(client):
    try:
        await asyncio.wait_for(client.receive_text(), 3)
    except ConnectionDisconnected:
        return f"closed, close_code {client.close_code}"
    except asyncio.TimeoutError:
        return "open"


async def main():
    async with serve(handle, "127.0.0.1", 0, ping_interval=0.5, ping_timeout=1) as server:
        address = "ws://127.0.0.1:{}".format(server.sockets[0].getsockname()[1])
        seen = {}
        for client in of_aiosonic, of_websockets:
            messages = await client(f"{address}/pieces", two_messages)
            quiet = await client(f"{address}/quiet", quiet_for_3_s)
            seen[client] = messages, quiet
            print(f"{client.__name__}: 'one two three' in three frames, then 'next': {messages}; pinged for 3 s: {quiet}")
    print(f"how the server ended its connections: {ended}")
    return (
        seen[of_aiosonic] == (["one ", "next"], "closed, close_code None")
        and seen[of_websockets] == (["one two three", "next"], "open")
        and ended.count("keepalive ping timeout") == 1
    )


ended = []
if not asyncio.run(main()):
    sys.exit("This has changed.")
PYTHON
venv/bin/python drive.py
