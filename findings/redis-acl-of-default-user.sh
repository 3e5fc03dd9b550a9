#!/usr/bin/env bash
# What a Redis that was restarted still has of a transaction in its append-only file, where the user `default` may do
# nothing, as it is often told to once all clients have users of their own.
#
# Guess: all of it. The file was written by the server itself; users are for those who connect.
# Seen with redis 7.0.15 of Debian 12, and so by hand with Valkey 8.1.1: the file is read with the rights of `default`. What
# was written by a command alone is there again. What stands between MULTI and EXEC in it, as do all writes of a script
# that makes more than one, is left out, and the server starts and serves as if nothing were missing; only its log says
# so. The next rewrite of the file makes the loss final. With `user default off resetpass ~* +@all` nobody can sign in as
# it either, and all is there.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/redis-acl-of-default-user.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.py <<'PYTHON'
import socket, subprocess, time
from pathlib import Path

FOLDER = Path.cwd()
ENVIRONMENT = {"LD_LIBRARY_PATH": str(FOLDER / "unpacked/usr/lib/x86_64-linux-gnu")}
SIGN_IN = ("AUTH", "me", "secret")
WRITES = {
    "a command": [("SET", "a", "1")],
    "a script with one write": [("EVAL", "redis.call('SET', 'a', 1)", "0")],
    "a script with two writes": [("EVAL", "redis.call('SET', 'a', 1) redis.call('SET', 'b', 2)", "0")],
    "MULTI, SET, SET, EXEC": [("MULTI",), ("SET", "a", "1"), ("SET", "b", "2"), ("EXEC",)],
}
DEFAULTS = ("user default off resetpass -@all", "user default off resetpass ~* +@all")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def started(directory):
    port = free_port()
    words = ["--port", str(port), "--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    words += ["--aclfile", str(directory / "users"), "--logfile", str(directory / "log")]
    server = subprocess.Popen([FOLDER / "unpacked/usr/bin/redis-server", *words], env=ENVIRONMENT)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, port
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def ask(port, *commands):
    """The last reply."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for words in (SIGN_IN, *commands):
            text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            connection.sendall(text.encode())
            reply = connection.recv(65536).decode().strip()
            assert not reply.startswith("-"), reply
    return reply


seen = {}
for number, (default, (what, commands)) in enumerate((d, w) for d in DEFAULTS for w in WRITES.items()):
    directory = FOLDER / str(number)
    directory.mkdir()
    (directory / "users").write_text(f"{default}\nuser me on >secret ~* +@all\n")
    server, port = started(directory)
    ask(port, *commands)
    before = ask(port, ("DBSIZE",))
    server.kill()
    server.wait()
    server, port = started(directory)
    after = ask(port, ("DBSIZE",))
    server.kill()
    server.wait()
    says = "NOPERM" in (directory / "log").read_text()
    seen[default, what] = (before, after, says)
    print(f"{default}; {what}: {before} keys, after the restart {after}, the log {'says' if says else 'does not say'} so")

closed, opened = DEFAULTS
assert [seen[closed, what] for what in WRITES] == [
    (":1", ":1", False), (":1", ":1", False), (":2", ":0", True), (":2", ":0", True)
]
assert [seen[opened, what] for what in WRITES] == [
    (":1", ":1", False), (":1", ":1", False), (":2", ":2", False), (":2", ":2", False)
]
PYTHON
python3 drive.py
echo "as seen: what stands in a transaction of the file is lost where the user default may do nothing"
