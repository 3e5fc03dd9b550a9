#!/usr/bin/env bash
# Whether a reload takes nginx from `listen PORT` to `listen 127.0.0.1:PORT`, and back.
#
# Guess: yes, since it passes its listeners on to the next configuration, and `nginx -t` accepts both.
# Seen with nginx 1.22.1 of Debian 12: neither. It binds what is new while it still has what is old, and the two exclude
# each other, so nothing of the new configuration is in force ("bind() failed (98: Address already in use)", of a port
# that is nginx's own). An address alone beside `listen PORT` needs no listener of its own, and is followed.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-reload-between-addresses.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >drive.py <<'PYTHON'
import os, pathlib, socket, subprocess, sys, time, urllib.request

CONF = """
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ {listens} return 200 {answer}; }}
}}
"""
folder = pathlib.Path.cwd()
NGINX = [f"{folder}/unpacked/usr/sbin/nginx", "-p", str(folder), "-c", f"{folder}/conf", "-e", f"{folder}/error"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def configure(answer, listens):
    (folder / "conf").write_text(CONF.format(folder=folder, answer=answer, listens=listens))


def answer():
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode()


def wait_for(condition):
    for _ in range(200):
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)


def follows(before, after):
    """What is served when nginx has been reloaded from one way to listen to another."""
    (folder / "error").unlink(missing_ok=True)
    configure("old", before)
    with subprocess.Popen(NGINX) as nginx:
        wait_for(lambda: answer() == "old")
        configure("new", after)
        subprocess.run([*NGINX, "-s", "reload"], check=True, capture_output=True)
        wait_for(lambda: "still could not bind()" in (folder / "error").read_text() or answer() == "new")
        served = answer()
        nginx.terminate()
    return served


port = free_port()
every, alone = f"listen {port};", f"listen 127.0.0.1:{port};"
found = {
    "every address to one alone": follows(every, alone),
    "one alone to every address": follows(alone, every),
    "every address to both": follows(every, every + alone),
}
for name, served in found.items():
    print(f"{name:28} then serves what is {served}")
sys.exit(0 if list(found.values()) == ["old", "old", "new"] else "This has changed.")
PYTHON
python3 drive.py
