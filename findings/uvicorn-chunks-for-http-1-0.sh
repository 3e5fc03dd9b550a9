#!/usr/bin/env bash
# How uvicorn answers a client of HTTP/1.0 when the application gives no Content-Length.
#
# RFC 9112, section 6.1: Transfer-Encoding must not be sent unless the request is of HTTP/1.1 or later. Guess: the body
# comes as it is, and its end is that of the connection.
# Seen with the versions below: so it is with h11; with httptools, which uvicorn takes where it is installed, the body
# comes in chunks, and a client that knows HTTP/1.0 only takes their lengths for a part of it.
# Run by hand: bash findings/uvicorn-chunks-for-http-1-0.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    await send({"type": "http.response.body", "body": b"world"})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn, httptools": "uvicorn app:app --port {port} --http httptools --log-level critical",
    "uvicorn, h11": "uvicorn app:app --port {port} --http h11 --log-level critical",
}
EXPECTED = {
    "uvicorn, httptools": b'5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n',
    "uvicorn, h11": b'helloworld',
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        received = b""
        while more := client.recv(4096):
            received += more
        return received.partition(b"\r\n\r\n")[2]



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
