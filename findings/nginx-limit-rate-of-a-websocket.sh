#!/usr/bin/env bash
# What `limit_rate` does to a WebSocket that nginx passes on.
#
# Guess: the client gets its bytes at that rate, as it would those of a download; and when the upstream closes the
# connection, nginx closes the client's.
# Seen with nginx 1.22.1 of Debian 12, and so by hand with 1.26.3 of Debian 13: the rate is not limited at all. Instead
# the client's connection stays open after the upstream has closed its own, or has been silent for
# `proxy_read_timeout`: the client waits for a server that is gone. It is so with 100k too, but not with 1m, at which the
# answer's head takes no time. `proxy_limit_rate` does not limit the rate either, but does no harm.
# So `limit_rate 0;` belongs in the location of a WebSocket when a rate is set for the whole site.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-limit-rate-of-a-websocket.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >drive.py <<'PYTHON'
import pathlib, socket, subprocess, sys, threading, time

CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    proxy_read_timeout 2s; send_timeout 2s;
    server {{
        listen 127.0.0.1:{port};
        location /unlimited/ {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location /limit_rate/ {{ proxy_pass http://127.0.0.1:{upstream}; limit_rate 10k; }}
        location /proxy_limit_rate/ {{ proxy_pass http://127.0.0.1:{upstream}; proxy_limit_rate 10k; }}
    }}
}}
"""
SENT = 30_000
EXPECTED = {
    ("unlimited", "closes"): (SENT, "closed"), ("unlimited", "is silent"): (SENT, "closed"),
    ("limit_rate", "closes"): (SENT, "open"), ("limit_rate", "is silent"): (SENT, "open"),
    ("proxy_limit_rate", "closes"): (SENT, "closed"), ("proxy_limit_rate", "is silent"): (SENT, "closed"),
}
folder = pathlib.Path.cwd()


def head(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    return received


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def upstream(listener):
    held = []
    while True:
        connection, _ = listener.accept()
        asked = head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        connection.sendall(b"x" * SENT)
        if b"silent" in asked:
            held.append(connection)
        else:
            time.sleep(0.5)
            connection.close()


def seen(path):
    """How many bytes come within 1 s, and what the connection is after 8 s."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
        head(client)
        received, began = 0, time.monotonic()
        while (spent := time.monotonic() - began) < 8:
            client.settimeout(max(0.1, 8 - spent))
            try:
                data = client.recv(SENT)
            except TimeoutError:
                break
            if not data:
                return received, "closed"
            received += len(data) if spent < 1 else 0
        return received, "open"


with socket.create_server(("127.0.0.1", 0)) as listener:
    threading.Thread(target=upstream, args=(listener,), daemon=True).start()
    port = free_port()
    (folder / "conf").write_text(CONF.format(folder=folder, port=port, upstream=listener.getsockname()[1]))
    nginx = subprocess.Popen([f"{folder}/unpacked/usr/sbin/nginx", "-p", folder, "-c", folder / "conf", "-e", folder / "error"])
    try:
        time.sleep(1)
        found = {(name, end): seen(f"/{name}/{end.replace(' ', '-')}") for name, end in EXPECTED}
    finally:
        nginx.terminate()
        nginx.wait(20)
for (name, end), (received, state) in found.items():
    print(f"{name:16} {received} bytes within 1 s; 8 s after the upstream {end}: {state}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
python3 drive.py
