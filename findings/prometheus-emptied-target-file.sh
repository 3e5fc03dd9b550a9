#!/usr/bin/env bash
# What Prometheus does when a file of `file_sd_configs` is suddenly empty, as a full disk or a deployment that is cut short
# leaves it.
#
# Documentation: only changes that result in well-formed target groups are applied. Guess: an empty file is not a list of
# targets; so the old ones stay, and the log has an error.
# Seen with Prometheus 2.42.0 of Debian 12, and so by hand with 2.53.3 of Debian 13: it is so with JSON. With YAML an empty
# file is a list without targets. All of them vanish without a line in the log, and an alert on `up == 0` is resolved,
# since its series ends. A YAML file that is cut off loses targets likewise if the rest is still a list. Write such files
# under another name and rename them, or write JSON, and have an alert on `absent(up{job="..."})`.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/prometheus-emptied-target-file.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus=2.42.0*' 2>/dev/null
dpkg-deb -x prometheus_*.deb unpacked

cat >drive.py <<'PYTHON'
import json, os, pathlib, socket, subprocess, sys, time, urllib.request

YAML = "- targets: ['127.0.0.1:1']\n  labels: {from: yaml}\n- targets: ['127.0.0.1:2']\n  labels: {from: yaml}\n"
JSON = json.dumps([{"targets": ["127.0.0.1:1", "127.0.0.1:2"], "labels": {"from": "json"}}])
CONF = """
global: {{scrape_interval: 5s}}
scrape_configs:
  - job_name: a
    file_sd_configs: [{{files: ["{folder}/hosts.yaml", "{folder}/hosts.json"], refresh_interval: 1s}}]
"""
folder = pathlib.Path.cwd()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def targets():
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=20) as answer:
        active = json.load(answer)["data"]["activeTargets"]
    return {name: sum(target["labels"]["from"] == name for target in active) for name in ("yaml", "json")}


def after(yaml, text):
    """The targets some refreshes after the files have these contents, and the names of the files that the log complains of."""
    before = (folder / "log").stat().st_size
    (folder / "hosts.yaml").write_text(yaml)
    (folder / "hosts.json").write_text(text)
    time.sleep(12)
    log = (folder / "log").read_text()[before:]
    return targets(), [name for name in ("yaml", "json") if f"hosts.{name}" in log]


port = free_port()
(folder / "conf").write_text(CONF.format(folder=folder))
(folder / "hosts.yaml").write_text(YAML)
(folder / "hosts.json").write_text(JSON)
with open("log", "w") as log:
    prometheus = subprocess.Popen(
        ["unpacked/usr/bin/prometheus", "--config.file=conf", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"],
        stderr=log,
    )
try:
    for _ in range(300):
        try:
            if sum(targets().values()) == 4:
                break
        except OSError:
            pass
        time.sleep(0.1)
    found = {"whole": after(YAML, JSON), "cut": after(YAML[: len(YAML) // 2], JSON[: len(JSON) // 2]), "empty": after("", "")}
finally:
    prometheus.terminate()
    prometheus.wait(60)
for name, (seen, complaints) in found.items():
    print(f"{name:5} targets {seen}, errors in the log about {complaints}")
expected = {
    "whole": ({"yaml": 2, "json": 2}, []),
    "cut": ({"yaml": 1, "json": 2}, ["json"]),
    "empty": ({"yaml": 0, "json": 2}, ["json"]),
}
sys.exit(0 if found == expected else "This has changed.")
PYTHON
python3 drive.py
