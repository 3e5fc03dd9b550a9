#!/usr/bin/env bash
# What `supervisorctl status NAME` exits with, by the state of the program.
#
# Documentation: 0, 3 if a program is not running, 4 if there is none of that name. Guess: 0 for RUNNING alone, so that a
# health check, or a script that deploys, may rely on it.
# Seen with supervisor 4.3.0: 0 for STARTING, and for BACKOFF too: for a program that ends as soon as it is started, and
# for one whose command does not exist. Only when supervisord has given up, FATAL, or the program is stopped, is it 3. By
# default that takes about ten seconds of a program that cannot start; with more `startretries`, minutes. So look at the
# word, not at the code.
# Run by hand: bash findings/supervisorctl-status-exit-code.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install supervisor==4.3.0 setuptools==75.8.0
cd "$folder"

cat >conf <<CONF
[supervisord]
logfile=$folder/log
pidfile=$folder/pid
nodaemon=true
user=$(id -un)
[unix_http_server]
file=$folder/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$folder/socket
[program:stopped]
command=sleep 100
autostart=false
[program:running]
command=sleep 100
startsecs=0
[program:starting]
command=sleep 100
startsecs=1000
[program:fails]
command=false
startretries=1000
[program:missing]
command=$folder/nowhere
startretries=1000
[program:fatal]
command=false
startretries=0
CONF

cat >drive.py <<'PYTHON'
import subprocess, sys, time

PYTHON = [sys.executable, "-W", "ignore", "-m"]
EXPECTED = {
    "running": ("RUNNING", 0),
    "starting": ("STARTING", 0),
    "fails": ("BACKOFF", 0),
    "missing": ("BACKOFF", 0),
    "stopped": ("STOPPED", 3),
    "fatal": ("FATAL", 3),
}


def status(program):
    """The state that supervisorctl prints, and its exit code."""
    done = subprocess.run([*PYTHON, "supervisor.supervisorctl", "-c", "conf", "status", program],
                          capture_output=True, text=True)
    return (done.stdout.split() + ["", ""])[1], done.returncode


found = {}
supervisord = subprocess.Popen([*PYTHON, "supervisor.supervisord", "-c", "conf"], stdout=subprocess.DEVNULL)
try:
    for program, (state, _) in EXPECTED.items():
        for _ in range(300):
            found[program] = status(program)
            if found[program][0] == state:
                break
            time.sleep(0.1)
        print(f"{program:9} {found[program][0]:9} exit code {found[program][1]}")
finally:
    supervisord.terminate()
    supervisord.wait(60)
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
