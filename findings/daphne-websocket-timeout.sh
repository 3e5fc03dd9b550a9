#!/usr/bin/env bash
# When `--websocket_timeout` of daphne closes a WebSocket whose two ends talk to each other all the time.
#
# Guess: never. A timeout of a connection bounds its silence, as in nginx and HAProxy.
# Seen with daphne 4.2.3: so long after it was opened, however busy it is, and with 1000, as if somebody had wished it.
# The default is 86400: a client that stays connected is thrown out after each day, and one that takes 1000 for the end,
# as many do, does not come back. `--websocket_timeout -1` turns it off.
# Run by hand: bash findings/daphne-websocket-timeout.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install daphne==4.2.3 websockets==17.4
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "pong"})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

from daphne.cli import CommandLineInterface
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

EXPECTED = {"4": "closed with 1000", "-1": "open"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def seen(timeout):
    port = free_port()
    server = subprocess.Popen(
        [f"{sys.prefix}/bin/daphne", "-b", "127.0.0.1", "-p", str(port), "--websocket_timeout", timeout, "app:app"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None) as client:
            opened = time.monotonic()
            try:
                while (age := time.monotonic() - opened) < 12:
                    client.send("ping")
                    client.recv(timeout=10)
                    time.sleep(0.2)
            except ConnectionClosed:
                return f"closed with {client.close_code}", age
            return "open", age
    finally:
        server.kill()
        server.wait()


default = CommandLineInterface().parser.get_default("websocket_timeout")
print("default:", default)
same = default == 86400
for timeout, expected in EXPECTED.items():
    what, age = seen(timeout)
    same &= what == expected and (what == "open" or 3 < age < 9)
    print(f"--websocket_timeout {timeout}: {what} after {age:.0f} s, a message each 0.2 s")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
