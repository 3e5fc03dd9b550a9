#!/usr/bin/env bash
# Whether a timer of the event loop may fire before its time.
#
# Guess: never, as with asyncio, where a callback of `call_at(when)` always finds `loop.time() >= when`, and a `sleep()`
# takes at least as long as it says.
# Seen with the version below: uvloop rounds to whole milliseconds. A callback comes up to half a millisecond early, so
# that one which looks whether it is due, and waits for the rest if not, is called over and over; and `sleep(0.0004)`
# does not sleep at all: what is limited by it to 2,500 a second is not limited.
# Run by hand: bash findings/uvloop-timer-too-early.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys, time

import uvloop

TIMES = 50


async def too_early():
    loop, callbacks, sleeps = asyncio.get_running_loop(), 0, 0
    for _ in range(TIMES):
        called = loop.create_future()
        when = int(loop.time() * 1000) / 1000 + 0.0124
        loop.call_at(when, lambda: called.set_result(loop.time()))
        callbacks += await called < when
        began = time.monotonic()
        await asyncio.sleep(0.0004)
        sleeps += time.monotonic() - began < 0.0004
    return callbacks, sleeps


found = {}
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    loop = new_loop()
    found[name] = callbacks, sleeps = loop.run_until_complete(too_early())
    loop.close()
    print(f"{name:8} of {TIMES}: {callbacks} callbacks came early, {sleeps} sleeps were too short")
same = found["asyncio"] == (0, 0) and all(number > TIMES // 10 for number in found["uvloop"])
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
