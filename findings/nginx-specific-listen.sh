#!/usr/bin/env bash
# Which site of nginx answers a request whose `Host` is the `server_name` of one site, when another site listens on the
# address that it came to (`listen 127.0.0.1:8080`), and the first one on all addresses (`listen 8080`).
#
# Guess: the site whose `server_name` it is; `default_server` and the order of sites decide only if no name matches.
# Seen with nginx 1.22.1 of Debian 12: the other site. Names are compared only among the sites with the most specific
# `listen` address; `nginx -t` says nothing, and the same request to another address of the host goes to the right site.
# Needs Debian 12, whose package it unpacks, and user namespaces. Run by hand: bash findings/nginx-specific-listen.sh.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked

cat >drive.py <<'PYTHON'
import pathlib, subprocess, sys, time, urllib.request

CONF = """
user root; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 8080; server_name one.example; return 200 "site one"; }}
    server {{ listen 127.0.0.1:8080; server_name two.example; return 200 "site two"; }}
}}
"""
folder = pathlib.Path.cwd()
(folder / "conf").write_text(CONF.format(folder=folder))
NGINX = [f"{folder}/unpacked/usr/sbin/nginx", "-p", str(folder), "-c", f"{folder}/conf", "-e", f"{folder}/error"]


def answer(address):
    request = urllib.request.Request(f"http://{address}:8080/", headers={"Host": "one.example"})
    return urllib.request.urlopen(request, timeout=10).read().decode()


tested = subprocess.run([*NGINX, "-t"], capture_output=True, text=True)
warned = "[warn]" in tested.stderr
nginx = subprocess.Popen(NGINX, stderr=subprocess.DEVNULL)
try:
    for _ in range(100):
        try:
            answer("127.0.0.1")
            break
        except OSError:
            time.sleep(0.1)
    specific, other = answer("127.0.0.1"), answer("127.0.0.2")
finally:
    nginx.terminate()
    nginx.wait(20)
print(f"nginx -t: {tested.returncode}, warning: {warned}")
print(f"Host: one.example to 127.0.0.1: {specific}; to 127.0.0.2: {other}")
same = (tested.returncode, warned, specific, other) == (0, False, "site two", "site one")
sys.exit(0 if same else "This has changed.")
PYTHON
# A network of its own, in which "all addresses" are those of loopback.
unshare --map-root-user --net sh -c 'ip link set lo up && exec python3 drive.py'
