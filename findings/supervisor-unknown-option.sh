#!/usr/bin/env bash
# What supervisord does with a misspelt option of a program, here `autostrat=false` and `stopwaitsec=40`.
#
# Guess: it refuses to start, or at least warns, as it does for a value that it cannot read.
# Seen with supervisor 4.3.0: it says nothing, in its log or elsewhere, and uses the defaults: the program that was not
# to be started is running. A value that it cannot read, `autostart=flase`, does stop it.
# Run by hand: bash findings/supervisor-unknown-option.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install supervisor==4.3.0 setuptools==75.8.0
cd "$folder"

cat >drive.py <<'PYTHON'
import os, pathlib, subprocess, sys, time

CONF = """
[supervisord]
logfile={folder}/log
pidfile={folder}/pid
nodaemon=true
user={user}
[program:sleeper]
command=/bin/sh -c "echo > {folder}/started; exec sleep 60"
{options}
"""


def seen(options):
    folder = pathlib.Path.cwd()
    for name in ("log", "started"):
        (folder / name).unlink(missing_ok=True)
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    (folder / "conf").write_text(CONF.format(folder=folder, user=user, options=options))
    supervisord = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", "conf"]
    process = subprocess.Popen(supervisord, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(100):
        if process.poll() is not None or (folder / "started").exists():
            break
        time.sleep(0.1)
    refused = process.poll() is not None
    process.terminate()
    said = process.communicate(timeout=30)[0]
    words = options.replace("\n", "=").split("=")
    return refused, (folder / "started").exists(), any(word in said for word in words if word not in ("false", "40"))


misspelt = seen("autostrat=false\nstopwaitsec=40")
unreadable = seen("autostart=flase")
for name, (refused, started, named) in (("misspelt option", misspelt), ("unreadable value", unreadable)):
    print(f"{name:17} supervisord refused: {refused}, program started: {started}, named: {named}")
same = misspelt == (False, True, False) and unreadable == (True, False, True)
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
