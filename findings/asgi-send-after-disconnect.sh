#!/usr/bin/env bash
# What an ASGI application gets when it sends to a WebSocket whose client has gone.
#
# ASGI, version 2.4: `send` raises a subclass of `OSError`. Guess: so it does, in all servers of today; an application
# that only sends, and never receives, learns in this way that it may stop.
# Seen with the versions below: only uvicorn and gunicorn do. hypercorn, granian and daphne take the message and drop it,
# even two seconds after they have given the application its `websocket.disconnect`: a task that sends the price of
# something each second goes on for ever, one for each client that there ever was.
# Run by hand: bash findings/asgi-send-after-disconnect.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio, os


async def outcome(send):
    for _ in range(20):
        await asyncio.sleep(0.1)
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError:
            return "raises an OSError"
    return "raises nothing"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    with open("told.new", "w") as told:
        told.write(await outcome(send))
    os.rename("told.new", "told")
PYTHON

cat >drive.py <<'PYTHON'
import pathlib, socket, subprocess, sys, time

from websockets.sync.client import connect

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port}"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = dict.fromkeys(SERVERS, "raises nothing")
EXPECTED |= dict.fromkeys(("uvicorn", "gunicorn"), "raises an OSError")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def told(port):
    with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None):
        pass
    for _ in range(100):
        try:
            return pathlib.Path("told").read_text()
        except FileNotFoundError:
            time.sleep(0.1)
    return "nothing within 10 s"


def seen(name):
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1)
        return told(port)
    finally:
        process.terminate()
        process.wait(60)
        pathlib.Path("told").unlink(missing_ok=True)


same = True
for name, expected in EXPECTED.items():
    what = seen(name)
    same &= what == expected
    print(f"{name:10} send {what}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
