#!/usr/bin/env bash
# What is told of an ASGI application that cannot do its last work when the server stops: it raises in its lifespan after
# `lifespan.shutdown`, or answers `lifespan.shutdown.failed`, with "could not save".
#
# Guess: the reason is logged, and the exit code says that something failed.
# Seen with the versions below: under every server the exit code is that of a clean stop, so that systemd counts it as
# success and `OnFailure=` does nothing. Of an exception uvicorn logs only that the `lifespan` protocol `appears
# unsupported`, at the very end, and granian nothing; the others log it. `lifespan.shutdown.failed`, which Starlette sends
# for its applications, is logged by all.
# Run by hand: bash findings/asgi-failed-stop.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
import os


async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if os.environ["HOW"] == "raises":
        raise RuntimeError("could not save")
    if os.environ["HOW"] == "says so":
        await send({"type": "lifespan.shutdown.failed", "message": "could not save"})
    else:
        await send({"type": "lifespan.shutdown.complete"})
PYTHON

cat >drive.py <<'PYTHON'
import os, socket, subprocess, sys, time

SERVERS = {
    "uvicorn": "uvicorn app:app --port {port}",
    "hypercorn": "hypercorn app:app --bind 127.0.0.1:{port}",
    "granian": "granian app:app --port {port} --interface asgi",
    "gunicorn": "gunicorn app:app --worker-class asgi --bind 127.0.0.1:{port} --no-control-socket",
}
# The exit code is the same as that of a clean stop; the reason is logged.
EXPECTED = {
    "uvicorn": {"raises": (True, False), "says so": (True, True)},
    "hypercorn": {"raises": (True, True), "says so": (True, True)},
    "granian": {"raises": (True, False), "says so": (True, True)},
    "gunicorn": {"raises": (True, True), "says so": (True, True)},
}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def stopped(name, how):
    """The exit code, and what was logged."""
    port = free_port()
    words = SERVERS[name].format(port=port).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], env={**os.environ, "HOW": how},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(150):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    time.sleep(1)
    process.terminate()
    try:
        logged = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    return process.returncode, logged


same = True
for name, expected in EXPECTED.items():
    clean, _ = stopped(name, "is well")
    for how in expected:
        code, logged = stopped(name, how)
        found = code == clean, "could not save" in logged
        same &= found == expected[how]
        if name == "uvicorn" and how == "raises":
            same &= "appears unsupported" in logged
        print(f"{name:10} {how:8} exit code {code}, clean stop {clean}; the reason is {'' if found[1] else 'not '}logged")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
