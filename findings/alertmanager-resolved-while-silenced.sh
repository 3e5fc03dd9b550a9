#!/usr/bin/env bash
# What a receiver of Alertmanager learns of an alert that it was told of, and that is resolved while it is silenced, or
# inhibited by another one.
#
# Documentation: `send_resolved`: whether to notify about resolved alerts; true for a webhook. Guess: a silence keeps new
# notifications back; who was told that an alert fires is told that it is over, at the latest when the silence ends.
# Seen with Alertmanager 0.25.0 of Debian 12, and so by hand with 0.33.1: never, neither then nor afterwards. So what one
# silences in the middle of an incident, as for the time of a repair, stays open for ever in a pager or a chat; and so does
# each alert that a graver one of the same incident has inhibited.
# Needs Debian 12, whose package it unpacks, and root. Run by hand: bash findings/alertmanager-resolved-while-silenced.sh.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus-alertmanager=0.25.0*' 2>/dev/null
dpkg-deb -x prometheus-alertmanager_*.deb unpacked

cat >drive.py <<'PYTHON'
import datetime, json, pathlib, socket, subprocess, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told.extend((alert["labels"]["alertname"], alert["status"]) for alert in said["alerts"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def at(seconds=0):
    return datetime.datetime.fromtimestamp(time.time() + seconds, datetime.timezone.utc).isoformat()


def ask(path, what=None):
    data = None if what is None else json.dumps(what).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=20).read()


def fires(name):
    ask("/api/v2/alerts", [{"labels": {"alertname": name}, "startsAt": at(-1)}])


def is_over(name):
    ask("/api/v2/alerts", [{"labels": {"alertname": name}, "startsAt": at(-60), "endsAt": at()}])


def until(there, seconds):
    end = time.monotonic() + seconds
    while not there() and time.monotonic() < end:
        time.sleep(0.1)
    return there()


receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
port = free_port()
pathlib.Path("conf").write_text(f"""
route: {{receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: 2s, repeat_interval: 1h}}
inhibit_rules:
  - {{source_matchers: [alertname="graver"], target_matchers: [alertname="inhibited"]}}
receivers:
  - name: hook
    webhook_configs: [{{url: "http://127.0.0.1:{receiver.server_port}/"}}]
""")
NAMES = "plain", "silenced", "inhibited"
with open("log", "w") as log:
    alertmanager = subprocess.Popen(
        ["unpacked/usr/bin/prometheus-alertmanager", "--config.file=conf", "--storage.path=data",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="], stderr=log)
try:
    for _ in range(300):
        try:
            ask("/-/ready")
            break
        except OSError:
            time.sleep(0.1)
    for name in NAMES:
        fires(name)
    assert until(lambda: {(name, "firing") for name in NAMES} <= set(told), 60), told
    matcher = {"name": "alertname", "value": "silenced", "isRegex": False, "isEqual": True}
    ask("/api/v2/silences", {"matchers": [matcher], "startsAt": at(), "endsAt": at(15), "createdBy": "a", "comment": "b"})
    fires("graver")
    assert until(lambda: ("graver", "firing") in told, 60), told
    for name in NAMES:
        is_over(name)
    assert until(lambda: ("plain", "resolved") in told, 60), told
    time.sleep(20)  # the silence ends
    is_over("graver")
    assert until(lambda: ("graver", "resolved") in told, 60), told
    time.sleep(10)
finally:
    alertmanager.terminate()
    alertmanager.wait(60)
for name in NAMES:
    print(f"{name:10} the receiver was told: {', '.join(status for what, status in told if what == name)}")
same = {name: ("resolved" if (name, "resolved") in told else "firing") for name in NAMES}
sys.exit(0 if same == {"plain": "resolved", "silenced": "firing", "inhibited": "firing"} else "This has changed.")
PYTHON
# The program of this package reads its templates below /usr/share and nowhere else: it sees its own there.
unshare --mount sh -c 'mount -t overlay overlay -o "lowerdir=$PWD/unpacked/usr/share:/usr/share" /usr/share && exec python3 drive.py'
