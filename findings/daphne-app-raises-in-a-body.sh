#!/usr/bin/env bash
# What a client sees of an ASGI application that raises after it has sent a part of its answer, without a Content-Length.
#
# Guess: every server closes the connection without the last chunk, so that the client knows at once that the answer is
# not whole.
# Seen with the versions below: daphne leaves the connection open and sends nothing more. The client, or the proxy before
# it, waits until its own timeout, and takes what is a fault of the application for a slow one. uvicorn, hypercorn, granian
# and gunicorn do as guessed.
# Run by hand: bash findings/daphne-app-raises-in-a-body.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"a part", "more_body": True})
    raise RuntimeError("a fault of the application")
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port}",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port}",
    "granian": "granian app:app --port {port} --interface asgi",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = dict.fromkeys(SERVERS, "the connection is closed") | {"daphne": "nothing more within 15 s"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def after_the_part(port):
    with socket.create_connection(("127.0.0.1", port), 15) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        try:
            while more := client.recv(4096):
                received += more
        except TimeoutError:
            return "nothing more within 15 s" if b"a part" in received else "nothing"
        except ConnectionResetError:
            pass
        return "the end of the body" if received.endswith(b"\r\n0\r\n\r\n") else "the connection is closed"


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
        return after_the_part(port)
    finally:
        process.terminate()
        process.wait(60)


found = {name: seen(name) for name in SERVERS}
for name, what in found.items():
    print(f"{name:10} {what}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
