#!/usr/bin/env bash
# How an ASGI server ends when its application cannot start: the module raises as it is imported, or the application
# answers `lifespan.startup.failed`, as it does when its database cannot be reached.
#
# Guess: with an exit code that is not 0, so that the unit fails, `Restart=on-failure` starts it again, and a script that
# deploys stops. With several workers all of them fail, so the main process gives up in the same way.
# Seen with the versions below: hypercorn exits with 0 in each case, so that systemd takes the failed start for a clean
# end and leaves the service stopped. uvicorn exits with 1 or 3 with one worker. With two it exits with 0 if the
# application refuses, and if the module raises it never ends: it starts workers again and again, and whoever watches its
# process finds it running. granian and gunicorn do as guessed.
# Run by hand: bash findings/asgi-failed-start.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 websockets==16.1.1 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

echo 'raise RuntimeError("a fault in the module")' >raises.py
cat >refuses.py <<'PYTHON'
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database does not answer"})
PYTHON

cat >drive.py <<'PYTHON'
import subprocess, sys

SERVERS = {
    "uvicorn": "uvicorn {app} --port 0 --workers {workers}",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:0 --workers {workers}",
    "granian": "granian {app} --port 0 --interface asgi --workers {workers}",
    "gunicorn": "gunicorn {app} --worker-class asgi --bind 127.0.0.1:0 --no-control-socket --workers {workers}",
}
# The module raises, the application refuses; with one worker, then with two.
EXPECTED = {
    "uvicorn": ["not 0", "not 0", "runs on", "0"],
    "hypercorn": ["0", "0", "0", "0"],
    "granian": ["not 0", "not 0", "not 0", "not 0"],
    "gunicorn": ["not 0", "not 0", "not 0", "not 0"],
}


def ending(server, app, workers):
    words = SERVERS[server].format(app=app, workers=workers).split()
    process = subprocess.Popen([sys.prefix + "/bin/" + words[0], *words[1:]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        return "not 0" if process.wait(40) else "0"
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(20)
        return "runs on"


found = {}
for server in SERVERS:
    found[server] = [ending(server, app, workers) for workers in (1, 2) for app in ("raises:app", "refuses:app")]
    one, two = found[server][:2], found[server][2:]
    print(f"{server:10} one worker: {one[0]}, {one[1]}; two workers: {two[0]}, {two[1]}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
