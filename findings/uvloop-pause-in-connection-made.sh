#!/usr/bin/env bash
# Whether a protocol that pauses reading in `connection_made` is spared what the client has sent already.
#
# Documentation of asyncio: after `pause_reading()`, `data_received` is not called until `resume_reading()`. Guess: that
# holds from the first call that a protocol gets.
# Seen with the version below: it does under asyncio; uvloop begins to read when `connection_made` has returned, paused
# or not, so that the data comes all the same.
# Run by hand: bash findings/uvloop-pause-in-connection-made.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, socket, sys

import uvloop

EXPECTED = {"asyncio": b"", "uvloop": b"sent before"}


class Protocol(asyncio.Protocol):
    received = b""

    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()

    def data_received(self, data):
        self.received += data


async def seen():
    ours, theirs = socket.socketpair()
    theirs.sendall(b"sent before")
    ours.setblocking(False)
    protocol = Protocol()
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
    await asyncio.sleep(0.2)
    protocol.transport.abort()
    theirs.close()
    return protocol.received


same = True
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    loop = new_loop()
    what = loop.run_until_complete(seen())
    loop.close()
    same &= what == EXPECTED[name]
    print(f"{name:8} {what!r}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
