#!/usr/bin/env bash
# What aiosseclient, server-sent events for aiohttp, makes of a line separator within a message.
#
# Guess: it stays a character of the message. An event ends its lines with CR, LF or both, and with nothing else (HTML
# standard, "Interpreting an event stream"), and JSON leaves U+2028, U+2029 and U+0085 as they are.
# Seen with the versions below: it splits an event as Python's `str.splitlines()` does, at these and at the form feed
# too: the application gets the message up to there, and the rest is only a warning, "Invalid SSE line". A text that
# somebody has pasted from a word processor arrives cut off, and is no JSON any more. Let the server write `\u2028`, as
# Python's `json.dumps` does by default, or read with sseclient-py.
# Run by hand: bash findings/aiosseclient-line-separators.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install aiosseclient==0.1.8 aiohttp==3.14.2 sseclient-py==1.9.0 \
    requests==2.34.2
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

import requests, sseclient
from aiohttp import web
from aiosseclient import aiosseclient

SEPARATORS = ["\u2028", "\u2029", "\x85", "\f"]


async def answer(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    separator = SEPARATORS[int(request.match_info["number"])]
    await response.write(f"data: before{separator}after\n\n".encode())
    return response


async def by_aiosseclient(url):
    return [event.data async for event in aiosseclient(url)]


async def by_sseclient_py(url):
    def read():
        return [event.data for event in sseclient.SSEClient(requests.get(url, stream=True, timeout=10)).events()]

    return await asyncio.to_thread(read)


async def main():
    app = web.Application()
    app.router.add_get("/{number}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    same = True
    for number, separator in enumerate(SEPARATORS):
        url = f"http://127.0.0.1:{port}/{number}"
        cut, whole = await by_aiosseclient(url), await by_sseclient_py(url)
        print(f"before, U+{ord(separator):04X}, after: aiosseclient tells {cut!a}; sseclient-py tells {whole!a}")
        same &= cut == ["before"] and whole == [f"before{separator}after"]
    await runner.cleanup()
    return same


if not asyncio.run(main()):
    sys.exit("This has changed.")
PYTHON
timeout 60 venv/bin/python drive.py
