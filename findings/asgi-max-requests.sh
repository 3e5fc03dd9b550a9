#!/usr/bin/env bash
# What a limit on the requests of a worker means for WebSockets: `uvicorn --limit-max-requests`, `--max-requests` of
# hypercorn and of gunicorn with its ASGI worker.
#
# It is there for applications whose memory grows. Guess: a WebSocket counts as one request, and a worker that has had
# enough lets the open ones finish, or closes them with 1012 (service restart), so that clients come back.
# Seen with the versions below: uvicorn and gunicorn do not count WebSockets, nor their messages: a worker that serves only
# these is never replaced. hypercorn counts each as one. Plain requests are counted by all, and end what is open: hypercorn
# and gunicorn close the WebSockets with 1011 (internal error), only uvicorn with 1012; and uvicorn without `--workers`
# ends then with exit code 0, so that `Restart=on-failure` does not start it again.
# Run by hand: bash findings/asgi-max-requests.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
import os


async def app(scope, receive, send):
    pid = str(os.getpid())
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
        await send({"type": "http.response.body", "body": pid.encode()})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": pid})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical --limit-max-requests 3",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical --max-requests 3",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --max-requests 3"
    " --no-control-socket --log-level critical",
}
# WebSockets are counted; their messages are; how an open one ends; the exit code then.
EXPECTED = {
    "uvicorn": (False, False, 1012, 0),
    "hypercorn": (True, False, 1011, None),
    "gunicorn": (False, False, 1011, None),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def running(name):
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(150):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1)
        yield port, process
    finally:
        process.terminate()
        process.wait(30)


def opened(port):
    return connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None)


def pids(port, connections, messages):
    found = set()
    for _ in range(connections):
        try:
            with opened(port) as client:
                for _ in range(messages):
                    client.send("?")
                    found.add(client.recv(timeout=5))
        except (OSError, ConnectionClosed):
            found.add(None)
        time.sleep(0.3)
    return found


def end_of_an_open_one(port, process):
    with opened(port) as client:
        for _ in range(8):
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as plain:
                    plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    plain.recv(1000)
            except OSError:
                pass
            time.sleep(0.3)
        try:
            client.recv(timeout=20)
        except TimeoutError:
            return "stays open", None
        except ConnectionClosed:
            code = client.close_code
    time.sleep(2)
    return code, process.poll()


same = True
for name, expected in EXPECTED.items():
    with running(name) as (port, _):
        messages = len(pids(port, 1, 12)) > 1
    with running(name) as (port, _):
        connections = len(pids(port, 12, 1)) > 1
    with running(name) as (port, process):
        code, status = end_of_an_open_one(port, process)
    found = connections, messages, code, status
    same &= found == expected
    print(f"{name:10} WebSockets are counted: {connections}, messages: {messages}; an open one ends with {code}; "
          f"the server {'runs on' if status is None else f'has ended with {status}'}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
