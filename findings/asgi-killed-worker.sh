#!/usr/bin/env bash
# What an ASGI server with two workers does when one of them is killed, as by the kernel when memory runs out.
#
# Guess: it starts another one; the second worker serves on meanwhile, and its clients notice nothing. That is what
# several workers under one main process are for.
# Seen with the versions below: so do uvicorn and gunicorn. hypercorn and granian end the worker that is left, with all of
# its connections, and then themselves: granian with 1, hypercorn with 0, which `Restart=on-failure` takes for a clean
# end. granian has `--respawn-failed-workers`; hypercorn has nothing of the kind, so run it under `Restart=always`.
# Run by hand: bash findings/asgi-killed-worker.sh. Fails when one of them behaves otherwise.
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
    pid = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(pid))]})
    await send({"type": "http.response.body", "body": pid})
PYTHON

cat >drive.py <<'PYTHON'
import os, signal, socket, subprocess, sys, time, urllib.request

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port} --workers 2",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port} --workers 2",
    "granian": "granian app:app --port {port} --interface asgi --workers 2",
    "granian, respawning": "granian app:app --port {port} --interface asgi --workers 2 --respawn-failed-workers",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket --workers 2",
}
EXPECTED = {
    "uvicorn": "serves on",
    "hypercorn": "has ended with 0",
    "granian": "has ended with 1",
    "granian, respawning": "serves on",
    "gunicorn": "serves on",
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answering(port):
    """The pid of the worker that answers."""
    return int(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read())


def seen(name):
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                answering(port)
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(3)  # until the second worker serves as well
        os.kill(answering(port), signal.SIGKILL)
        try:
            return f"has ended with {process.wait(10)}"
        except subprocess.TimeoutExpired:
            return "serves on" if answering(port) else ""
    finally:
        process.terminate()
        process.wait(60)


found = {name: seen(name) for name in SERVERS}
for name, what in found.items():
    print(f"{name:20} {what}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
