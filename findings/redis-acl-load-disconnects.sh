#!/usr/bin/env bash
# Which clients `ACL LOAD` disconnects, after one user was added to the file of an engine that serves others, who subscribe.
#
# Guess: none, or those whose own rights have become less, as ACL SETUSER does.
# Seen with Redis 7.0.15 of Debian 12: all clients of all users but `default`, each time, even if the file is as it was.
# What is published until they are back is lost to them, and all come back at once. ACL SETUSER, with the same line and
# ACL SAVE behind it, disconnects nobody. By hand with Valkey 8.1.1 of Debian 13 and 9.1.2: ACL LOAD disconnects nobody
# there, not even a user whose password is another one now.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/redis-acl-load-disconnects.sh. Fails when that
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
import os, pathlib, socket, subprocess, sys, time

FOLDER = pathlib.Path.cwd()
LIBRARY = str(next(FOLDER.glob("unpacked/usr/lib/*-linux-gnu")))
ACL = FOLDER / "users.acl"
ACL.write_text("user default on nopass ~* &* +@all\nuser shop on >secret ~* &* +@all\nuser chat on >secret ~* &* +@all\n")


def connected(*lines):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect("socket")
    for line in lines:
        client.sendall(line.encode() + b"\r\n")
        client.recv(4096)
    return client


def is_open(client):
    client.settimeout(0.5)
    try:
        return client.recv(4096) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def disconnected(*lines):
    clients = {
        "shop": connected("AUTH shop secret", "SUBSCRIBE orders"),
        "chat": connected("AUTH chat secret", "SUBSCRIBE rooms"),
        "default": connected("SUBSCRIBE news"),
    }
    with connected() as admin:
        for line in lines:
            admin.sendall(line.encode() + b"\r\n")
            answer = admin.recv(4096)
            assert answer == b"+OK\r\n", answer
    gone = [name for name, client in clients.items() if not is_open(client)]
    for client in clients.values():
        client.close()
    return gone


server = subprocess.Popen(
    [FOLDER / "unpacked/usr/bin/redis-server", "--port", "0", "--unixsocket", "socket", "--save", "", "--aclfile", ACL],
    stdout=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": LIBRARY},
)
try:
    for _ in range(300):
        if os.path.exists("socket"):
            break
        time.sleep(0.1)
    unchanged = disconnected("ACL LOAD")
    with ACL.open("a") as file:
        file.write("user mail on >secret ~* &* +@all\n")
    one_more = disconnected("ACL LOAD")
    set_user = disconnected("ACL SETUSER more on >secret ~* &* +@all", "ACL SAVE")
finally:
    server.terminate()
    server.wait(60)
print(f"disconnected by ACL LOAD of a file as it was: {unchanged}; with one user more: {one_more}; "
      f"by ACL SETUSER and ACL SAVE: {set_user}")
sys.exit(0 if (unchanged, one_more, set_user) == (["shop", "chat"], ["shop", "chat"], []) else "This has changed.")
PYTHON
python3 drive.py
