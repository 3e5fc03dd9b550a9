#!/usr/bin/env bash
# Which body an ASGI application gets of a request that offers another protocol, as `curl --http2 -d hello` sends it.
#
# RFC 9110, section 7.8: a server may ignore the offer. Guess: uvicorn does, and the application gets the body.
# Seen with the versions below: it does with h11. With httptools, which it prefers where that is installed, the
# application gets an empty body and answers as if nothing had been sent.
# Run by hand: bash findings/uvicorn-body-under-upgrade.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    event, body = await receive(), b""
    while event["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
        event = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"%d bytes" % len(body)})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 5\r\n\r\nhello"
)
EXPECTED = {"h11": "5 bytes", "httptools": "0 bytes"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answer(http):
    port = free_port()
    words = f"-m uvicorn app:app --port {port} --log-level critical --lifespan off --http {http}".split()
    process = subprocess.Popen([sys.executable, *words])
    try:
        for _ in range(100):
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except OSError:
                time.sleep(0.1)
        with connection:
            connection.sendall(REQUEST)
            received = b""
            while data := connection.recv(4096):
                received += data
        return received.partition(b"\r\n\r\n")[2].decode(errors="replace")
    finally:
        process.terminate()
        process.wait(10)


same = True
for http, expected in EXPECTED.items():
    seen = answer(http)
    same &= expected in seen
    print(f"--http {http}: the application got {seen!r}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
