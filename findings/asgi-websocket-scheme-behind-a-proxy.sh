#!/usr/bin/env bash
# The scheme and the client's address that an application finds in the scope of a WebSocket when a proxy on the same host
# sends `X-Forwarded-Proto: https` and `X-Forwarded-For: 203.0.113.5`, and each server is set up to trust it.
#
# ASGI: the scheme of a WebSocket is `ws` or `wss`, and `ws` if it is missing. Guess: `wss`, and 203.0.113.5.
# Seen with the versions below: it is so with uvicorn and granian. hypercorn's ProxyFixMiddleware makes it `https`, which is
# not a scheme of WebSockets. daphne with `--proxy-headers` leaves it out, so that the connection counts as not encrypted.
# Both are right for plain requests. gunicorn has the scheme right, but every client has the proxy's address. An
# application that builds URLs from its scope, redirects what is not `wss`, or limits by address depends on its server.
# Run by hand: bash findings/asgi-websocket-scheme-behind-a-proxy.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.7 \
    daphne==4.2.3 gunicorn==27.0.1 websockets==17.4
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    seen = f"{scope.get('scheme', 'no scheme')}, {scope['client'][0]}"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": seen})
        await receive()
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(seen))]})
        await send({"type": "http.response.body", "body": seen.encode()})
PYTHON
cat >for_granian.py <<'PYTHON'
from app import app as plain
from granian.utils.proxies import wrap_asgi_with_proxy_headers

app = wrap_asgi_with_proxy_headers(plain, trusted_hosts="127.0.0.1")
PYTHON
cat >for_hypercorn.py <<'PYTHON'
from app import app as plain
from hypercorn.middleware import ProxyFixMiddleware

app = ProxyFixMiddleware(plain, mode="legacy", trusted_hops=1)
PYTHON
cat >drive.py <<'PYTHON'
import asyncio, socket, subprocess, sys, time, urllib.request
from importlib.metadata import version

from websockets.asyncio.client import connect

SERVERS = {
    "uvicorn": ["--port", "{port}", "--proxy-headers", "app:app"],
    "granian": ["--interface", "asgi", "--port", "{port}", "for_granian:app"],
    "hypercorn": ["--bind", "127.0.0.1:{port}", "for_hypercorn:app"],
    "daphne": ["--port", "{port}", "--proxy-headers", "app:app"],
    "gunicorn": ["--worker-class", "asgi", "--bind", "127.0.0.1:{port}", "app:app"],
}
EXPECTED = {
    "uvicorn": ("https, 203.0.113.5", "wss, 203.0.113.5"),
    "granian": ("https, 203.0.113.5", "wss, 203.0.113.5"),
    "hypercorn": ("https, 203.0.113.5", "https, 203.0.113.5"),
    "daphne": ("https, 203.0.113.5", "no scheme, 203.0.113.5"),
    "gunicorn": ("https, 127.0.0.1", "wss, 127.0.0.1"),
}
HEADERS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.5"}


async def websocket(port):
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None, additional_headers=HEADERS) as connection:
        return await asyncio.wait_for(connection.recv(), 20)


def request(port):
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=HEADERS)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return answer.read().decode()


same = True
for name, options in SERVERS.items():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with open(f"{name}.log", "w") as log:
        server = subprocess.Popen(
            [f"venv/bin/{name}", *(option.format(port=port) for option in options)], stdout=log, stderr=log
        )
    try:
        for _ in range(300):
            try:
                plain = request(port)
                break
            except OSError:
                time.sleep(0.1)
        found = plain, asyncio.run(websocket(port))
    finally:
        server.terminate()
        server.wait(60)
    same &= found == EXPECTED[name]
    print(f"{name:9} {version(name):7} request: {found[0]:18}  WebSocket: {found[1]}")
sys.exit(0 if same else "This has changed.")
PYTHON
PYTHONPATH=. venv/bin/python drive.py
