#!/usr/bin/env bash
# Which subprotocols an ASGI application is told of when a client names them in two headers.
#
# RFC 6455, section 11.3.4: Sec-WebSocket-Protocol may appear several times in a request, which means the same as one
# header with all values. Guess: all servers put all of them into scope["subprotocols"].
# Seen with the versions below: uvicorn, granian and daphne do; gunicorn knows those of the first header only, hypercorn
# those of the last.
# Run by hand: bash findings/asgi-two-subprotocol-headers.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
import json


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(scope.get("subprotocols"))})
    await receive()
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port}"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {
    "uvicorn": '["a", "b", "c"]',
    "hypercorn": '["c"]',
    "granian": '["a", "b", "c"]',
    "gunicorn": '["a", "b"]',
    "daphne": '["a", "b", "c"]',
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n\r\n"
        )
        received = b""
        while b"\r\n\r\n" not in received or not received.partition(b"\r\n\r\n")[2]:
            received += client.recv(4096)
        return received.partition(b"\r\n\r\n")[2][2:].decode(errors="replace")



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
        time.sleep(1)
        return ask(port)
    finally:
        process.terminate()
        process.wait(20)


same = True
for name, expected in EXPECTED.items():
    what = seen(name)
    same &= what == expected
    print(f"{name:16} {what!r}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
