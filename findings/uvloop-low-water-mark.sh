#!/usr/bin/env bash
# How empty the buffer of a transport must be before the protocol may write again.
#
# Documentation of asyncio: the low-water mark is a quarter of the high one, which is 64 KiB; so it is under asyncio.
# Guess: under uvloop as well, which has the same high one.
# Seen with the version below: under uvloop it is 16 bytes, not 16 KiB, so that a sender that waits for `drain()` goes
# on only when all of its buffer is gone. With `set_write_buffer_limits(high=65536)` it is 16 KiB.
# Run by hand: bash findings/uvloop-low-water-mark.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, socket, sys

import uvloop

EXPECTED = {"asyncio": [(16384, 65536), (16384, 65536)], "uvloop": [(16, 65536), (16384, 65536)]}


async def limits():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    of_itself = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(high=65536)
    asked_for = transport.get_write_buffer_limits()
    transport.abort()
    theirs.close()
    return [of_itself, asked_for]


found = {}
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    loop = new_loop()
    found[name] = loop.run_until_complete(limits())
    loop.close()
    print(f"{name:8} low and high: {found[name][0]} of itself, {found[name][1]} with high=65536")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
