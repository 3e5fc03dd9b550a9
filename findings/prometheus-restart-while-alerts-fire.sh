#!/usr/bin/env bash
# What becomes of alerts that are firing when Prometheus is restarted.
#
# Prometheus writes the state of alerts with `for:` into its storage and takes it from there after a restart. Guess: so
# an alert that was firing fires on, Alertmanager is told in time, and nobody notices; and one that has ended, and is
# kept by `keep_firing_for`, is kept on.
# Seen with Prometheus 2.42.0 of Debian 12: only an alert whose `for:` is ten minutes or more
# (`--rules.alert.for-grace-period`) is taken up. With a shorter one it is pending again for all of its `for:`;
# meanwhile Alertmanager, which was promised nothing beyond four minutes, says that it is resolved, and then that it
# fires: with `for: 5m` each restart of Prometheus sends both for each firing alert. An alert that `keep_firing_for`
# kept is gone at once. Here all times are some seconds; the second restart has another grace period.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/prometheus-restart-while-alerts-fire.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

cat >drive.py <<'PYTHON'
import datetime, json, pathlib, socket, subprocess, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

values = {"broken": 1, "flapping": 1}
promised = []  # Until when the alert Broken fires, as Alertmanager is told, and when it is told so.


class ScrapedAndTold(BaseHTTPRequestHandler):
    """A target that is scraped, and an Alertmanager."""

    def do_GET(self):
        self.answer("".join(f"{name} {value}\n" for name, value in values.items()).encode())

    def do_POST(self):
        for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
            if alert["labels"]["alertname"] == "Broken":
                until = datetime.datetime.fromisoformat(alert["endsAt"][:19] + "+00:00").timestamp()
                promised.append((time.time(), until))
        self.answer(b"")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(*options):
    command = ["unpacked/usr/bin/prometheus", "--config.file=conf", "--storage.tsdb.path=data"]
    return subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=2s", *options],
                            stderr=log)


def alerts():
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=20) as answer:
            return {alert["labels"]["alertname"]: alert["state"] for alert in json.load(answer)["data"]["alerts"]}
    except OSError:
        return {}


def until(there, seconds=60):
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.2)
    assert there(), alerts()


def restarted(*options):
    """How Broken is when it comes back, whether Kept does, and for how long Alertmanager took Broken for resolved."""
    global prometheus
    prometheus.terminate()
    prometheus.wait(60)
    time.sleep(1)
    told = len(promised)
    prometheus = start(*options)
    states = []

    def fires_again():
        states.append(alerts())
        return len(promised) > told

    until(fires_again)
    pending = sum(state.get("Broken") == "pending" for state in states) * 0.2
    return pending > 10, any("Kept" in state for state in states), promised[told][0] > promised[told - 1][1] + 1


server = ThreadingHTTPServer(("127.0.0.1", 0), ScrapedAndTold)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = free_port()
pathlib.Path("conf").write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{server.server_port}"]}}]}}]}}
scrape_configs: [{{job_name: a, static_configs: [{{targets: ["127.0.0.1:{server.server_port}"]}}]}}]
""")
pathlib.Path("rules").write_text("""
groups:
  - name: a
    rules:
      - {alert: Broken, expr: broken == 1, for: 20s}
      - {alert: Kept, expr: flapping == 1, keep_firing_for: 1h}
""")
log = open("log", "w")
prometheus = start()
seen = []
try:
    for name, options in {"by default": [], "with a grace period of 1 s": ["--rules.alert.for-grace-period=1s"]}.items():
        values["flapping"] = 1
        until(lambda: alerts() == {"Broken": "firing", "Kept": "firing"})
        values["flapping"] = 0
        time.sleep(4)
        assert alerts() == {"Broken": "firing", "Kept": "firing"}, alerts()
        seen.append(restarted(*options))
        print(f"restarted {name}: Broken was pending again for long: {seen[-1][0]}, and resolved for Alertmanager: "
              f"{seen[-1][2]}; Kept came back: {seen[-1][1]}")
finally:
    prometheus.terminate()
    prometheus.wait(60)
sys.exit(0 if seen == [(True, False, True), (False, False, False)] else "This has changed.")
PYTHON
python3 drive.py
