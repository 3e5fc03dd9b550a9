#!/usr/bin/env bash
# What an ASGI application, and the client, learn of the code with which the client closes.
#
# Guess: `websocket.disconnect` has the client's code 4001, and the server answers with the same code
# (RFC 6455, section 5.5.1: it typically echoes it).
# Seen with the versions below: under hypercorn the application is told 1006 for every close, as for a lost connection;
# daphne answers 1000 whatever the client said.
# Run by hand: bash findings/asgi-client-close-code.sh. Fails when one of them behaves otherwise.
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
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        pass
    with open("told", "w") as told:
        told.write(str(event["code"]))
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port}"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
EXPECTED = {
    "uvicorn": ('told 4001', 'answered 4001'),
    "hypercorn": ('told 1006', 'answered 4001'),
    "granian": ('told 4001', 'answered 4001'),
    "gunicorn": ('told 4001', 'answered 4001'),
    "daphne": ('told 4001', 'answered 1000'),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def ask(port):
    with connect(f"ws://127.0.0.1:{port}/", ping_interval=None, proxy=None) as client:
        client.close(4001, "bye")
        answered = client.protocol.close_rcvd
    for _ in range(50):
        try:
            with open("told") as told:
                if code := told.read():
                    break
        except FileNotFoundError:
            pass
        time.sleep(0.1)
    open("told", "w").close()
    return f"told {code}", f"answered {answered.code}"



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
