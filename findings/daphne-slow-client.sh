#!/usr/bin/env bash
# What becomes of 200 MB that an ASGI application sends to a client that reads nothing.
#
# ASGI makes `send` awaitable. Guess: it waits when the buffers are full, and goes on when the client reads, so that a
# slow client costs the server some megabytes at most.
# Seen with the versions below: so it is under uvicorn, hypercorn, granian and gunicorn. Under daphne `send` returns at once,
# and all 200 MB stand in the server's memory. An application cannot find out that a client is slow.
# Run by hand: bash findings/daphne-slow-client.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio
import resource


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    before, sent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(200):
        await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
        sent += 1
        with open("sent", "w") as file:
            file.write(f"{sent} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024}")
        await asyncio.sleep(0)
    await receive()
PYTHON

cat >drive.py <<'PYTHON'
import pathlib, socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 1 --no-control-socket"
    " --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {"uvicorn": "waits", "hypercorn": "waits", "granian": "waits", "gunicorn": "waits", "daphne": "returns"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def sent_to_one_that_does_not_read(port):
    """How many messages of 1 MB were sent, and by how many MB the server grew."""
    pathlib.Path("sent").write_text("0 0")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        time.sleep(5)
        return [int(number) for number in pathlib.Path("sent").read_text().split()]


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
        return sent_to_one_that_does_not_read(port)
    finally:
        process.terminate()
        process.wait(20)


found = {}
for name in EXPECTED:
    sent, grown = seen(name)
    found[name] = "returns" if sent == 200 and grown > 100 else "waits" if sent < 20 else "neither"
    print(f"{name:10} send {found[name]}: {sent} of 200 MB, the server grew by {grown} MB")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
