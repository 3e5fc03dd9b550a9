#!/usr/bin/env bash
# What a WebSocket that is open sees, and what its application sees, when an ASGI server is stopped with SIGTERM.
#
# Guess: the server sends a close frame with 1001 or 1012, the application receives `websocket.disconnect`, and then
# `lifespan.shutdown`.
# Seen with the versions below: uvicorn alone does that (1012, at once).
#   hypercorn  closes after --graceful-timeout with 1011, "internal error"; the application is cancelled, not told.
#   granian    drops the TCP connection at once (1006).
#   gunicorn   (its own `asgi` worker) waits for the whole --graceful-timeout, drops the connection (1006), and skips
#              `lifespan.shutdown`, so what the application closes there stays open.
# Takes 20 s. Run by hand: bash findings/asgi-stop-open-websocket.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
import os


def note(word):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(word + "\n")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                note(event)
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    try:
        note((await receive())["type"])
    except BaseException as error:
        note(type(error).__name__)
        raise
PYTHON

cat >drive.py <<'PYTHON'
import os, signal, socket, subprocess, sys, time
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --graceful-timeout 2 --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 2 --no-control-socket"
    " --log-level critical",
}
EXPECTED = {
    "uvicorn": (1012, "websocket.disconnect lifespan.shutdown"),
    "hypercorn": (1011, "CancelledError lifespan.shutdown"),
    "granian": (1006, None),  # what the application sees varies from run to run
    "gunicorn": (1006, ""),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def stopped(name):
    port, notes = free_port(), f"{name}.notes"
    open(notes, "w").close()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], env={**os.environ, "NOTES": notes},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None) as client:
            time.sleep(0.3)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            try:
                client.recv(timeout=20)
            except ConnectionClosed:
                pass
            code, took = client.close_code, time.monotonic() - began
        process.wait(20)
    finally:
        process.kill()
    return code, " ".join(open(notes).read().split()), took


same = True
for name, expected in EXPECTED.items():
    code, seen, took = stopped(name)
    same &= code == expected[0] and expected[1] in (seen, None)
    print(f"{name:10} close code {code} after {took:.1f} s; the application saw: {seen or 'nothing'}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
