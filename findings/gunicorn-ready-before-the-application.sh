#!/usr/bin/env bash
# When gunicorn tells systemd that it is ready, as it does in a unit of `Type=notify`.
#
# Guess: when its workers have loaded the application and can answer, so that a unit whose application cannot be
# imported fails to start, and `systemctl start` says so.
# Seen with gunicorn 27.0.1: before it starts the first worker. An application that takes five seconds to load is "ready"
# at once, and one that raises when it is imported is "ready" too, just before gunicorn exits with 3: the start
# succeeds, and the unit fails behind its back. With `--preload` it is as one would guess. Of a reload it tells nothing.
# Run by hand: bash findings/gunicorn-ready-before-the-application.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
cd "$folder"

# Each leaves a mark when it is imported.
printf 'import pathlib\npathlib.Path("loaded").touch()\napp = print\n' >good.py
printf 'import pathlib\npathlib.Path("loaded").touch()\nraise RuntimeError\n' >broken.py

cat >drive.py <<'PYTHON'
import os, pathlib, signal, socket, subprocess, sys, time

EXPECTED = {
    ("good", ""): ("ready", "running", "nothing"),
    ("broken", ""): ("ready", "exit code 3", "-"),
    ("good", "--preload"): ("loaded, ready", "running", "nothing"),
    ("broken", "--preload"): ("loaded", "exit code 1", "-"),
}
folder = pathlib.Path.cwd()


def told(messages, process, seconds):
    """The first message within that time; None if the process ends without one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return messages.recv(4096)
        except TimeoutError:
            if process.poll() is not None:
                return None
    return None


def seen(module, option):
    (folder / "loaded").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.bind("notify")
        messages.settimeout(0.1)
        # The worker is started only when its main process has been heard: it stops here until it is asked to go on.
        words = [f"{sys.prefix}/bin/gunicorn", f"{module}:app", "--bind", "127.0.0.1:0", "--no-control-socket",
                 "--log-level", "critical", "--config", "conf.py", *option.split()]
        process = subprocess.Popen(words, env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
                                   stderr=subprocess.DEVNULL)
        message = told(messages, process, 20)
        steps = ["loaded"] if (folder / "loaded").exists() else []
        steps += ["ready"] if message and b"READY=1" in message else []
        (folder / "go").touch()
        try:
            state, reloading = f"exit code {process.wait(3)}", "-"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGHUP)
            state, reloading = "running", told(messages, process, 3) or "nothing"
            process.terminate()
            process.wait(60)
    (folder / "notify").unlink()
    (folder / "go").unlink()
    return ", ".join(steps), state, reloading


(folder / "conf.py").write_text("""
import pathlib, time

def post_fork(server, worker):
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
""")
same = True
for (module, option), expected in EXPECTED.items():
    found = seen(module, option)
    same &= found == expected
    steps, state, reloading = found
    print(f"{module:6} {option:9} {steps:14} then {state}; told of a reload: {reloading}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
