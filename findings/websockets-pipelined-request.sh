#!/usr/bin/env bash
# What the asyncio server of websockets makes of two plain HTTP requests that come in one packet, as a health check
# with pipelining sends them.
#
# Guess: the first is answered 426 and the connection closed; the second is ignored.
# Seen with the version below: neither is answered. The log gets "unexpected internal error" with a traceback that ends in
# AssertionError, so it looks like a fault of the server's own code. One request alone is answered 426.
# Run by hand: bash findings/websockets-pipelined-request.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install websockets==17.4
cd "$folder"

cat >look.py <<'PYTHON'
import asyncio, io, logging, sys
from websockets.asyncio.server import serve

log = io.StringIO()
logging.basicConfig(stream=log, level=logging.WARNING)


async def answer(port, requests):
    log.truncate(log.seek(0))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await asyncio.sleep(0.2)
    status, last = received.partition(b"\r\n")[0].decode(), log.getvalue().strip().rpartition("\n")[2]
    print(f"{requests} in one packet: answer {status or 'none'}, the log ends with {last or 'nothing'!r}")
    return status, last


async def main():
    async with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await answer(port, 1), await answer(port, 2)


one, two = asyncio.run(main())
same = one[0].startswith("HTTP/1.1 426") and two == ("", "AssertionError")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python look.py
