#!/usr/bin/env bash
# How much HAProxy sends to a server whose agent (`agent-check`) asks for half as much as usual, `50%`, or for a little less,
# `99%`, with two servers and a configuration that says nothing of weights.
#
# Documentation: a percentage of the weight that is configured. Guess: a third and two thirds of the requests with `50%`,
# nearly half of them with `99%`.
# Seen with HAProxy 2.6.12 of Debian 12, and so by hand with 3.0.11 of Debian 13 and 3.2.26: nothing at all, for either. The
# weight is 1 unless configured, and 99 % of it is rounded down to 0, which takes the server out; `show stat` and the log say
# UP all the same, and a fleet in which every agent says 99% answers 503. So also with `set weight servers/b 99%`. With
# `weight 100` on the servers it is as guessed.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/haproxy-agent-percentage.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'haproxy=2.6.12*' liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.py <<'PYTHON'
import http.server, os, pathlib, socket, subprocess, sys, threading, time, urllib.error, urllib.request

FOLDER = pathlib.Path.cwd()
CONF = """
global
    stats socket {folder}/socket
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend site
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance roundrobin
    server a 127.0.0.1:{a} check {weight} {agent_of_a}
    server b 127.0.0.1:{b} check {weight} {agent}
"""
AGENT = "agent-check agent-addr 127.0.0.1 agent-port {} agent-inter 200ms"
# What is configured, whether a has the agent too, and how many of 40 requests go to b if the agent says so; None: 503.
EXPECTED = (
    ("no weight", False, {"100%": 20, "50%": 0, "99%": 0}),
    ("no weight", True, {"100%": 20, "99%": None}),
    ("weight 100", False, {"100%": 20, "50%": 13, "99%": 20}),
    ("weight 100", True, {"100%": 20, "99%": 20}),
)
says = "100%"


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.server.server_port).encode())

    def log_message(self, *_):
        pass


def server():
    started = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=started.serve_forever, daemon=True).start()
    return started.server_port


def agent(listener):
    while True:
        with listener.accept()[0] as connection:
            connection.sendall(f"{says}\n".encode())


def status():
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(FOLDER / "socket"))
        control.sendall(b"show stat\n")
        text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
    return next(line.split(",")[17] for line in text.splitlines() if line.startswith("servers,b,"))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def to_b():
    """How many of 40 requests."""
    try:
        return [int(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()) for _ in range(40)].count(b)
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return None


same = True
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=agent, args=(listener,), daemon=True).start()
a, b, port = server(), server(), free_port()
library = next(FOLDER.glob("unpacked/usr/lib/*-linux-gnu"))
of_agent = AGENT.format(listener.getsockname()[1])
for weight, both, expected in EXPECTED:
    (FOLDER / "configuration").write_text(CONF.format(
        folder=FOLDER, port=port, a=a, b=b, weight="" if weight == "no weight" else weight, agent=of_agent,
        agent_of_a=of_agent if both else ""))
    says = "100%"
    haproxy = subprocess.Popen([FOLDER / "unpacked/usr/sbin/haproxy", "-db", "-f", FOLDER / "configuration"],
                               env={**os.environ, "LD_LIBRARY_PATH": str(library)}, stderr=subprocess.DEVNULL)
    try:
        for says, number in expected.items():
            time.sleep(3)
            got, state = to_b(), status()
            same &= state == "UP" and (got == number or bool(number) and got is not None and abs(got - number) <= 2)
            print(f"{weight:10} {'both agents say' if both else 'its agent says'} {says}: "
                  f"{'503' if got is None else f'{got} of 40 requests'}, and the server is {state}")
    finally:
        haproxy.terminate()
        haproxy.wait(30)
sys.exit(0 if same else "This has changed.")
PYTHON
python3 drive.py
