#!/usr/bin/env bash
# Whether a consumer that has joined a group gets what is sent to the group next, in the two layers of channels_redis,
# where one of their connections to the engine is slower than the other.
#
# Guess: yes in both, as `await group_add(...)` returns when the consumer is a member.
# Seen with channels_redis 4.3.0, redis-py 8.1.0 and redis-server 7.0.15: RedisChannelLayer delivers each of 10.
# RedisPubSubChannelLayer none: there `group_add` returns when SUBSCRIBE is written, not when the engine has answered, and
# `group_send` publishes on another connection, of which nobody says that it is served later. A busy machine is enough for
# that: without a delay, 13 of 1,800 were lost on two CPUs that had 16 other things to do.
# Run by hand, with redis-server installed: bash findings/channels-redis-joined-too-early.sh. Fails when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install channels==4.3.2 channels_redis==4.3.0 redis==8.1.0
cd "$folder"

redis-server --port 0 --unixsocket "$folder/engine" --save "" >/dev/null &
server=$!

cat >drive.py <<'PYTHON'
import asyncio, contextlib, os, sys

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

TRIES, DELAY, PATIENCE = 10, 0.05, 0.5
EXPECTED = {RedisChannelLayer: TRIES, RedisPubSubChannelLayer: 0}


async def pump(reader, writer):
    """Pass everything on, in order; a connection that subscribes is a little slower than others."""
    while data := await reader.read(65536):
        if b"SUBSCRIBE" in data:
            await asyncio.sleep(DELAY)
        writer.write(data)
    writer.close()


async def relay(reader, writer):
    engine_reader, engine_writer = await asyncio.open_unix_connection("engine")
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await asyncio.gather(pump(reader, engine_writer), pump(engine_reader, writer))


async def arrived(kind):
    async with await asyncio.start_unix_server(relay, "relay"):
        layer, count = kind(hosts=[f"unix://{os.getcwd()}/relay"]), 0
        for number in range(TRIES):
            channel = await layer.new_channel()
            await layer.group_add(f"group{number}", channel)
            await layer.group_send(f"group{number}", {"type": "hello"})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(layer.receive(channel), PATIENCE)
                count += 1
        await layer.flush()
    os.unlink("relay")
    return count


async def main():
    while not os.path.exists("engine"):
        await asyncio.sleep(0.01)
    same = True
    for kind, expected in EXPECTED.items():
        count = await arrived(kind)
        same &= count == expected
        print(f"{kind.__name__:24} {count:2} of {TRIES} arrived")
    return same


sys.exit(0 if asyncio.run(main()) else "This has changed.")
PYTHON
venv/bin/python drive.py
