#!/usr/bin/env bash
# What a server knows of a TCP client that has reset its connection before it was accepted, as HAProxy's and other
# balancers' checks do each few seconds: they connect, and reset at once.
#
# Guess: `get_extra_info("peername")` is the client's address in `connection_made` of every TCP connection. accept(2)
# gives it together with the connection, and so it is under asyncio.
# Seen with uvloop 0.23.0: it is None, for uvloop asks the socket later, and a reset one no longer knows. A protocol that
# says `host, port = transport.get_extra_info("peername")[:2]` raises in `connection_made`, now and then and only on a
# busy server; and one that takes a connection without an address for one of a Unix socket is mistaken.
# Run by hand: bash findings/uvloop-peername-of-a-reset-client.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install uvloop==0.23.0
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, socket, struct, sys

import uvloop


async def known():
    """The address of the client, and what the server is told of it."""
    told = asyncio.get_running_loop().create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            told.set_result(transport.get_extra_info("peername"))

    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    address = client.getsockname()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
    client.close()
    server = await asyncio.get_running_loop().create_server(Server, sock=listener)
    peername = await asyncio.wait_for(told, 20)
    server.close()
    return address, peername


under_asyncio, under_uvloop = asyncio.run(known()), uvloop.run(known())
for name, (address, peername) in (("asyncio", under_asyncio), ("uvloop", under_uvloop)):
    print(f"{name:8} {'its address' if peername == address else peername}")
same = under_asyncio[0] == under_asyncio[1] and under_uvloop[1] is None
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
