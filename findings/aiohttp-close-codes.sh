#!/usr/bin/env bash
# What an aiohttp server and an aiohttp client report of a close frame, and with which code they answer it.
#
# Guess: `close_code` is 4001 after a close with 4001, and 1005 after a close frame without a code (RFC 6455, section
# 7.1.5); and they answer with the same code.
# Seen with aiohttp 3.14.5: both answer every close with 1000. After an empty close frame `close_code` is 0 in the server;
# in the client it is 1006, that of a lost connection, although both close frames have arrived. So a client cannot tell
# a server that closed from one that vanished, unless it keeps the message of type CLOSE.
# Run by hand: bash findings/aiohttp-close-codes.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install aiohttp==3.14.5 websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

from aiohttp import ClientSession, WSMsgType, web
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

# For aiohttp as server and as client: the `close_code` there, and the code of its answer.
EXPECTED = {
    ("server", "4001"): (4001, 1000), ("server", "no code"): (0, 1000), ("server", "lost"): (1006, None),
    ("client", "4001"): (4001, 1000), ("client", "no code"): (1006, 1000), ("client", "lost"): (1006, None),
}
ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


async def end(websocket, how):
    """End a connection of the `websockets` library; the code that the other end answered with."""
    if how == "4001":
        await websocket.close(4001)
    elif how == "lost":
        websocket.transport.abort()
    else:
        websocket.protocol.send_close()
        websocket.transport.writelines(websocket.protocol.data_to_send())
    await asyncio.sleep(0.5)
    return websocket.protocol.close_rcvd.code if websocket.protocol.close_rcvd else None


async def reported(websocket):
    """The `close_code` of an aiohttp WebSocket once it has ended."""
    while (await websocket.receive()).type not in ENDS:
        pass
    return websocket.close_code


async def as_server(how):
    told = asyncio.get_running_loop().create_future()

    async def serves(request):
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        told.set_result(await reported(websocket))
        return websocket

    application = web.Application()
    application.router.add_get("/", serves)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    answered = await end(await connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/", proxy=None), how)
    result = await asyncio.wait_for(told, 10), answered
    await runner.cleanup()
    return result


async def as_client(how):
    answered = asyncio.get_running_loop().create_future()

    async def serves(websocket):
        answered.set_result(await end(websocket, how))

    async with serve(serves, "127.0.0.1", 0) as server, ClientSession() as session:
        websocket = await session.ws_connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        return await asyncio.wait_for(reported(websocket), 20), await answered


async def main():
    return {(role, how): await {"server": as_server, "client": as_client}[role](how) for role, how in EXPECTED}


found = asyncio.run(main())
for (role, how), (code, answered) in found.items():
    print(f"aiohttp as {role}, the other end: {how:8} close_code {code}, answered with {answered}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
