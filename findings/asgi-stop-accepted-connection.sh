#!/usr/bin/env bash
# Whether a graceful stop answers a request that comes 0.2 seconds after SIGTERM, on a connection that the server has
# accepted before it: one that a proxy has just opened, while the request is on its way.
#
# Guess: yes, within the graceful timeout (10 seconds here).
# Seen with the versions below: gunicorn's own `asgi` worker alone answers. uvicorn, hypercorn and granian close the
# connection at once, so the proxy has nothing to answer with but 502.
# Run by hand: bash findings/asgi-stop-accepted-connection.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install \
    uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9 gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
PYTHON
cat >ask.py <<'PYTHON'
import os
import signal
import socket
import sys
import time

port, pid = int(sys.argv[1]), int(sys.argv[2])
for _ in range(100):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
connection = socket.create_connection(("127.0.0.1", port), 5)
time.sleep(0.5)
os.kill(pid, signal.SIGTERM)
time.sleep(0.2)
try:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = connection.recv(1000)
except OSError:
    answer = b""
print(answer.split(b"\r\n")[0].decode() or "closed without an answer")
PYTHON

# asked NAME PORT COMMAND...: what the server answers.
asked() {
    local name=$1 port=$2
    shift 2
    "$@" >"$name.log" 2>&1 &
    local pid=$!
    echo "$name: $(venv/bin/python ask.py "$port" "$pid")"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
{
    asked uvicorn 18761 venv/bin/uvicorn --port 18761 --timeout-graceful-shutdown 10 app:app
    asked hypercorn 18762 venv/bin/hypercorn --bind 127.0.0.1:18762 --graceful-timeout 10 app:app
    asked granian 18763 venv/bin/granian --interface asgi --port 18763 --workers-kill-timeout 10 app:app
    asked gunicorn 18764 venv/bin/gunicorn -k asgi --bind 127.0.0.1:18764 --graceful-timeout 10 app:app
} | tee seen

if [ "$(grep -c "closed without" seen)" -ne 3 ] || ! grep -q "gunicorn: HTTP/1.1 200 OK" seen; then
    echo "This has changed." >&2
    exit 1
fi
