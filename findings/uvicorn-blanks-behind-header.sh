#!/usr/bin/env bash
# Whether blanks behind the value of a header reach an application under uvicorn.
#
# RFC 9112, section 5.1: they are not part of the value. Guess: neither parser passes them on.
# Seen with the versions below: h11 takes them away; with httptools, which uvicorn takes where it is installed, they
# are part of the value, so that a comparison with a token fails.
# Run by hand: bash findings/uvicorn-blanks-behind-header.sh. Fails when one of them behaves otherwise.
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
    value = dict(scope["headers"])[b"x-token"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(value))]})
    await send({"type": "http.response.body", "body": value})
PYTHON

cat >drive.py <<'PYTHON'
import socket, subprocess, sys, time

SERVERS = {
    "uvicorn, httptools": "uvicorn app:app --port {port} --http httptools --log-level critical",
    "uvicorn, h11": "uvicorn app:app --port {port} --http h11 --log-level critical",
}
EXPECTED = {
    "uvicorn, httptools": b'secret  ',
    "uvicorn, h11": b'secret',
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX-Token:  secret  \r\n\r\n")
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
