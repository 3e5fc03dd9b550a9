#!/usr/bin/env bash
# What a BLPOP of valkey-glide leaves behind when its caller has given up waiting, and what happens meanwhile to other
# commands of the same client.
#
# Guess: as with redis-py. `asyncio.wait_for` cancels the command, so that the next element stays in the list for the next
# reader, and other commands use another connection.
# Seen with valkey-glide 2.6.0: the client has one connection, and a command that was cancelled goes on waiting at the
# server. Until its own timeout is over it takes the next element from the list, and nobody receives it. While a BLPOP
# waits, another command of the client raises a TimeoutError after 250 ms, and a SET is carried out later all the same.
# redis-py 8.1.0 does neither. Use a client of its own for each task that waits, and the timeout of the command instead of
# `wait_for`.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/valkey-glide-blocking-command.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install valkey-glide==2.6.0 redis==8.1.0

cat >drive.py <<'PYTHON'
import asyncio, pathlib, socket, subprocess, sys, time
from importlib.metadata import version

from glide import GlideClient, GlideClientConfiguration, NodeAddress
from redis.asyncio import Redis

ENVIRONMENT = {"LD_LIBRARY_PATH": str(pathlib.Path.cwd() / "unpacked/usr/lib/x86_64-linux-gnu")}
EXPECTED = {
    "redis-py": {"left of one element after a cancelled BLPOP": 1, "SET beside a BLPOP": "OK", "set in the end": "value"},
    "valkey-glide": {
        "left of one element after a cancelled BLPOP": 0,
        "SET beside a BLPOP": "TimeoutError",
        "set in the end": "value",
    },
}


async def seen(name, blpop, set_key, onlooker):
    """`onlooker` is a client of its own."""
    try:
        await asyncio.wait_for(blpop(f"{name} list", 30), 2)
    except asyncio.TimeoutError:
        pass
    await onlooker.rpush(f"{name} list", "element")
    await asyncio.sleep(2)
    left = await onlooker.llen(f"{name} list")
    waiting = asyncio.create_task(blpop(f"{name} other list", 3))
    await asyncio.sleep(1)
    try:
        outcome = "OK" if await set_key(f"{name} key", "value") else "nothing"
    except Exception as error:
        outcome = type(error).__name__
    await waiting
    await asyncio.sleep(1)
    in_the_end = await onlooker.get(f"{name} key")
    return {
        "left of one element after a cancelled BLPOP": left,
        "SET beside a BLPOP": outcome,
        "set in the end": in_the_end and in_the_end.decode(),
    }


async def main(port):
    async with Redis(port=port) as onlooker, Redis(port=port) as redis:
        glide = await GlideClient.create(GlideClientConfiguration([NodeAddress("127.0.0.1", port)]))
        found = {
            "redis-py": await seen("redis-py", lambda key, s: redis.blpop(key, timeout=s), redis.set, onlooker),
            "valkey-glide": await seen("glide", lambda key, s: glide.blpop([key], s), glide.set, onlooker),
        }
        await glide.close()
    return found


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
    found = asyncio.run(main(port))
finally:
    server.terminate()
    server.wait(60)
for name, seen in found.items():
    distribution = "redis" if name == "redis-py" else name
    print(f"{name} {version(distribution)}: {', '.join(f'{what}: {how}' for what, how in seen.items())}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
timeout 120 venv/bin/python drive.py 2>log || { cat log; exit 1; }
