#!/usr/bin/env bash
# Whether a client that answers each ping at once keeps its connection while the application takes its time.
#
# The application works for a second on each message, the client sends 80 of them and waits. Guess: it stays connected; the
# messages wait in buffers (ASGI: `receive` is pulled), and pings are there to find clients that are gone.
# Seen with the versions below, with the ping settings at one second: uvicorn closes the connection for "keepalive ping
# timeout" (1011, or 1006 when that is lost), with wsproto too. It reads no further while messages wait for the
# application, so that it never sees the pong that comes behind them. hypercorn and daphne serve all of it.
# Run by hand: bash findings/uvicorn-keepalive-of-a-slow-app.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 wsproto==1.3.2 hypercorn==0.18.0 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(6):
        if (await receive())["type"] != "websocket.receive":
            return
        await asyncio.sleep(1)
    await send({"type": "websocket.send", "text": "still connected"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
PYTHON

cat >drive.py <<'PYTHON'
import logging, socket, subprocess, sys, threading, time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

# A connection that is reset while its client sends is a "closed" here.
logging.disable()
PINGS = "--ws-ping-interval 1 --ws-ping-timeout 1"
SERVERS = {
    "uvicorn": f"uvicorn app:app --port {{port}} --log-level critical {PINGS}",
    "uvicorn, wsproto": f"uvicorn app:app --port {{port}} --log-level critical {PINGS} --ws wsproto",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical --websocket-ping-interval 1",
    "daphne": "daphne -b 127.0.0.1 -p {port} --ping-interval 1 --ping-timeout 1 app:app",
}
EXPECTED = {
    "uvicorn": "closed",
    "uvicorn, wsproto": "closed",
    "hypercorn": "still connected",
    "daphne": "still connected",
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def send_all(client):
    try:
        for _ in range(80):
            client.send(bytes(200_000))
    except ConnectionClosed:
        pass


def last_word_to_client(port):
    with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None, compression=None) as client:
        threading.Thread(target=send_all, args=(client,), daemon=True).start()
        try:
            return client.recv(timeout=30)
        except ConnectionClosed:
            return "closed"


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
        return last_word_to_client(port)
    finally:
        process.terminate()
        process.wait(20)


same = True
for name, expected in EXPECTED.items():
    what = seen(name)
    same &= what == expected
    print(f"{name:17} {what}", flush=True)
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
