#!/usr/bin/env bash
# How long supervisord takes to stop four programs that each take two seconds to end.
#
# Guess: two seconds, and at most `stopwaitsecs` of the slowest: it signals all of them and waits, as `supervisorctl stop
# all` does, and as systemd does.
# Seen with supervisor 4.3.0: on SIGTERM, and so at each reboot, it signals one program, waits for its end, and only then
# signals the next, so that all `stopwaitsecs` add up. `supervisorctl stop` with names does the same. A service manager
# that waits for supervisord itself, systemd for 90 s by default, must wait for the sum.
# Run by hand: bash findings/supervisor-stops-one-after-another.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install supervisor==4.3.0 setuptools==75.8.0
cd "$folder"

cat >drive.py <<'PYTHON'
import os, pathlib, subprocess, sys, time

PROGRAMS = 4
CONF = """
[supervisord]
logfile={folder}/log
pidfile={folder}/pid
nodaemon=true
user={user}
[unix_http_server]
file={folder}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/socket
"""
PROGRAM = """
[program:{name}]
command=/bin/sh -c "trap 'echo > {folder}/{name}.asked; sleep 2; exit 0' TERM; echo > {folder}/{name}.up; while :; do sleep 0.05; done"
startsecs=0
stopwaitsecs=10
"""
folder = pathlib.Path.cwd()
names = [f"p{number}" for number in range(PROGRAMS)]
user = subprocess.check_output(["id", "-un"], text=True).strip()
(folder / "conf").write_text(
    CONF.format(folder=folder, user=user) + "".join(PROGRAM.format(folder=folder, name=name) for name in names)
)


def together(stop):
    """Whether all are asked to end before the first has ended, and how long it takes until all have."""
    for left in [*folder.glob("*.asked"), *folder.glob("*.up")]:
        left.unlink()
    supervisord = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", "conf"], stdout=subprocess.DEVNULL
    )
    while len([*folder.glob("*.up")]) < PROGRAMS:
        time.sleep(0.1)
    began = time.monotonic()
    stop(supervisord)
    took = time.monotonic() - began
    asked = [(folder / f"{name}.asked").stat().st_mtime for name in names]
    if supervisord.poll() is None:
        supervisord.terminate()
        supervisord.wait(60)
    return max(asked) - min(asked) < 1.5, took


def ctl(*words):
    command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisorctl", "-c", "conf", *words]
    return lambda supervisord: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def sigterm(supervisord):
    supervisord.terminate()
    supervisord.wait(60)


found = {}
for name, stop in (("SIGTERM", sigterm), ("supervisorctl stop all", ctl("stop", "all")),
                   ("supervisorctl stop p0 p1 p2 p3", ctl("stop", *names))):
    found[name], took = together(stop)
    print(f"{name:31} {'all at once' if found[name] else 'one after another'}, {took:.1f} s")
same = found == {"SIGTERM": False, "supervisorctl stop all": True, "supervisorctl stop p0 p1 p2 p3": False}
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
