#!/usr/bin/env bash
# The exception of redis-py's asyncio connection for a wrong password, over TCP and over a Unix socket.
#
# Guess: AuthenticationError for both, as the server says the same to both.
# Seen with redis-py 8.1.0 and redis-server 7.0.15: AuthenticationError over TCP, a plain ConnectionError over a Unix
# socket, with the same text. Whoever tells a wrong password from a server that is away by the class tries for ever.
# Run by hand, with redis-server installed: bash findings/redis-py-password-over-unix-socket.sh. Fails when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install redis==8.1.0
cd "$folder"

port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >redis.conf <<CONF
port $port
bind 127.0.0.1
unixsocket $folder/socket
save ""
user chat on >secret +@all
CONF
redis-server redis.conf >/dev/null &
server=$!

cat >drive.py <<'PYTHON'
import asyncio, sys, time
from redis.asyncio import Connection, UnixDomainSocketConnection
from redis.exceptions import RedisError

WAYS = {
    "TCP": (Connection, {"port": int(sys.argv[1])}, "AuthenticationError"),
    "Unix socket": (UnixDomainSocketConnection, {"path": sys.argv[2]}, "ConnectionError"),
}


async def seen(kind, where):
    connection = kind(username="chat", password="wrong", protocol=3, **where)
    try:
        await connection.connect()
    except RedisError as error:
        return type(error).__name__, str(error)
    finally:
        await connection.disconnect()


time.sleep(1)
same = True
for way, (kind, where, expected) in WAYS.items():
    name, text = asyncio.run(seen(kind, where))
    same &= name == expected and "invalid username-password pair" in text
    print(f"{way:11} {name}: {text}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py "$port" "$folder/socket"
