#!/usr/bin/env bash
# How many requests uvicorn serves at once with `--limit-concurrency 2`, and with 1.
#
# Documentation: the maximum number of concurrent connections or tasks to allow, before issuing 503 responses.
# Guess: two at once, and one at a time; a client that is connected but asks for nothing takes no place.
# Seen with uvicorn 0.54.0: one less. The connection that asks is counted before it is compared, so 2 serves one request,
# and 1 answers everything with 503. A connection that is merely open counts as well: with 2, a browser or proxy that
# keeps one alive shuts everybody else out.
# Run by hand: bash findings/uvicorn-limit-concurrency.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvicorn==0.54.0 h11==0.16.0
cd "$folder"

cat >app.py <<'PYTHON'
import asyncio


async def app(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

EXPECTED = {
    1: {"alone": "503", "beside an open connection": "503", "beside a request": "503"},
    2: {"alone": "200", "beside an open connection": "503", "beside a request": "503"},
    3: {"alone": "200", "beside an open connection": "200", "beside a request": "200"},
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connection(port, asks=b""):
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.sendall(asks)
    time.sleep(0.3)
    return made


def answer(port):
    with connection(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as asking:
        status = asking.recv(4096).split()[1].decode()
    time.sleep(0.3)
    return status


def seen(limit):
    port = free_port()
    words = f"-m uvicorn app:app --port {port} --lifespan off --log-level critical --limit-concurrency {limit}".split()
    server = subprocess.Popen([sys.executable, *words])
    try:
        for _ in range(600):
            try:
                connection(port).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        found = {"alone": answer(port)}
        with connection(port):
            found["beside an open connection"] = answer(port)
        time.sleep(0.3)
        with connection(port, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"):
            found["beside a request"] = answer(port)
        return found
    finally:
        server.kill()
        server.wait()


same = True
for limit, expected in EXPECTED.items():
    found = seen(limit)
    same &= found == expected
    print(f"--limit-concurrency {limit}: {found}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
