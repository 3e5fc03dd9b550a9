#!/usr/bin/env bash
# How many `cookie` headers an ASGI application finds for a request of HTTP/2 with two cookies.
#
# Browsers send each cookie as a header of its own over HTTP/2, which compresses better. RFC 9113, section 8.2.3: they MUST
# be joined with `; ` before they are passed to a generic HTTP server application. Guess: one.
# Seen with the versions below: one under hypercorn, two under granian. Starlette and Quart join them; Litestar reads the
# first only, so that a session is lost as soon as the browser has a second cookie; and so does every program that makes a
# dictionary of the headers, which keeps the last. Over HTTP/1.1, as behind most proxies, all is well.
# Run by hand: bash findings/granian-cookies-over-http-2.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install hypercorn==0.18.0 granian==2.8.9 h2==4.4.1 litestar==2.25.0
cd "$folder"

cat >app.py <<'PYTHON'
from litestar import Litestar, Request, get


@get("/")
async def cookies(request: Request) -> dict[str, object]:
    headers = [value.decode() for name, value in request.scope["headers"] if name == b"cookie"]
    return {"headers": headers, "request.cookies": request.cookies}


app = Litestar([cookies])
PYTHON

cat >drive.py <<'PYTHON'
import json, socket, subprocess, sys, time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

SERVERS = {
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
}
EXPECTED = {
    "hypercorn": {"headers": ["theme=dark; session=1"], "request.cookies": {"theme": "dark", "session": "1"}},
    "granian": {"headers": ["theme=dark", "session=1"], "request.cookies": {"theme": "dark"}},
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port):
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        connection = H2Connection(H2Configuration(client_side=True))
        connection.initiate_connection()
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a.example")]
        connection.send_headers(1, [*head, ("cookie", "theme=dark"), ("cookie", "session=1")], end_stream=True)
        body = b""
        while True:
            client.sendall(connection.data_to_send())
            for event in connection.receive_data(client.recv(65536)):
                if isinstance(event, DataReceived):
                    body += event.data
                if isinstance(event, StreamEnded):
                    return json.loads(body)


def seen(name):
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
        return ask(port)
    finally:
        process.terminate()
        process.wait(20)


same = True
for name, expected in EXPECTED.items():
    found = seen(name)
    same &= found == expected
    print(f"{name:10} {found}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
