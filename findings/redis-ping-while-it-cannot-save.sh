#!/usr/bin/env bash
# What PING answers on a Redis that could not write its last snapshot, and so refuses writes
# (`stop-writes-on-bgsave-error`, on by default), and what that means for redis-py with `health_check_interval`.
#
# Guess: PONG. Reads and PUBLISH go on, and PING writes nothing; so a client that only reads notices nothing.
# Seen with redis 7.0.15 of Debian 12 and redis-py 8.1.0, and by hand with Redis 8.0.6, Valkey 8.1.1 and 9.1.2: PING is
# refused with MISCONF, while GET and PUBLISH are answered. redis-py sends PING as its health check, when it connects and
# then once in each interval, and raises what it is answered: with `health_check_interval` a read or a PUBLISH fails that
# the server would have answered, the first on each connection and one in each interval after that.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/redis-ping-while-it-cannot-save.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install redis==8.1.0

cat >drive.py <<'PYTHON'
import pathlib, subprocess, sys, time

import redis

FOLDER = pathlib.Path.cwd()
ENVIRONMENT = {"LD_LIBRARY_PATH": str(FOLDER / "unpacked/usr/lib/x86_64-linux-gnu")}
ASKED = {
    "PING": lambda client: client.ping(),
    "GET": lambda client: client.get("key"),
    "PUBLISH": lambda client: client.publish("channel", "text"),
}
EXPECTED = {
    0: {"PING": ["refused", "refused"], "GET": ["answered", "answered"], "PUBLISH": ["answered", "answered"]},
    2: {"PING": ["refused", "refused"], "GET": ["refused", "refused"], "PUBLISH": ["refused", "refused"]},
}


def outcome(ask, client):
    try:
        ask(client)
        return "answered"
    except redis.ResponseError as error:
        assert "MISCONF" in str(error), error
        return "refused"


data = FOLDER / "data"
data.mkdir()
words = ["--port", "0", "--unixsocket", str(FOLDER / "socket"), "--dir", str(data), "--logfile", str(FOLDER / "log")]
server = subprocess.Popen([FOLDER / "unpacked/usr/bin/redis-server", *words, "--save", "1 1"], env=ENVIRONMENT)
try:
    while not (FOLDER / "socket").exists():
        time.sleep(0.1)
    writer = redis.Redis(unix_socket_path="socket")
    data.rmdir()  # as good as a full disk: no snapshot can be written
    writer.set("key", "value")
    for _ in range(300):
        if writer.info("persistence")["rdb_last_bgsave_status"] != "ok":
            break
        time.sleep(0.1)
    found = {}
    for interval in EXPECTED:
        found[interval] = {}
        for name, ask in ASKED.items():
            client = redis.Redis(unix_socket_path="socket", health_check_interval=interval)
            at_first = outcome(ask, client)
            time.sleep(2.5)
            found[interval][name] = [at_first, outcome(ask, client)]
            print(f"health_check_interval={interval}: {name:7} {at_first}; 2.5 s later {found[interval][name][1]}")
finally:
    server.kill()
    server.wait()
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
