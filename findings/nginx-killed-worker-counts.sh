#!/usr/bin/env bash
# What nginx still counts of connections whose worker process was killed, as the kernel does when memory runs out.
#
# Guess: nothing. The kernel closes the connections with the process, the main process starts another worker, and
# `limit_conn`, `max_conns` and `stub_status` count what is there.
# Seen with nginx 1.22.1 of Debian 12, and so by hand with 1.26.3 of Debian 13 and 1.30.6: they count the lost
# connections for ever, since their numbers are in memory that all workers share, and only the worker that counted a
# connection takes it off. A client that had as many WebSockets as `limit_conn` allows gets 503 from then on, even after
# a reload; `max_conns` of an upstream with a `zone` gives 502 until the next reload; `stub_status` reports connections
# that nobody has. Only a restart of nginx sets all three right.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-killed-worker-counts.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >drive.py <<'PYTHON'
import os, pathlib, re, signal, socket, subprocess, sys, threading, time

CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    limit_conn_zone $binary_remote_addr zone=clients:1m;
    upstream bounded {{ zone bounded 64k; server 127.0.0.1:{upstream} max_conns=2; }}
    server {{
        listen 127.0.0.1:{port};
        location /limit_conn {{ limit_conn clients 2; proxy_pass http://127.0.0.1:{upstream}; }}
        location /max_conns {{ proxy_pass http://bounded; }}
        location /status {{ stub_status; }}
    }}
}}
"""
EXPECTED = {
    "limit_conn": {"before": "101", "killed": "503", "reloaded": "503", "restarted": "101"},
    "max_conns": {"before": "101", "killed": "502", "reloaded": "101", "restarted": "101"},
}
folder = pathlib.Path.cwd()
NGINX = [f"{folder}/unpacked/usr/sbin/nginx", "-p", folder, "-c", folder / "conf", "-e", folder / "error"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def head(connection):
    received = b""
    while b"\r\n\r\n" not in received and (data := connection.recv(4096)):
        received += data
    return received.decode()


def serve(connection):
    """Upgrade, and hold the connection until the other end closes it."""
    with connection:
        if head(connection):
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            connection.recv(1)


def upstream(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def ask(path):
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode())
    return connection, head(connection)


def answer(path):
    connection, text = ask(path)
    connection.close()
    time.sleep(0.5)
    return text.split()[1]


def active():
    connection, text = ask("/status")
    connection.close()
    return int(re.search(r"Active connections: (\d+)", text)[1])


def started():
    nginx = subprocess.Popen(NGINX)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    time.sleep(0.5)
    return nginx


def stopped(nginx):
    nginx.terminate()
    nginx.wait(60)


def seen(path):
    nginx = started()
    found = {"before": answer(path)}
    held = [ask(path)[0] for _ in range(2)]
    pids = subprocess.check_output(["pgrep", "--parent", str(nginx.pid)], text=True).split()
    os.kill(int(pids[0]), signal.SIGKILL)
    for connection in held:
        connection.close()
    time.sleep(1)
    found["killed"] = answer(path)
    nginx.send_signal(signal.SIGHUP)
    time.sleep(2)
    found["reloaded"] = answer(path)
    left = active()
    stopped(nginx)
    nginx = started()
    found["restarted"] = answer(path)
    stopped(nginx)
    return found, left


with socket.create_server(("127.0.0.1", 0)) as listener:
    threading.Thread(target=upstream, args=(listener,), daemon=True).start()
    port = free_port()
    (folder / "conf").write_text(CONF.format(folder=folder, port=port, upstream=listener.getsockname()[1]))
    same = True
    for name, expected in EXPECTED.items():
        found, left = seen(f"/{name}")
        same &= found == expected and left == 3
        print(f"{name:10} {found}; stub_status counts {left} connections where there is 1")
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
