#!/usr/bin/env bash
# What a client sees when an application refuses an upload before it has read it, behind nginx with
# `proxy_request_buffering off` and the usual `proxy_set_header Connection close`.
#
# Guess: the answer of the application, here 401, whatever `Connection` says.
# Seen with nginx 1.22.1 of Debian 12 and uvicorn 0.54.0: mostly 502. uvicorn closes after its answer while most of the
# body is unread, the reset makes nginx's next write fail, and nginx then drops the answer that it has received. With
# `proxy_set_header Connection ''` it is 401 each time.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-early-answer-unbuffered.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvicorn==0.54.0 h11==0.16.0
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b"no\n"})
PYTHON

cat >drive.py <<'PYTHON'
import collections, os, socket, subprocess, sys, time

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{
    access_log off; client_max_body_size 20m; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{app};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection {connection};
        }}
    }}
}}
"""
BODY = bytes(16 * 1024 * 1024)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)


def statuses(connection, times):
    folder, port, app = os.getcwd(), free_port(), free_port()
    with open("nginx.conf", "w") as file:
        file.write(NGINX.format(folder=folder, port=port, app=app, connection=connection))
    uvicorn = f"-m uvicorn app:app --port {app} --log-level critical --lifespan off --http h11"
    programs = [
        subprocess.Popen([sys.executable, *uvicorn.split()]),
        subprocess.Popen(["unpacked/usr/sbin/nginx", "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error"]),
    ]
    try:
        wait_for(app), wait_for(port)
        seen = collections.Counter()
        for _ in range(times):
            # curl reads an answer that comes while it still sends.
            words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", "--data-binary", "@body"]
            seen[subprocess.run([*words, f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout] += 1
        return seen
    finally:
        for program in programs:
            program.terminate()
            program.wait(10)


open("body", "wb").write(BODY)
close, empty = statuses("close", 20), statuses("''", 20)
print(f"Connection close: {dict(close)}\nConnection '':    {dict(empty)}")
sys.exit(0 if close["502"] >= 5 and empty == {"401": 20} else "This has changed.")
PYTHON
venv/bin/python drive.py
