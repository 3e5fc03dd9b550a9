#!/usr/bin/env bash
# What an ASGI server makes of a close reason that is longer than the 123 bytes of a close frame.
#
# The ASGI specification allows any string for `reason` of `websocket.close`. Guess: all servers treat it alike.
# Seen with the versions below: hypercorn and gunicorn cut it to 123 bytes and close with the code that was asked for;
# under uvicorn (with websockets) and granian the code is lost as well, and the client sees 1006.
# Run by hand: bash findings/asgi-long-close-reason.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4000, "reason": "r" * 200})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 1 --no-control-socket"
    " --log-level critical",
}
EXPECTED = {"uvicorn": (1006, 0), "hypercorn": (4000, 123), "granian": (1006, 0), "gunicorn": (4000, 123)}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def seen_by_client(port):
    with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None) as client:
        try:
            return client.recv(timeout=10)
        except ConnectionClosed:
            return client.close_code, len(client.close_reason)


def seen(name):
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        return seen_by_client(port)
    finally:
        process.terminate()
        process.wait(20)


same = True
for name, expected in EXPECTED.items():
    what = seen(name)
    same &= what == expected
    print(f"{name:10} close code and length of the reason: {what}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
