#!/usr/bin/env bash
# How long a client of the `websockets` library that says `async for websocket in connect(...)` waits before it connects
# again, when the server accepts each connection and closes it.
#
# Documentation: a connection that fails is tried again with exponential backoff. Guess: a few seconds, and longer each
# time, so that a server that sends its clients away, with 1013 (try again later) or because it stops, is not overrun.
# Seen with the version below: it does not wait at all, whatever the close code. Only a connection that cannot be opened
# is followed by a pause; one that was opened and closed is followed by the next at once.
# Run by hand: bash findings/websockets-reconnects-at-once.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, http, sys
from importlib.metadata import version

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SECONDS = 3


async def connections(code):
    """How many the server sees in that time; without a code it refuses each with 503."""
    seen = 0

    def refuse(connection, request):
        nonlocal seen
        seen += 1
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "") if code is None else None

    async def stay(port):
        async for websocket in connect(f"ws://127.0.0.1:{port}/", proxy=None):
            try:
                await websocket.recv()
            except ConnectionClosed:
                pass

    async def close(websocket):
        await websocket.close(code)

    async with serve(close, "127.0.0.1", 0, process_request=refuse) as server:
        try:
            await asyncio.wait_for(stay(server.sockets[0].getsockname()[1]), SECONDS)
        except asyncio.TimeoutError:
            return seen


print("websockets", version("websockets"))
same = True
for code in (1000, 1001, 1013, None):
    count = asyncio.run(connections(code))
    same &= count > 20 if code else count < 5
    print(f"closed with {code}:" if code else "refused with 503:", f"{count} connections in {SECONDS} s")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
