#!/usr/bin/env bash
# Whether the connections of an ASGI server have `TCP_NODELAY` when it is given its TCP socket as a descriptor, as by a
# socket unit of systemd.
#
# Guess: yes. asyncio sets it for every TCP connection since Python 3.6, uvloop too, and where the listener comes from
# makes no difference.
# Seen with the versions below: not with `uvicorn --fd`, under asyncio and uvloop alike. It opens the descriptor as a
# Unix socket, whatever it is, and the option is only set on what says that it is TCP. So the kernel holds a second
# small message back until the client has acknowledged the first (Nagle's algorithm), which can take 40 ms. With
# `--port` it is set, and with the descriptors that hypercorn and gunicorn are given. `NoDelay=yes` in the socket unit
# helps: a connection inherits it from its listener.
# Run by hand: bash findings/uvicorn-fd-delays-small-messages.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 hypercorn==0.18.0 gunicorn==27.0.1 uvloop==0.23.0 h11==0.16.0
cd "$folder"

# It answers with the option of its own connection, which it finds by the client's port.
cat >app.py <<'PYTHON'
import os, socket


def options(port):
    for number in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(number))) as found:
                if found.family == socket.AF_INET and found.getpeername()[1] == port:
                    yield "set" if found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) else "not set"
        except OSError:
            pass


async def app(scope, receive, send):
    body = "".join(options(scope["client"][1])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time, urllib.request

UVICORN = "uvicorn app:app --lifespan off --log-level critical"
SERVERS = {
    "uvicorn --port, asyncio": (f"{UVICORN} --loop asyncio --port {{port}}", False),
    "uvicorn --port, uvloop": (f"{UVICORN} --loop uvloop --port {{port}}", False),
    "uvicorn --fd, asyncio": (f"{UVICORN} --loop asyncio --fd {{fd}}", False),
    "uvicorn --fd, uvloop": (f"{UVICORN} --loop uvloop --fd {{fd}}", False),
    "uvicorn --fd, NoDelay=yes": (f"{UVICORN} --loop asyncio --fd {{fd}}", True),
    "hypercorn --bind fd://": ("hypercorn app:app --bind fd://{fd}", False),
    "gunicorn --bind fd://": ("gunicorn app:app -k asgi --bind fd://{fd} --no-control-socket --asgi-lifespan off", False),
}
EXPECTED = dict.fromkeys(SERVERS, "set") | {"uvicorn --fd, asyncio": "not set", "uvicorn --fd, uvloop": "not set"}


def ask(port):
    for _ in range(600):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("no answer")


def seen(command, no_delay):
    listener = socket.create_server(("127.0.0.1", 0))
    port, fd = listener.getsockname()[1], listener.fileno()
    if no_delay:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if "{port}" in command:
        listener.close()
    program, *words = command.format(port=port, fd=fd).split()
    server = subprocess.Popen([f"{sys.prefix}/bin/{program}", *words], pass_fds=[fd] if "{fd}" in command else [],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return ask(port)
    finally:
        server.terminate()
        server.wait(60)
        listener.close()


found = {}
for name, (command, no_delay) in SERVERS.items():
    found[name] = seen(command, no_delay)
    print(f"{name:26} TCP_NODELAY is {found[name]}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
