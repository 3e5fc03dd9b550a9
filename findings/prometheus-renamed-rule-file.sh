#!/usr/bin/env bash
# What becomes of firing alerts when Prometheus reloads the same rules from a file of another name, as when the name of
# a release is part of it, or a group of rules is renamed.
#
# Guess: nothing; the state of an alert belongs to its rule, and a reload leaves rules that have not changed alone.
# Seen with Prometheus 2.42.0 of Debian 12: it belongs to file and group. The alert is pending again for all of its
# `for:`, whatever that is; the state in the storage is only taken up after a restart. With `for: 5m` or more
# Alertmanager says that it is resolved, and then that it fires, for everything that was broken at the time. The
# contents may change: of a file that keeps its name, a rule with the same name and labels keeps its state, even with
# another expression.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/prometheus-renamed-rule-file.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

cat >drive.py <<'PYTHON'
import json, pathlib, signal, socket, subprocess, sys, time, urllib.request


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def asked(path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=20) as answer:
            return json.load(answer)["data"]
    except OSError:
        return {"alerts": [], "groups": []}


def states():
    return [alert["state"] for alert in asked("alerts")["alerts"]]


def groups():
    return [(pathlib.Path(group["file"]).name, group["name"], rule["query"])
            for group in asked("rules")["groups"] for rule in group["rules"]]


def until(there):
    end = time.monotonic() + 60
    while not there() and time.monotonic() < end:
        time.sleep(0.2)
    assert there(), (states(), groups())


def configured(file, group, expression):
    pathlib.Path("conf").write_text(f"{{global: {{evaluation_interval: 1s}}, rule_files: [{file}]}}")
    rule = f"{{alert: Broken, expr: '{expression}', for: 8s}}"
    pathlib.Path(file).write_text(f"groups: [{{name: {group}, rules: [{rule}]}}]")
    return [(file, group, expression)]


CHANGES = {
    "nothing": ("rules-1.yaml", "a", "vector(1) > 0"),
    "the expression": ("rules-1.yaml", "a", "vector(2) > 0"),
    "the name of the file": ("rules-2.yaml", "a", "vector(2) > 0"),
    "the name of the group": ("rules-2.yaml", "b", "vector(2) > 0"),
}
port = free_port()
configured(*CHANGES["nothing"])
with open("log", "w") as log:
    prometheus = subprocess.Popen(["unpacked/usr/bin/prometheus", "--config.file=conf", "--storage.tsdb.path=data",
                                   f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
seen = {}
try:
    for name, change in CHANGES.items():
        until(lambda: states() == ["firing"])
        there = configured(*change)
        prometheus.send_signal(signal.SIGHUP)
        time.sleep(1)
        until(lambda: groups() == there)
        time.sleep(3)
        seen[name] = states()
        print(f"{name} has changed: {', '.join(seen[name])}")
finally:
    prometheus.terminate()
    prometheus.wait(60)
sys.exit(0 if list(seen.values()) == [["firing"], ["firing"], ["pending"], ["pending"]] else "This has changed.")
PYTHON
python3 drive.py
