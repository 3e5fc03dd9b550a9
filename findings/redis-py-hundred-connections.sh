#!/usr/bin/env bash
# What redis-py does when a hundred subscribers have a `pubsub()` each, as an application that makes one for each
# WebSocket.
#
# Guess: `Redis()` without `max_connections` has no limit of its own; the limit is `maxclients` of the server, 10,000.
# Seen with the versions below: that was so with redis-py 7. With redis-py 8 the default is 100, in the asyncio client
# and in the other one. The 101st subscriber gets `MaxConnectionsError`, and so does every other command of that client,
# since the subscribers leave it no connection; nothing waits for one that is returned. It is a `ConnectionError`, so
# that a program takes it for an outage of the server. Say `max_connections`, or share one `pubsub()` among the
# WebSockets of a process.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/redis-py-hundred-connections.sh. Fails when that
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
import asyncio, pathlib, socket, subprocess, sys, time

import redis
import redis.asyncio

ENVIRONMENT = {"LD_LIBRARY_PATH": str(pathlib.Path.cwd() / "unpacked/usr/lib/x86_64-linux-gnu")}
REFUSED = 100, "MaxConnectionsError", "MaxConnectionsError"
EXPECTED = {"7.4.1": (120, None, None), "8.1.0": REFUSED}


async def of_asyncio():
    """How many of 120 subscribers there are, what the next one gets, and what a command gets then."""
    client, subscribers, refused, command = redis.asyncio.Redis(port=port), [], None, None
    try:
        for _ in range(120):
            subscribers.append(client.pubsub())
            await subscribers[-1].subscribe("channel")
    except redis.ConnectionError as error:
        refused = type(error).__name__
    try:
        await client.get("key")
    except redis.ConnectionError as error:
        command = type(error).__name__
    for subscriber in subscribers:
        await subscriber.aclose()
    await client.aclose()
    return len(subscribers) - bool(refused), refused, command


def of_threads():
    client, subscribers, refused, command = redis.Redis(port=port), [], None, None
    try:
        for _ in range(120):
            subscribers.append(client.pubsub())
            subscribers[-1].subscribe("channel")
    except redis.ConnectionError as error:
        refused = type(error).__name__
    try:
        client.get("key")
    except redis.ConnectionError as error:
        command = type(error).__name__
    for subscriber in subscribers:
        subscriber.close()
    client.close()
    return len(subscribers) - bool(refused), refused, command


with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
server = subprocess.Popen(["unpacked/usr/bin/redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                          stdout=subprocess.DEVNULL, env=ENVIRONMENT)
try:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    seen = {"asyncio": asyncio.run(of_asyncio()), "threads": of_threads()}
finally:
    server.kill()
    server.wait(60)
for name, (subscribers, refused, command) in seen.items():
    print(f"redis-py {redis.__version__}, {name}: {subscribers} subscribers of 120; the next one gets {refused}, "
          f"GET then {command}")
sys.exit(0 if set(seen.values()) == {EXPECTED[redis.__version__]} else "This has changed.")
PYTHON
for version in 7.4.1 8.1.0; do
    python3 -m venv --clear venv
    venv/bin/pip -qq --disable-pip-version-check install "redis==$version"
    venv/bin/python drive.py
done
