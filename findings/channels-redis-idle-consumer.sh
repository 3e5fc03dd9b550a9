#!/usr/bin/env bash
# How long a WebSocket of Django's Channels stays open with channels_redis, if nothing is sent to it.
#
# Guess: until the client or the application closes it.
# Seen with channels 4.3.2 and channels_redis 4.3.0, which allows any redis-py: it is so with redis-py 7.4.1. With 8.1.0
# the consumer raises a TimeoutError after five seconds without a message from the channel layer, and uvicorn drops the
# connection without a close frame. channels_redis waits for five seconds at a time, and since 8.0 redis-py waits for an
# answer for just as long by default. `RedisPubSubChannelLayer` is not affected. Keep redis-py below 8, or give each host a
# `socket_timeout`: `"hosts": [{"address": "redis://...", "socket_timeout": 30}]`.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/channels-redis-idle-consumer.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >app.py <<'PYTHON'
import os

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

host = {"address": f"redis://127.0.0.1:{os.environ['REDIS_PORT']}"}
if os.environ["SOCKET_TIMEOUT"]:
    host["socket_timeout"] = int(os.environ["SOCKET_TIMEOUT"])
backend = f"channels_redis.{os.environ['LAYER']}"
settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": {"hosts": [host]}}})
app = AsyncWebsocketConsumer.as_asgi()
PYTHON
cat >drive.py <<'PYTHON'
import asyncio, os, pathlib, socket, subprocess, sys, time
from importlib.metadata import version

from websockets.asyncio.client import connect

ENVIRONMENT = {"LD_LIBRARY_PATH": str(pathlib.Path.cwd() / "unpacked/usr/lib/x86_64-linux-gnu")}
CORE, PUBSUB = "core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"
CASES = [(CORE, ""), (CORE, "30"), (PUBSUB, "")]
IDLE_S = 30


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until_open(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)


async def idle(port):
    """How the connection has ended within that time."""
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as connection:
        try:
            await asyncio.wait_for(connection.wait_closed(), IDLE_S)
        except asyncio.TimeoutError:
            return "open"
        return f"closed, {connection.close_code}"


async def seen(port):
    servers, ports = [], [free_port() for _ in CASES]
    try:
        for at, (layer, timeout) in zip(ports, CASES):
            environment = {**os.environ, "REDIS_PORT": str(port), "LAYER": layer, "SOCKET_TIMEOUT": timeout}
            words = ["venv/bin/uvicorn", "--lifespan", "off", "--port", str(at), "app:app"]
            servers.append(subprocess.Popen(words, env=environment, stderr=open(f"log{at}", "w"), stdout=subprocess.DEVNULL))
        for at in ports:
            until_open(at)
        return await asyncio.gather(*(idle(at) for at in ports))
    finally:
        for uvicorn in servers:
            uvicorn.kill()
            uvicorn.wait(60)


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
    server.kill()
    server.wait(60)
print(f"redis-py {version('redis')}, after {IDLE_S} s without a message")
for (layer, timeout), how in zip(CASES, found):
    print(f"  {layer}{', socket_timeout ' + timeout if timeout else ''}: {how}")
expected = ["closed, 1006" if version("redis") == "8.1.0" else "open", "open", "open"]
sys.exit(0 if found == expected else "This has changed.")
PYTHON
python3 -m venv venv
for version in 7.4.1 8.1.0; do
    venv/bin/pip -qq --disable-pip-version-check install channels==4.3.2 channels_redis==4.3.0 uvicorn==0.54.0 \
        websockets==17.4 redis==$version
    PYTHONPATH=. timeout 200 venv/bin/python drive.py
done
