#!/usr/bin/env bash
# What becomes of a connection that a server has accepted when its protocol factory raises, as one may that refuses a
# client because there are too many.
#
# Guess: the connection is closed, since nobody can ever read it. So it is under asyncio.
# Seen with uvloop 0.23.0: the error is logged, and the connection stays open until the process ends, also after the
# garbage collector has run: the client waits for an answer, and each costs a descriptor.
# Run by hand: bash findings/uvloop-connection-of-a-failed-factory.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, gc, socket, sys

import uvloop

EXPECTED = {"asyncio": ("", "closed"), "uvloop": ("no protocol", "open")}


def fails():
    raise RuntimeError("no protocol")


async def seen():
    """What is logged, and what the client has."""
    logged = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: logged.append(str(context["exception"])))
    server = await loop.create_server(fails, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        for _ in range(10):
            await asyncio.sleep(0.2)
            gc.collect()
        client.setblocking(False)
        try:
            state = "closed" if client.recv(1) == b"" else "answered"
        except BlockingIOError:
            state = "open"
    server.close()
    return " ".join(logged), state


found = {}
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    loop = new_loop()
    found[name] = logged, state = loop.run_until_complete(seen())
    loop.close()
    print(f"{name:8} logged: {logged or 'nothing'}; the connection is {state}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
