#!/usr/bin/env bash
# Whether `worker_connections` bounds the connections of gunicorn's ASGI worker.
#
# Started with threads, that worker says: "ASGI worker does not use threads configuration. Use worker_connections instead."
# Guess: it does what the worker recommends it for; with `--worker-connections 3` a fourth client is refused, or waits.
# Seen with gunicorn 27.0.1: all of 20 WebSockets are open at once. The setting has no
# effect, so that nothing but the limit of open files bounds a worker.
# Run by hand: bash findings/gunicorn-asgi-worker-connections.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
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
import contextlib, pathlib, socket, subprocess, sys, time

CLIENTS = 20
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


port = free_port()
options = f"--worker-class asgi --threads 2 --worker-connections 3 --bind 127.0.0.1:{port} --no-control-socket"
with open("log", "w") as log:
    gunicorn = subprocess.Popen(
        [sys.prefix + "/bin/gunicorn", "app:app", *options.split(), "--graceful-timeout", "1"], stderr=log
    )
accepted = 0
try:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    with contextlib.ExitStack() as opened:
        for _ in range(CLIENTS):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.sendall(HANDSHAKE)
            accepted += client.recv(100).startswith(b"HTTP/1.1 101")
finally:
    gunicorn.terminate()
    gunicorn.wait(20)
recommended = "Use worker_connections instead" in pathlib.Path("log").read_text()
print(f"worker_connections is recommended: {recommended}; with 3 of them {accepted} of {CLIENTS} WebSockets were open at once")
sys.exit(0 if recommended and accepted == CLIENTS else "This has changed.")
PYTHON
venv/bin/python drive.py
