#!/usr/bin/env bash
# What a client sees of `raise HTTPException(401)` in a WebSocket route of FastAPI, before the connection is accepted, and of
# any other exception there.
#
# Guess: 401 with its headers and body under every server that can send them with a refusal, 403 under the others, since
# Starlette asks which can (`websocket.http.response`); and 500 for the other exception.
# Seen with the versions below: 401 under uvicorn, hypercorn and granian, 403 under gunicorn, and nothing under daphne: the
# client waits, and four seconds later the connection is reset. For this exception Starlette does not ask, but sends
# `websocket.http.response.start`, which daphne leaves unanswered. uvicorn logs an error for each refusal of this kind.
# Another exception is 500, but 403 under granian.
# Run by hand: bash findings/starlette-http-exception-before-accept.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install fastapi==0.165.0 starlette==1.10.0 \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
from fastapi import FastAPI, HTTPException, WebSocket

app = FastAPI()


@app.websocket("/refused")
async def refused(websocket: WebSocket):
    raise HTTPException(401, "no token", headers={"WWW-Authenticate": "Bearer"})


@app.websocket("/broken")
async def broken(websocket: WebSocket):
    raise ValueError("a mistake")
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port}",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port}",
    "granian": "granian app:app --port {port} --interface asgi",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 1 --no-control-socket",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {
    "uvicorn": ("401", "500"),
    "hypercorn": ("401", "500"),
    "granian": ("401", "403"),
    "gunicorn": ("403", "500"),
    "daphne": ("nothing", "500"),
}
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, path):
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(REQUEST.format(path=path).encode())
        try:
            received = client.recv(4096)
        except ConnectionError:
            received = b""
    return received.split()[1].decode() if received else "nothing"


def seen(name):
    """The answers, and whether an error was logged for the first."""
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    with open("log", "w+") as log:
        process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=log, stderr=log)
        try:
            for _ in range(150):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            time.sleep(1)
            refused = ask(port, "/refused")
            time.sleep(1)
            log.seek(0)
            logged = "without completing handshake" in log.read()
            return (refused, ask(port, "/broken")), logged
        finally:
            process.terminate()
            process.wait(20)


same = True
for name, expected in EXPECTED.items():
    found, logged = seen(name)
    same &= found == expected and logged is (name == "uvicorn")
    print(f"{name:10} HTTPException(401): {found[0]:8} ValueError: {found[1]}{'  logs an error for the 401' if logged else ''}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
