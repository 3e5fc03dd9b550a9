#!/usr/bin/env bash
# What the subscribers of Litestar's channels receive after Redis was down for twelve seconds, as for a reboot of its host,
# with each of the two backends for Redis.
#
# Guess: redis-py connects again, so that they receive what is published after that; at worst `publish` raises meanwhile.
# Seen with Litestar 2.25.0, redis-py 8.1.0 and Redis 7.0.15: nothing, for ever, and neither do new subscribers, although
# Redis is back and no connection of a client was closed. The plugin has a task that reads and one that publishes. Both
# end with the first error that outlasts redis-py's own retries, which take five seconds at most. Their errors are not
# logged, and `publish` does not raise, since it only fills a queue that nothing empties any more. Only a restart of the
# application helps. With a client that retries for longer, as `Redis(retry=Retry(ConstantBackoff(1), 600))`, they
# receive what is published after the outage.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/litestar-channels-after-an-outage-of-redis.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install litestar==2.25.0 redis==8.1.0
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.py <<'PYTHON'
import asyncio, os, pathlib, socket, subprocess, sys, time
from importlib.metadata import version

from litestar.channels import ChannelsPlugin
from litestar.channels.backends.redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

LIBRARIES = ":".join({str(file.parent) for file in pathlib.Path("unpacked").absolute().rglob("*.so*")})


def started(port):
    environment = {**os.environ, "LD_LIBRARY_PATH": LIBRARIES}
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(["unpacked/usr/bin/redis-server", *words], stdout=subprocess.DEVNULL, env=environment)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.1)


def stopped(server):
    server.terminate()
    server.wait(60)


async def seen(backend, retry):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = started(port)
    try:
        plugin = ChannelsPlugin(backend=backend(redis=Redis(port=port, **retry)), channels=["channel"])
        await plugin.__aenter__()
        received, received_by_another = [], []

        async def read(into):
            async for event in (await plugin.subscribe("channel")).iter_events():
                into.append(event.decode())

        tasks = [asyncio.create_task(read(received))]
        await asyncio.sleep(1)
        plugin.publish("before", "channel")
        await asyncio.sleep(2)
        stopped(server)
        await asyncio.sleep(1)
        plugin.publish("during", "channel")
        await asyncio.sleep(11)
        server = started(port)
        await asyncio.sleep(5)
        tasks.append(asyncio.create_task(read(received_by_another)))
        await asyncio.sleep(1)
        plugin.publish("after", "channel")
        await asyncio.sleep(2)
        assert not any(task.done() for task in tasks)
        return received, received_by_another
    finally:
        stopped(server)


def stream(redis):
    return RedisChannelsStreamBackend(redis=redis, history=10)


async def main():
    cases = [
        (name, retries, backend, retry)
        for name, backend in (("pub/sub", RedisChannelsPubSubBackend), ("stream", stream))
        for retries, retry in (("default", {}), ("600", {"retry": Retry(ConstantBackoff(1), 600)}))
    ]
    same = True
    found = await asyncio.gather(*(seen(backend, retry) for _, _, backend, retry in cases))
    for (name, retries, _, _), (received, by_another) in zip(cases, found):
        print(f"{name:7} {retries:7} retries: received {received}, by a later subscriber {by_another}", flush=True)
        lasting = [text for text in received if text != "during"]  # that one depends on who connects first
        same &= (lasting, by_another) == ((["before"], []) if retries == "default" else (["before", "after"], ["after"]))
    return same


print(f"litestar {version('litestar')}, redis-py {version('redis')}", flush=True)
same = asyncio.new_event_loop().run_until_complete(main())
print("" if same else "This has changed.", end="", flush=True, file=sys.stderr)
os._exit(not same)  # the plugin would wait for what is in its queue
PYTHON
venv/bin/python drive.py 2>log || { cat log; exit 1; }
[ ! -s log ] || { cat log; echo "This has changed: something is logged."; exit 1; }
