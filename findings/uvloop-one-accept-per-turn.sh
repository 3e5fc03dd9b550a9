#!/usr/bin/env bash
# How many of the connections that wait does a server accept in one turn of its loop?
#
# asyncio takes as many as its `backlog`. Guess: uvloop, which is made to be fast, takes all that wait as well.
# Seen with the version below: uvloop takes one in each turn, however many wait, so that after a restart the last of a
# thousand clients waits for a thousand turns.
# Run by hand: bash findings/uvloop-one-accept-per-turn.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, socket, sys

import uvloop

WAITING = 50
EXPECTED = {"asyncio": WAITING, "uvloop": 1}


async def most_in_one_turn():
    loop, accepted, turns = asyncio.get_running_loop(), 0, [0]

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            nonlocal accepted
            accepted += 1
            turns[-1] += 1
            transport.abort()

    def turn():
        turns.append(0)
        if accepted < WAITING:
            loop.call_soon(turn)

    listener = socket.create_server(("127.0.0.1", 0), backlog=WAITING)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(WAITING)]
    server = await loop.create_server(Protocol, sock=listener, backlog=WAITING)
    loop.call_soon(turn)
    while accepted < WAITING:
        await asyncio.sleep(0.01)
    server.close()
    for client in clients:
        client.close()
    return max(turns)


same = True
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    loop = new_loop()
    most = loop.run_until_complete(most_in_one_turn())
    loop.close()
    same &= most == EXPECTED[name]
    print(f"{name:8} {most} of {WAITING} in one turn")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
