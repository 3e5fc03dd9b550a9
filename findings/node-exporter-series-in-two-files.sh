#!/usr/bin/env bash
# What the textfile collector of the node exporter shows when two files have the same series, or the same metric with two
# types, as two cron jobs on one host do that were made from one template.
#
# Documentation: `node_textfile_scrape_error`: 1 if there was an error opening or reading a file. Guess: it is 1, so that
# the usual alert fires, and what is in conflict is missing.
# Seen with 1.5.0 of Debian 12, and so by hand with 1.9.0 of Debian 13: it stays 0, and `node_scrape_collector_success` 1.
# The file that comes first by name wins: the same series in a later one is left out, and so is a metric that has another
# type there. The answer is 200, and only the log has an error, at each scrape. So one of two backups is watched, and the
# other seems to be.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/node-exporter-series-in-two-files.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'prometheus-node-exporter=1.5.0*' 2>/dev/null
dpkg-deb -x prometheus-node-exporter_*.deb unpacked
mkdir files
cat >files/a.prom <<'TEXT'
# TYPE backup_last_success_timestamp_seconds gauge
backup_last_success_timestamp_seconds{name="mail"} 1
# TYPE backup_runs counter
backup_runs{name="mail"} 10
TEXT
cat >files/b.prom <<'TEXT'
# TYPE backup_last_success_timestamp_seconds gauge
backup_last_success_timestamp_seconds{name="mail"} 2
backup_last_success_timestamp_seconds{name="web"} 3
# TYPE backup_runs gauge
backup_runs{name="web"} 20
TEXT

cat >drive.py <<'PYTHON'
import re, socket, subprocess, sys, time, urllib.request

EXPECTED = [
    'backup_last_success_timestamp_seconds{name="mail"} 1',
    'backup_last_success_timestamp_seconds{name="web"} 3',
    'backup_runs{name="mail"} 10',
    'node_scrape_collector_success{collector="textfile"} 1',
    "node_textfile_scrape_error 0",
]
with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
with open("log", "w") as log:
    exporter = subprocess.Popen(
        ["unpacked/usr/bin/prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
         "--collector.textfile.directory=files", f"--web.listen-address=127.0.0.1:{port}"],
        stderr=log,
    )
seen = []
try:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).close()
            break
        except OSError:
            time.sleep(0.1)
    for _ in range(20):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            assert answer.status == 200
            text = answer.read().decode()
        seen.append(re.findall(r"(?m)^(?:backup_|node_textfile_scrape_error|node_scrape_collector_success).*", text))
finally:
    exporter.terminate()
    exporter.wait(60)
with open("log") as log:
    complaints = sum("was collected before with the same name" in line and "should be a" in line for line in log)
print(*seen[0], sep="\n")
print(f"the same at each of 20 scrapes: {all(lines == seen[0] for lines in seen)}; complaints in the log: {complaints}")
sys.exit(0 if all(lines == EXPECTED for lines in seen) and complaints == 20 else "This has changed.")
PYTHON
python3 drive.py
