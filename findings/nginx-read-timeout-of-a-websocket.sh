#!/usr/bin/env bash
# Whether `proxy_read_timeout` ends a WebSocket whose server is silent while its client goes on sending.
#
# Documentation of nginx, "WebSocket proxying": by default the connection is closed if the proxied server does not
# transmit any data within 60 seconds. Guess: so it is, whatever the client sends.
# Seen with nginx 1.22.1 of Debian 12: each byte of the client starts the time anew. A server that hangs is never found
# out by nginx as long as its clients send, pings of their own for example.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-read-timeout-of-a-websocket.sh. Fails when
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
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        proxy_read_timeout 2s;
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
    }}
}}
"""
folder = pathlib.Path.cwd()


def head(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def silent_upstream(listener):
    held = []
    while True:
        connection, _ = listener.accept()
        head(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        held.append(connection)


def open_after(seconds, sends):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        head(client)
        client.settimeout(0.5)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            try:
                if not client.recv(1):
                    return False
            except TimeoutError:
                if sends:
                    client.sendall(b"x")
        return True


with socket.create_server(("127.0.0.1", 0)) as listener:
    threading.Thread(target=silent_upstream, args=(listener,), daemon=True).start()
    port = free_port()
    (folder / "conf").write_text(CONF.format(folder=folder, port=port, upstream=listener.getsockname()[1]))
    nginx = subprocess.Popen([f"{folder}/unpacked/usr/sbin/nginx", "-p", folder, "-c", folder / "conf", "-e", folder / "error"])
    try:
        time.sleep(1)
        silent, sending = open_after(8, sends=False), open_after(8, sends=True)
    finally:
        nginx.terminate()
        nginx.wait(20)
print(f"open after 8 s with proxy_read_timeout 2s: {silent} if the client is silent, {sending} if it sends")
sys.exit(0 if (silent, sending) == (False, True) else "This has changed.")
PYTHON
python3 drive.py
