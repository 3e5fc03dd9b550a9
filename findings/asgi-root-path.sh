#!/usr/bin/env bash
# What `--root-path /api` makes of the path of a request.
#
# Guess: the option only sets scope["root_path"], and the path is what the client has asked for, under every server.
# Seen with the versions below: so it is under hypercorn, gunicorn and daphne, and with granian's `--url-path-prefix`.
# uvicorn also puts it in front of the path, since 0.26: it takes for granted that the proxy has cut it off. Behind a proxy
# that passes on the whole path, as nginx does with `proxy_pass` without a path, /api/x is /api/api/x, and no route matches;
# behind one that cuts it off, it is the others whose path does not begin with root_path.
# Run by hand: bash findings/asgi-root-path.sh. Fails when one of them behaves otherwise.
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
    text = f"{scope['path']} under {scope['root_path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical --root-path /api",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical --root-path /api",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical --url-path-prefix /api",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --root-path /api"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} --root-path /api app:app",
}
EXPECTED = {
    name: ["/api/x under /api", "/x under /api"] for name in ("hypercorn", "granian", "gunicorn", "daphne")
} | {"uvicorn": ["/api/api/x under /api", "/api/x under /api"]}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, path):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while more := client.recv(4096):
            received += more
        return received.partition(b"\r\n\r\n")[2].decode()


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
        return [ask(port, path) for path in ("/api/x", "/x")]
    finally:
        process.terminate()
        process.wait(20)


same = True
for name in SERVERS:
    found = seen(name)
    same &= found == EXPECTED[name]
    print(f"{name:10} GET /api/x: {found[0]:25} GET /x: {found[1]}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
