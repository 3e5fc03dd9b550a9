#!/usr/bin/env bash
# Whether a WebSocket handler of Sanic does the same under its own server and, as an ASGI application, under uvicorn.
#
# Its readme: it is ASGI compliant, so that another ASGI server can run it. Guess: the same handler does the same.
# Seen with the versions below: under uvicorn `recv()` returns None, again and again, when a client has gone, where its own
# server raises; `async for` on the connection is a TypeError; and a client whose handler has returned loses its
# connection without a close frame, 1006, where its own server closes with 1000. Look for None, and close by hand.
# Run by hand: bash findings/sanic-under-another-server.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install sanic==25.12.1 uvicorn==0.54.0 websockets==15.0.1
cd "$folder"

cat >application.py <<'PYTHON'
from sanic import Sanic

app = Sanic("application")


def note(what):
    with open("noted", "a") as file:
        file.write(f"{what}\n")


@app.websocket("/recv")
async def receives(request, websocket):
    try:
        for _ in range(3):
            note(repr(await websocket.recv()))
    except BaseException:
        note("raised")
        raise


@app.websocket("/for")
async def iterates(request, websocket):
    try:
        async for text in websocket:
            note(repr(text))
    except TypeError:
        note("TypeError")


@app.websocket("/returns")
async def returns(request, websocket):
    return
PYTHON
cat >drive.py <<'PYTHON'
import os, socket, subprocess, sys, time
from contextlib import suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

RUNS = {
    "its own server": (("sanic", "--single-process", "--no-access-logs"), "'hello', raised; 'hello'; closed with 1000"),
    "uvicorn": (("uvicorn", "--log-level", "critical"), "'hello', None, None; TypeError; closed with 1006"),
}


def noted():
    time.sleep(1)
    with open("noted") as file:
        words = ", ".join(file.read().split())
    os.remove("noted")
    return words


def seen(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", server[0], "application:app", "--port", str(port), *server[1:]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            told = []
            for path in ("recv", "for"):
                with connect(f"ws://127.0.0.1:{port}/{path}", proxy=None) as client, suppress(ConnectionClosed):
                    client.send("hello")
                    time.sleep(0.5)
                told.append(noted())
            with connect(f"ws://127.0.0.1:{port}/returns", proxy=None) as client:
                try:
                    client.recv(5)
                except TimeoutError:
                    told.append("stays connected")
                except ConnectionClosed:
                    told.append(f"closed with {client.close_code}")
            return "; ".join(told)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


same = True
for name, (server, expected) in RUNS.items():
    found = seen(server)
    print(f"under {name}: {found}")
    same &= found == expected
if not same:
    sys.exit("This has changed.")
PYTHON
timeout 200 venv/bin/python drive.py
