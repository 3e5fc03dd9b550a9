#!/usr/bin/env bash
# What the first subscriber of `broadcaster` receives, with its backend for Redis.
#
# Documentation: `async with broadcast.subscribe(channel) as subscriber: async for event in subscriber`. Guess: what is
# published on that channel.
# Seen with broadcaster 0.3.1, which allows any redis-py: it is so with redis-py 7.1.0. With 8.1.0, and so by hand with
# 8.0.0, the subscriber receives nothing until there is a subscription to another channel of the same `Broadcast`, and
# then everything at once. Redis counts the subscription, and nothing is raised or logged. redis-py 8 lets other tasks run
# before `subscribe` has noted the channel, so that broadcaster's reader finds no subscription and goes back to sleep. A
# second subscriber of the same channel does not wake it. Keep redis-py below 8, or subscribe to a dummy channel after the
# first.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/broadcaster-first-subscriber.sh. Fails when that
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
from importlib.metadata import version

from broadcaster import Broadcast
from redis.asyncio import Redis

ENVIRONMENT = {"LD_LIBRARY_PATH": str(pathlib.Path.cwd() / "unpacked/usr/lib/x86_64-linux-gnu")}
EXPECTED = {"7.1.0": ([1, 2, 3], [1, 2, 3], [2, 3]), "8.1.0": ([], [1, 2, 3], [1, 2, 3])}


async def seen(port):
    received, received_by_another = [], []

    async def read(channel, into):
        async with broadcast.subscribe(channel) as subscriber:
            async for event in subscriber:
                into.append(int(event.message))

    async with Redis(port=port) as redis, Broadcast(f"redis://127.0.0.1:{port}") as broadcast:
        tasks = [asyncio.create_task(read("channel", received))]
        await asyncio.sleep(2)
        assert await redis.pubsub_numsub("channel") == [(b"channel", 1)]
        await broadcast.publish("channel", "1")
        await asyncio.sleep(2)
        tasks.append(asyncio.create_task(read("channel", received_by_another)))
        await asyncio.sleep(2)
        await broadcast.publish("channel", "2")
        await redis.publish("channel", "3")
        await asyncio.sleep(2)
        first = list(received)
        tasks.append(asyncio.create_task(read("of no interest", [])))
        await asyncio.sleep(2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return first, received, received_by_another


with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
words = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
server = subprocess.Popen(["unpacked/usr/bin/redis-server", *words], stdout=subprocess.DEVNULL, env=ENVIRONMENT)
try:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    found = asyncio.run(seen(port))
finally:
    server.terminate()
    server.wait(60)
first, later, another = found
print(f"redis-py {version('redis')}: received {first}; with a subscription to another channel {later}, a second subscriber {another}")
sys.exit(0 if found == EXPECTED[version("redis")] else "This has changed.")
PYTHON
python3 -m venv venv
for version in 7.1.0 8.1.0; do
    venv/bin/pip -qq --disable-pip-version-check install broadcaster==0.3.1 redis==$version
    timeout 60 venv/bin/python drive.py
done
