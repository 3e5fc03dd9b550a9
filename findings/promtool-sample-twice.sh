#!/usr/bin/env bash
# Whether `promtool check metrics` finds a series that stands twice in what a program exposes, with two values.
#
# Guess: it does, and fails; a linter of metrics that names a missing help text would not miss that.
# Seen with Prometheus 2.42.0 of Debian 12: it says nothing and exits with 0. Prometheus takes the first value and calls
# the target up; neither its log nor its own metric of duplicates says that a value was dropped. A gauge that two
# workers write into one exposition shows one of them for ever.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/promtool-sample-twice.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

cat >drive.py <<'PYTHON'
import json, pathlib, socket, subprocess, sys, threading, time, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

METRICS = b"# HELP clients Those that are connected.\n# TYPE clients gauge\nclients 3\nclients 5\n"
folder = pathlib.Path.cwd()


class Exposes(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(METRICS)

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def asked(query):
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        found = json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]
    except OSError:
        return None
    return [each["value"][1] for each in found] or None


checked = subprocess.run([folder / "unpacked/usr/bin/promtool", "check", "metrics"], input=METRICS, capture_output=True)
exposer = HTTPServer(("127.0.0.1", 0), Exposes)
threading.Thread(target=exposer.serve_forever, daemon=True).start()
(folder / "conf").write_text(
    "scrape_configs:\n  - job_name: a\n    scrape_interval: 1s\n    static_configs:\n"
    f'      - targets: ["127.0.0.1:{exposer.server_port}"]\n'
)
port = free_port()
with open("log", "w") as log:
    prometheus = subprocess.Popen(
        [folder / "unpacked/usr/bin/prometheus", "--config.file=conf", "--storage.tsdb.path=data",
         f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:
        for _ in range(300):
            if asked("clients"):
                break
            time.sleep(0.2)
        time.sleep(3)
        values, up = asked("clients"), asked("up")
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    finally:
        prometheus.terminate()
        prometheus.wait(30)
said = "timestamp" in (folder / "log").read_text()
counted = "prometheus_target_scrapes_sample_duplicate_timestamp_total 0\n" not in metrics
print(f"promtool check metrics: exit code {checked.returncode}, says {checked.stderr.decode().strip() or 'nothing'}")
print(f"Prometheus: clients is {values}, up is {up}, the log says so: {said}, it is counted: {counted}")
same = (checked.returncode, checked.stderr, values, up, said, counted) == (0, b"", ["3"], ["1"], False, False)
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
