#!/usr/bin/env bash
# What happens to clients that connect while supervisor restarts an `fcgi-program`, whose socket supervisord opens and
# hands to uvicorn (`--fd 0`), for example.
#
# Guess: supervisord keeps the socket open for as long as it runs, as systemd does with a socket unit. Clients wait in the
# backlog until the program is there again.
# Seen with supervisor 4.3.0: it closes the socket when the last process of the group ends, and opens a new one for the
# next. A restart of the only process resets all clients that were waiting, and those between the two sockets are
# refused; the same with two processes that are restarted at once. After `supervisorctl stop` every client is refused.
# Two processes that are restarted one after the other, with a command for each, lose nobody.
# Run by hand: bash findings/supervisor-socket-of-a-stopped-program.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install supervisor==4.3.0 setuptools==75.8.0
cd "$folder"

cat >server.py <<'PYTHON'
import signal, socket, sys, time


def stop(*_):
    time.sleep(2)  # it finishes its work, and accepts nobody
    sys.exit()


signal.signal(signal.SIGTERM, stop)
listener = socket.socket(fileno=0)
while True:
    listener.accept()[0].sendall(b"served")
PYTHON
cat >drive.py <<'PYTHON'
import collections, pathlib, socket, subprocess, sys, threading, time

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
[fcgi-program:web]
socket=tcp://127.0.0.1:{port}
command={python} {folder}/server.py
process_name=%(program_name)s%(process_num)s
numprocs={count}
startsecs=0
"""
folder = pathlib.Path.cwd()
user = subprocess.check_output(["id", "-un"], text=True).strip()
RUN = [sys.executable, "-W", "ignore", "-m"]


def ctl(*words):
    subprocess.run([*RUN, "supervisor.supervisorctl", "-c", "conf", *words], stdout=subprocess.DEVNULL)


def connect(answers):
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            answers.append(connection.recv(100).decode() or "closed")
    except ConnectionRefusedError:
        answers.append("refused")
    except ConnectionResetError:
        answers.append("reset")


def answers_while(*commands):
    """What clients get that connect every tenth of a second meanwhile."""
    answers, clients = [], []
    over = threading.Event()

    def come():
        while not over.is_set():
            clients.append(threading.Thread(target=connect, args=(answers,)))
            clients[-1].start()
            time.sleep(0.1)

    coming = threading.Thread(target=come)
    coming.start()
    time.sleep(0.5)
    for command in commands:
        ctl(*command)
    time.sleep(1)
    over.set()
    coming.join()
    for client in clients:
        client.join()
    return collections.Counter(answers)


same = True
for count, commands in ((1, [("restart", "web:web0")]), (2, [("restart", "web:*")]),
                        (2, [("restart", "web:web0"), ("restart", "web:web1")])):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (folder / "conf").write_text(CONF.format(folder=folder, user=user, port=port, count=count, python=sys.executable))
    supervisord = subprocess.Popen([*RUN, "supervisor.supervisord", "-c", "conf"], stdout=subprocess.DEVNULL)
    for _ in range(300):
        first = []
        connect(first)
        if first == ["served"]:
            break
        time.sleep(0.1)
    time.sleep(1)
    seen = answers_while(*commands)
    said = ", then ".join(" ".join(command) for command in commands)
    print(f"numprocs={count}, {said}: {dict(sorted(seen.items()))}")
    same &= (seen["reset"] > 5) == (len(commands) == 1) and (len(commands) == 1 or set(seen) == {"served"})
    if len(commands) == 1:
        ctl("stop", "web:*")
        stopped = []
        connect(stopped)
        print(f"numprocs={count}, stopped: {stopped[0]}")
        same &= stopped == ["refused"]
    supervisord.terminate()
    supervisord.wait(60)
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
