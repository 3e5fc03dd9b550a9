#!/usr/bin/env bash
# How a WebSocket of niquests closes, and what it tells of how the server closed.
#
# Guess: `close()` sends 1000 and waits for the answer, and the code with which a server closed can be read.
# Seen with the versions below: it sends 0, which is no close code (RFC 6455, section 7.4.1), and resets the
# connection at once: servers take the client for one that breaks the protocol or was lost, and log it so. When the
# server closes, `next_payload()` returns None, whether with 1000 or 1012, and nothing tells which.
# Run by hand: bash findings/niquests-close-code.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install niquests==3.21.2 urllib3-future==2.25.904 wsproto==1.3.2 \
    websockets==17.4
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

import niquests
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import connect


class Listening(ServerConnection):
    def data_received(self, data):
        arrived.append(data)
        super().data_received(data)


async def handle(connection):
    if (code := int(connection.request.path[1:])):
        await connection.close(code)
    await connection.wait_closed()
    ended.put_nowait(connection.close_code)


def code_of(frame):
    """The code in a close frame of a client, which is masked (RFC 6455, section 5.3)."""
    assert frame[0] == 0x88, frame
    return int.from_bytes((frame[6] ^ frame[2], frame[7] ^ frame[3]), "big")


def of_niquests(address):
    with niquests.Session() as http:
        http.get(f"{address}/0").extension.close()


def told_by_niquests(address):
    with niquests.Session() as http:
        return [http.get(f"{address}/{code}").extension.next_payload() for code in (1000, 1012)]


def of_websockets(address):
    with connect(f"{address}/0"):
        pass


async def main():
    global ended
    ended = asyncio.Queue()
    async with serve(handle, "127.0.0.1", 0, create_connection=Listening) as server:
        address = "ws://127.0.0.1:{}".format(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(of_websockets, address)
        other = code_of(arrived[1]), await ended.get()
        arrived.clear()
        await asyncio.to_thread(of_niquests, address)
        of_client = code_of(arrived[1]), await ended.get()
        told = await asyncio.to_thread(told_by_niquests, address)
    print(f"close() of websockets sends {other[0]}, and the server sees {other[1]}")
    print(f"close() of niquests sends {of_client[0]}, and the server sees {of_client[1]}")
    print(f"next_payload() of niquests after a close with 1000, with 1012: {told}")
    return other == (1000, 1000) and of_client == (0, 1006) and told == [None, None]


arrived = []
if not asyncio.run(main()):
    sys.exit("This has changed.")
PYTHON
venv/bin/python drive.py
