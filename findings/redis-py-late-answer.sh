#!/usr/bin/env bash
# How often a command of redis-py is carried out if the server stands still for eight seconds, as with a stuck disk or a
# paused virtual machine.
#
# Guess: once. redis-py either waits, or raises a TimeoutError and leaves it to the application.
# Seen with redis-py 8.1.0 and Redis 7.0.15: twice, and nothing is raised, by the blocking client and by asyncio's. Since
# 8.0 it waits for an answer for five seconds by default, and then sends the command again over a new connection, up to
# ten times, whatever it is. The first one is still in the server's queue. So INCR adds two, RPUSH leaves two elements,
# and subscribers receive a message twice. With 7.4.1, which waits, each is carried out once. `retry=Retry(NoBackoff(), 0)`
# raises a TimeoutError instead, `socket_timeout=None` waits as before.
# Needs Debian 12, whose Redis it unpacks. Run by hand: bash findings/redis-py-late-answer.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'redis-server=5:7.0.15*' 'redis-tools=5:7.0.15*' libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 \
    lua-bitop lua-cjson 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.py <<'PYTHON'
import asyncio, pathlib, signal, socket, subprocess, sys, time
from importlib.metadata import version

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

ENVIRONMENT = {"LD_LIBRARY_PATH": str(pathlib.Path.cwd() / "unpacked/usr/lib/x86_64-linux-gnu")}
CHANGED = {"INCR of the blocking client": 2, "INCR": 2, "RPUSH": 2, "PUBLISH": 2}
ALWAYS = {"INCR without retries": 1, "INCR without a timeout": 1}
EXPECTED = {"7.4.1": {**dict.fromkeys(CHANGED, 1), **ALWAYS}, "8.1.0": {**CHANGED, **ALWAYS}}


async def seen(port):
    """How often each was carried out, and what was raised."""
    onlooker = Redis(port=port, socket_timeout=None)
    subscriber = onlooker.pubsub()
    await subscriber.subscribe("channel")
    blocking = redis.Redis(port=port)
    blocking.ping()
    plain = [Redis(port=port) for _ in range(3)]
    careful = Redis(port=port, retry=Retry(NoBackoff(), 0))
    patient = Redis(port=port, socket_timeout=None)
    for client in (*plain, careful, patient):
        await client.ping()

    server.send_signal(signal.SIGSTOP)
    commands = asyncio.gather(
        asyncio.to_thread(blocking.incr, "blocking"),
        plain[0].incr("plain"),
        plain[1].rpush("list", "element"),
        plain[2].publish("channel", "message"),
        careful.incr("careful"),
        patient.incr("patient"),
        return_exceptions=True,
    )
    await asyncio.sleep(8)
    server.send_signal(signal.SIGCONT)
    answers = await commands
    await asyncio.sleep(2)

    messages = 0
    for _ in range(10):
        message = await subscriber.get_message(timeout=0.2)
        messages += message is not None and message["type"] == "message"
    counts = {
        "INCR of the blocking client": int(await onlooker.get("blocking")),
        "INCR": int(await onlooker.get("plain")),
        "RPUSH": await onlooker.llen("list"),
        "PUBLISH": messages,
        "INCR without retries": int(await onlooker.get("careful")),
        "INCR without a timeout": int(await onlooker.get("patient")),
    }
    return counts, [type(answer).__name__ for answer in answers if isinstance(answer, Exception)]


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
counts, raised = found
print(f"redis-py {version('redis')}: carried out {counts}, raised {raised}")
late = ["TimeoutError"] if version("redis") == "8.1.0" else []  # of the one without retries
sys.exit(0 if counts == EXPECTED[version("redis")] and raised == late else "This has changed.")
PYTHON
python3 -m venv venv
for version in 7.4.1 8.1.0; do
    venv/bin/pip -qq --disable-pip-version-check install redis==$version
    timeout 120 venv/bin/python drive.py
done
