#!/usr/bin/env bash
# With which code a client of a WebSocket is closed whose handler has raised an exception, in four frameworks.
#
# RFC 6455, section 7.4.1: 1011 is for a server that has met something that it did not expect, 1000 for a connection whose
# purpose has been fulfilled. Guess: 1011 everywhere, as what raises in a plain request is answered with 500.
# Seen with the versions below: Falcon and BlackSheep close with 1011; Quart under uvicorn and under hypercorn, and Sanic
# under its own server, with 1000: a client that reconnects unless it was told 1000, and a metric that counts codes, take
# the fault for a goodbye. Catch exceptions in the handler, and close with 1011 there.
# Run by hand: bash findings/asgi-frameworks-raise.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install quart==0.22.0 sanic==25.12.1 falcon==4.4.0 \
    blacksheep==2.6.4 uvicorn==0.54.0 hypercorn==0.18.0 websockets==15.0.1
cd "$folder"

cat >of_quart.py <<'PYTHON'
from quart import Quart, websocket

app = Quart(__name__)


@app.websocket("/")
async def handle():
    await websocket.send(await websocket.receive())
    raise RuntimeError("a fault of the application")
PYTHON
cat >of_sanic.py <<'PYTHON'
from sanic import Sanic

app = Sanic("of_sanic")


@app.websocket("/")
async def handle(request, websocket):
    await websocket.send(await websocket.recv())
    raise RuntimeError("a fault of the application")
PYTHON
cat >of_falcon.py <<'PYTHON'
import falcon.asgi


class Resource:
    async def on_websocket(self, request, websocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        raise RuntimeError("a fault of the application")


app = falcon.asgi.App()
app.add_route("/", Resource())
PYTHON
cat >of_blacksheep.py <<'PYTHON'
from blacksheep import Application, WebSocket, ws

app = Application()


@ws("/")
async def handle(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    raise RuntimeError("a fault of the application")
PYTHON
cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

UVICORN = ("uvicorn", "--port", "PORT", "--log-level", "critical")
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:PORT", "--log-level", "CRITICAL")
OWN = ("sanic", "--port", "PORT", "--single-process", "--no-access-logs")
RUNS = (
    *(("of_quart", UVICORN, 1000), ("of_quart", HYPERCORN, 1000), ("of_sanic", OWN, 1000)),
    *(("of_falcon", UVICORN, 1011), ("of_falcon", HYPERCORN, 1011)),
    *(("of_blacksheep", UVICORN, 1011), ("of_blacksheep", HYPERCORN, 1011)),
)


def code(module, server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    words = [word.replace("PORT", port) for word in server]
    command = [sys.executable, "-m", words[0], f"{module}:app", *words[1:]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    client = connect(f"ws://127.0.0.1:{port}/", proxy=None)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            with client:
                client.send("hello")
                assert client.recv(20) == "hello"
                try:
                    client.recv(20)
                except ConnectionClosed:
                    pass
            return client.close_code
        finally:
            process.terminate()


same = True
for module, server, expected in RUNS:
    seen = code(module, server)
    print(f"{module[3:]} under {server[0] if server is not OWN else 'its own server'}: closed with {seen}")
    same &= seen == expected
if not same:
    sys.exit("This has changed.")
PYTHON
timeout 200 venv/bin/python drive.py
