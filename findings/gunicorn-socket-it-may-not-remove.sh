#!/usr/bin/env bash
# What becomes of the other listeners when gunicorn stops and may not remove the file of its Unix socket.
#
# It listens on a Unix socket and on a port, and its user may no longer write in the directory of the socket. Guess: a
# warning, and gunicorn stops as usual.
# Seen with the version below: the main process dies of the PermissionError before it has stopped its workers, which
# serve on at the port.
# Run by hand: bash findings/gunicorn-socket-it-may-not-remove.sh. Fails when gunicorn behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+rwx "$folder"; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
cd "$folder"
mkdir run

cat >app.py <<'PYTHON'
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
PYTHON

cat >drive.py <<'PYTHON'
import os, signal, socket, subprocess, sys, time

# Root may write everywhere, unless it gives that up.
AS_A_USER = "setpriv --bounding-set=-dac_override --inh-caps=-dac_override".split() if os.geteuid() == 0 else []


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            return client.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
command = [*AS_A_USER, sys.prefix + "/bin/gunicorn", "-b", "unix:run/sock", "-b", f"127.0.0.1:{port}", "--pid", "run/pid", "app:app",
           "--graceful-timeout", "2", "--worker-tmp-dir", "/dev/shm", "--no-control-socket"]
master = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
try:
    for _ in range(100):
        if answers(port):
            break
        time.sleep(0.1)
    os.chmod("run", 0o555)
    master.terminate()
    time.sleep(5)
    has_ended, serves = master.poll() is not None, answers(port)
finally:
    os.killpg(master.pid, signal.SIGKILL)
said = master.stderr.read()
print(f"the main process has ended: {has_ended}; its port still answers: {serves}; "
      f"PermissionError: {'PermissionError' in said}")
sys.exit(0 if (has_ended, serves) == (True, True) else "This has changed.")
PYTHON
venv/bin/python drive.py
