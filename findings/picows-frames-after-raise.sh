#!/usr/bin/env bash
# Whether a picows listener whose `on_ws_frame` has raised is called again for the same connection.
#
# Guess: no. picows says "Initiate disconnect because of exception from WSListener.on_ws_frame" and closes with 1011, so
# the frame that raised was the last one; a listener that is half-way through a change of its state is left in peace.
# Seen with picows 2.3.1: it is called with all frames that came in the same packet, and only then closes. A listener
# that must stop at the first fault has to remember it. After `transport.disconnect()` it is the same, and what the listener
# still sends then reaches the client.
# Run by hand: bash findings/picows-frames-after-raise.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install picows==2.3.1
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, logging, sys

import picows

logging.disable()
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EXPECTED = {
    "raises": ([b"raises", b"second", b"third"], b"\x88\x02\x03\xf3"),
    "disconnects": ([b"disconnects", b"second", b"third"], b"\x81\x06second\x81\x05third"),
}


class Listener(picows.WSListener):
    def __init__(self):
        self.called_with = []

    def on_ws_frame(self, transport, frame):
        payload = frame.get_payload_as_bytes()
        self.called_with.append(payload)
        if payload == b"raises":
            raise ValueError("a fault of the listener")
        if payload == b"disconnects":
            transport.disconnect()
        elif self.called_with[0] == b"disconnects":
            transport.send(picows.WSMsgType.TEXT, payload)


async def seen(first):
    """The frames for which the listener was called, and what the client received."""
    listener = Listener()
    server = await picows.ws_create_server(lambda request: listener, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    texts = [first, b"second", b"third"]
    writer.write(b"".join(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text for text in texts))
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    server.close()
    return listener.called_with, received


found = {first: asyncio.run(seen(first.encode())) for first in EXPECTED}
for first, (called_with, received) in found.items():
    print(f"the first frame {first}: the listener is called with {called_with}, the client receives {received}")
sys.exit(0 if found == EXPECTED else "This has changed.")
PYTHON
venv/bin/python drive.py
