#!/usr/bin/env bash
# How large a message an ASGI server takes from a client, and how it ends the connection of one that sends more.
#
# Guess: 16 MiB, as uvicorn documents, or no limit; and a close with 1009 (message too big), so that the client knows
# that sending it again is of no use.
# Seen with the versions below: uvicorn, hypercorn and gunicorn take 16 MiB and close with 1009, but only uvicorn's
# application is told so. granian takes as much and sends a close frame without a code. daphne takes 1 MiB and drops the
# connection without a close frame, so that a client takes it for a fault of the network, connects again and sends it
# again. No option of daphne changes its limit.
# Run by hand: bash findings/asgi-message-too-big.sh. Fails when one of them behaves otherwise.
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
        await send({"type": "websocket.send", "text": "taken"})
    with open(scope["path"][1:], "w") as told:
        told.write(str(int(event["code"])))
PYTHON

cat >drive.py <<'PYTHON'
import logging, socket, subprocess, sys, time

from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.client import connect

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port}"
    " --graceful-timeout 1 --no-control-socket --log-level critical",
    "daphne": "daphne -b 127.0.0.1 -p {port} app:app",
}
logging.getLogger("websockets.client").setLevel(logging.CRITICAL + 1)
MIB = 1 << 20
# The largest message that is taken, and the close code of a larger one: for the client, and for the application.
EXPECTED = {
    "uvicorn": (16 * MIB, 1009, "1009"), "hypercorn": (16 * MIB, 1009, "1006"), "granian": (16 * MIB, 1005, "1005"),
    "gunicorn": (16 * MIB, 1009, "1006"), "daphne": (MIB, 1006, "1006"),
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def sent(port, size):
    """None if the message is taken, else the code with which the connection ends.

    It goes out in three pieces, so that a server that refuses it has read all that was sent: else its close frame may be
    lost to the reset that follows what was not read.
    """
    header = b"\x82\xff" + size.to_bytes(8, "big") + bytes(4)  # one frame, masked with zeros
    with connect(f"ws://127.0.0.1:{port}/told-{size}", ping_interval=None, proxy=None) as client:
        try:
            for piece in (header, bytes(size - 1), bytes(1)):
                if client.state is State.OPEN:
                    client.socket.sendall(piece)
                    time.sleep(1)
            client.recv(timeout=20)
        except ConnectionClosed:
            return client.close_code


def measured(port):
    taken = 0
    for size in (MIB, MIB + 1, 16 * MIB, 16 * MIB + 1):
        if code := sent(port, size):
            break
        taken = size
    time.sleep(2)
    with open(f"told-{size}") as told:
        return taken, code and int(code), told.read()


def seen(name):
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1)
        return measured(port)
    finally:
        process.terminate()
        process.wait(60)


same = True
for name, expected in EXPECTED.items():
    what = taken, code, told = seen(name)
    same &= what == expected
    print(f"{name:10} takes {taken} bytes; a larger message: the client sees {code}, the application {told}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
