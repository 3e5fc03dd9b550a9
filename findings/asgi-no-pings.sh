#!/usr/bin/env bash
# Whether an ASGI server finds out by itself that the other end of an idle WebSocket is gone, as when a phone loses its
# network: no FIN comes then, and only a ping that is not answered tells.
#
# Guess: each server sends pings unless told otherwise, about every 20 seconds, as uvicorn and daphne do.
# Seen with the versions below, with nothing but a port set: hypercorn, granian and gunicorn send none within 25 seconds.
# There is no limit of idle time either: the connection, and the application's task, stay for as long as TCP lets them.
# hypercorn has `--websocket-ping-interval`, but hypercorn-unanswered-pings.sh shows what that is worth.
# Run by hand: bash findings/asgi-no-pings.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
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
from concurrent.futures import ThreadPoolExecutor

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 1 --no-control-socket"
    " --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {"uvicorn": "a ping", "hypercorn": "nothing", "granian": "nothing", "gunicorn": "nothing", "daphne": "a ping"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def sent_to_an_idle_client(port):
    with socket.create_connection(("127.0.0.1", port), 25) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1)
        try:
            first = client.recv(1)
        except TimeoutError:
            return "nothing"
        return "a ping" if first == b"\x89" else repr(first)


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
        return sent_to_an_idle_client(port)
    finally:
        process.terminate()
        process.wait(20)


with ThreadPoolExecutor() as pool:
    found = dict(zip(EXPECTED, pool.map(seen, EXPECTED)))
for name, what in found.items():
    print(f"{name:10} within 25 s of silence: {what}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
