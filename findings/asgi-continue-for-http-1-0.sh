#!/usr/bin/env bash
# Who is told "100 Continue" that asks for it in a request of HTTP/1.0.
#
# RFC 9110, section 10.1.1: a server must ignore `Expect: 100-continue` in a request of HTTP/1.0; such a client knows no
# answer before the answer. Guess: no server says it there, and in HTTP/1.1 each does when the application reads the body.
# Seen with the versions below: so it is under all but uvicorn with httptools, which it takes where that is installed: it
# tells clients of HTTP/1.0 as well, which take "100 Continue" for the whole answer.
# Run by hand: bash findings/asgi-continue-for-http-1-0.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1 daphne==4.2.3 httptools==0.9.0 h11==0.16.0
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn, httptools": "uvicorn app:app --port {port} --http httptools --log-level critical",
    "uvicorn, h11": "uvicorn app:app --port {port} --http h11 --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port}"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {
    "uvicorn, httptools": {"1.0": ["100", "200"], "1.1": ["100", "200"]},
    "uvicorn, h11": {"1.0": ["200"], "1.1": ["100", "200"]},
    "hypercorn": {"1.0": ["200"], "1.1": ["100", "200"]},
    "granian": {"1.0": ["200"], "1.1": ["100", "200"]},
    "gunicorn": {"1.0": ["200"], "1.1": ["100", "200"]},
    "daphne": {"1.0": ["200"], "1.1": ["100", "200"]},
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, version):
    """The status of all that comes, when the client waits a second for a word before it sends the body."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = f"POST / HTTP/{version}\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"
        client.sendall((head + "Connection: close\r\n\r\n").encode())
        client.settimeout(1)
        received = b""
        try:
            received = client.recv(4096)
        except TimeoutError:
            pass
        client.settimeout(5)
        client.sendall(b"hello")
        try:
            while more := client.recv(4096):
                received += more
        except (TimeoutError, ConnectionError) as error:
            received += f"\r\nHTTP/ {type(error).__name__}".encode()
        return [line.split()[1].decode() for line in received.split(b"\r\n") if line.startswith(b"HTTP/")]


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
        return {version: ask(port, version) for version in ("1.0", "1.1")}
    finally:
        process.terminate()
        process.wait(20)


same = True
for name, expected in EXPECTED.items():
    what = seen(name)
    same &= what == expected
    print(f"{name:18} {what!r}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
