#!/usr/bin/env bash
# What hypercorn does with a client that answers none of its pings, as when a browser's machine sleeps or a proxy holds a
# connection whose client has long gone.
#
# Documentation: `websocket_ping_interval`: if set, the time in seconds between pings. Guess: a client that answers
# none is closed after an interval or two, as uvicorn and daphne do with theirs; finding out who is gone is all that
# pings are for.
# Seen with the versions below, with an interval of one second: hypercorn sends one after another, never looks for an answer,
# and keeps the connection, and the application's task, as long as the other end's kernel acknowledges the bytes.
# Run by hand: bash findings/hypercorn-unanswered-pings.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 daphne==4.2.3
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
    while (await receive())["type"] != "websocket.disconnect":
        pass
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --ws-ping-interval 1 --ws-ping-timeout 1",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --websocket-ping-interval 1",
    "daphne": "daphne -b 127.0.0.1 -p {port} --ping-interval 1 --ping-timeout 1 app:app",
}
EXPECTED = {"uvicorn": "ends it", "hypercorn": "keeps it", "daphne": "ends it"}
SECONDS = 15


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def silent_client(port):
    """Whether the connection is kept, and how many pings came."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1)
        pings, until = 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            try:
                frame = client.recv(4096)
            except ConnectionResetError:
                return "ends it", pings
            if not frame or frame[0] == 0x88:
                return "ends it", pings
            pings += frame.count(b"\x89")
        return "keeps it", pings


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
        return silent_client(port)
    finally:
        process.terminate()
        process.wait(60)


found = {name: seen(name) for name in SERVERS}
for name, (what, pings) in found.items():
    print(f"{name:10} a client that has answered none of {pings} pings: {what}")
same = {name: what for name, (what, _) in found.items()} == EXPECTED and found["hypercorn"][1] > 5
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
