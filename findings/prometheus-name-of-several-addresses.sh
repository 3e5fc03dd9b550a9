#!/usr/bin/env bash
# What Prometheus says of a target whose name has two addresses, as a service on two hosts has, when one of them is down.
#
# Documentation: `up` is 1 if the instance is healthy, that is reachable, and 0 if the scrape failed. Guess: scrapes go to
# both in turn, or always to the first; so `up` is 0 at least now and then, and `up == 0` fires.
# Seen with Prometheus 2.42.0 of Debian 12: `up` stays 1. All scrapes go to one address over one connection; when that
# one is down, the next scrape goes to the other, and the counters of another host go on in the same series. The other
# address is asked by nobody, whether it is up or down. Each host needs a target of its own.
# Needs Debian 12, whose package it unpacks, and root. Run by hand:
# bash findings/prometheus-name-of-several-addresses.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked
printf '127.0.0.1 localhost\n127.0.0.2 center.example\n127.0.0.3 center.example\n' >hosts

cat >drive.py <<'PYTHON'
import json, pathlib, subprocess, sys, time, urllib.parse, urllib.request

HOST = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Host(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"this_is_host {sys.argv[1]}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer((f"127.0.0.{sys.argv[1]}", 8000), Host).serve_forever()
"""
pathlib.Path("prometheus.yml").write_text("""
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs: [{job_name: center, static_configs: [{targets: ["center.example:8000"]}]}]
""")


def ask(query):
    url = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
    found = json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def until(there):
    for _ in range(600):
        try:
            if there():
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("not in time")


hosts = {number: subprocess.Popen([sys.executable, "-c", HOST, str(number)]) for number in (2, 3)}
time.sleep(2)
with open("log", "w") as log:
    prometheus = subprocess.Popen(
        ["unpacked/usr/bin/prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
         "--web.listen-address=127.0.0.1:9090"], stderr=log)
try:
    until(lambda: ask("this_is_host"))
    time.sleep(5)
    first = int(ask("this_is_host"))
    changes = ask("changes(this_is_host[1h])")
    print(f"both are up: host {first} is seen, {changes:.0f} changes to the other one")
    hosts[first].terminate()
    until(lambda: ask("this_is_host") != first)
    time.sleep(3)
    second, least = int(ask("this_is_host")), ask("min_over_time(up[1h])")
    print(f"host {first} is down: host {second} is seen; the least that `up` has been is {least:.0f}")
    same = changes == 0 and {first, second} == {2, 3} and least == 1
finally:
    for each in (prometheus, *hosts.values()):
        each.terminate()
        each.wait(60)
sys.exit(0 if same else "This has changed.")
PYTHON
# A network of its own, and an /etc/hosts.
unshare --net --mount sh -c 'ip link set lo up && mount --bind hosts /etc/hosts && exec python3 drive.py'
