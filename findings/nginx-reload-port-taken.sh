#!/usr/bin/env bash
# What happens when nginx is reloaded with a configuration that listens on a port that another program has.
#
# Guess: `nginx -t` or `nginx -s reload` fails; or if not, all that the new configuration says but for that port is in
# force.
# Seen with nginx 1.22.1 of Debian 12: both exit with 0, and nothing of the new configuration is in force, not even in
# sites whose ports are free. Only the error log says so ("still could not bind()"), after several tries.
# So after a reload one has to check that nginx serves the new configuration.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-reload-port-taken.sh. Fails when that
# changes.
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
    server {{ listen 127.0.0.1:{port}; return 200 {answer}; }}
    {more}
}}
"""
folder = pathlib.Path.cwd()
NGINX = [f"{folder}/unpacked/usr/sbin/nginx", "-p", str(folder), "-c", f"{folder}/conf", "-e", f"{folder}/error"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def configure(answer, more=""):
    (folder / "conf").write_text(CONF.format(folder=folder, port=port, answer=answer, more=more))


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


def run(*options):
    return subprocess.run([*NGINX, *options], capture_output=True, text=True).returncode


def reload(said):
    """The exit codes of test and reload, and what is served when nginx has written `said` or serves what is new."""
    codes = run("-t"), run("-s", "reload")
    wait_for(lambda: said in (folder / "error").read_text() or answer() == "new")
    return (*codes, answer())


port = free_port()
configure("old")
nginx = subprocess.Popen(NGINX)
try:
    wait_for(lambda: answer() == "old")
    with socket.create_server(("127.0.0.1", 0)) as other:
        configure("new", f"server {{ listen 127.0.0.1:{other.getsockname()[1]}; return 200 other; }}")
        taken = reload("still could not bind()")
    configure("new")
    free = reload("nothing to wait for")
finally:
    nginx.terminate()
    nginx.wait(20)
for name, (tested, reloaded, served) in (("a port is taken", taken), ("all are free", free)):
    print(f"{name:16} nginx -t: {tested}, nginx -s reload: {reloaded}, then serves what is {served}")
same = taken == (0, 0, "old") and free == (0, 0, "new")
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
