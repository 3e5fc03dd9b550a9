#!/usr/bin/env bash
# When a consumer of Django Channels is told by `disconnect()` that its client has gone, if its `receive()` is busy at
# the time, as with a slow query or a call of another service.
#
# Documentation: `disconnect()` is called when the connection is lost. Guess: it is called whenever that happens, so
# that one leaves groups and counts who is there in it.
# Seen with the versions below: messages of a consumer are handled one after another, so that it comes when `receive()`
# has returned, here 13 s later under uvicorn. daphne cancels the consumer ten seconds after the client has gone, and
# `disconnect()` is never called: the client stays in its groups and among those who are present.
# `--application-close-timeout` of daphne is that time, and `finally` or `except CancelledError` in `receive()` the only
# place that is told. Start slow work as a task, and return.
# Run by hand: bash findings/channels-busy-consumer-is-not-told.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install channels==4.3.2 daphne==4.2.3 django==5.2.19 uvicorn==0.54.0 \
    websockets==16.1.1 setuptools==75.8.0
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio
from django.conf import settings

settings.configure(SECRET_KEY="not secret")
from channels.generic.websocket import AsyncWebsocketConsumer

BUSY_S = 13


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        self.say("busy")
        try:
            await asyncio.sleep(BUSY_S)
            self.say("done")
        except asyncio.CancelledError:
            self.say("cancelled")
            raise

    async def disconnect(self, code):
        self.say("disconnect")

    def say(self, what):
        with open("said", "a") as file:
            print(what, file=file)


app = Consumer.as_asgi()
PYTHON

cat >drive.py <<'PYTHON'
import pathlib, socket, subprocess, sys, time
from websockets.sync.client import connect

SERVERS = {
    "daphne": "daphne --port {port} app:app",
    "daphne with a longer timeout": "daphne --application-close-timeout 60 --port {port} app:app",
    "uvicorn": "uvicorn --port {port} --lifespan off app:app",
}
TOLD = ["busy", "done", "disconnect"]
EXPECTED = {"daphne": ["busy", "cancelled"], "daphne with a longer timeout": TOLD, "uvicorn": TOLD}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def said(name):
    pathlib.Path("said").write_text("")
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    with open("log", "w") as log:
        server = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None) as client:
            client.send("work")
            time.sleep(0.5)
        time.sleep(18)
        return pathlib.Path("said").read_text().split()
    finally:
        server.terminate()
        server.wait(30)


same = True
for name, expected in EXPECTED.items():
    what = said(name)
    same &= what == expected
    print(f"{name}: {', '.join(what)}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
