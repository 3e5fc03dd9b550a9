#!/usr/bin/env bash
# Whether gunicorn stops at once on SIGTERM while one of its workers is being started (its post_fork hook takes a second,
# as one that connects to a database).
#
# Guess: yes; the master passes SIGTERM on, and a worker that serves nobody yet has nothing to wait for.
# Seen with gunicorn 27.0.1: between fork() and the worker's own init_signals() the worker still has the master's signal
# handlers, which only enter the signal in a queue. The SIGTERM is lost there, the worker starts to serve, and the master
# waits for all of graceful_timeout (30 seconds by default, 6 here) before it kills the worker. A worker that
# serves stops at once.
# Run by hand: bash findings/gunicorn-stop-while-starting.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
def app(environ, start_response):
    start_response("204 No Content", [])
    return []
PYTHON
cat >gunicorn.conf.py <<'PYTHON'
import time

bind = "unix:app.sock"
graceful_timeout = 6


def post_fork(server, worker):
    time.sleep(1)
PYTHON

answers() {
    venv/bin/python - <<'PYTHON'
import socket

with socket.socket(socket.AF_UNIX) as client:
    client.connect("app.sock")
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    client.recv(1)
PYTHON
}

# stopped_when COMMAND: stops gunicorn when the command succeeds, and says how many seconds that takes.
stopped_when() {
    venv/bin/gunicorn app:app 2>log &
    local master=$! from
    until "$@" 2>/dev/null; do sleep 0.1; done
    from=$SECONDS
    kill -TERM "$master"
    wait "$master" || true
    echo $((SECONDS - from))
}
starting=$(stopped_when grep -q "Booting worker" log)
started=$(stopped_when answers)

echo "in the hook:      stopped after $starting s"
echo "when it serves:   stopped after $started s"
if [ "$starting" -lt 5 ] || [ "$started" -gt 3 ]; then
    echo "This has changed." >&2
    exit 1
fi
