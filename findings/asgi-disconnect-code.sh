#!/usr/bin/env bash
# Which code `websocket.disconnect` has when a client vanishes, and when it leaves with a close frame without a code.
#
# Guess: 1006 for a client whose TCP connection ends without a close frame, 1005 for an empty close frame (RFC 6455,
# section 7.1.5), so that an application can tell the two apart.
# Seen with the versions below, after the client has sent FIN: only gunicorn does that.
#   uvicorn    1005 and 1005    granian    1005 and 1005
#   hypercorn  1006 and 1006    gunicorn   1006 and 1005
# An application that is to run under any of them cannot learn from the code whether a client has said goodbye.
# Run by hand: bash findings/asgi-disconnect-code.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    event = await receive()
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{event.get('code')}\n")
PYTHON

cat >drive.py <<'PYTHON'
import os, socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --log-level critical",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --log-level critical",
    "granian": "granian app:app --port {port} --interface asgi --log-level critical",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --graceful-timeout 1 --no-control-socket"
    " --log-level critical",
}
EXPECTED = {"uvicorn": "1005 1005", "hypercorn": "1006 1006", "granian": "1005 1005", "gunicorn": "1006 1005"}
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EMPTY_CLOSE = b"\x88\x80\0\0\0\0"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def goes(port, last_bytes):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HANDSHAKE)
        while b"\r\n\r\n" not in client.recv(4096):
            pass
        time.sleep(0.2)
        client.sendall(last_bytes)
        time.sleep(0.2)
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.5)


def codes(name):
    port, notes = free_port(), f"{name}.notes"
    open(notes, "w").close()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], env={**os.environ, "NOTES": notes},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        goes(port, b"")
        goes(port, EMPTY_CLOSE)
    finally:
        process.terminate()
        process.wait(20)
    return " ".join(open(notes).read().split())


same = True
for name, expected in EXPECTED.items():
    seen = codes(name)
    same &= seen == expected
    print(f"{name:10} vanished, said goodbye: {seen}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
