#!/usr/bin/env bash
# What a client of the `websocket-client` library that reconnects by itself, `run_forever(reconnect=1)`, learns when the
# server closes its connection with a code.
#
# Documentation: `on_close` is called when the connection is closed, with close code and reason. Guess: it is called each time,
# before the next try, so that a client can tell 4001 (your token is wrong) from a restart of the server.
# Seen with the versions below: neither `on_close` nor `on_error` is called. The client is connected, told by
# `on_reconnect` that it is connected again, and so on each second for ever, and never sees the code. Without `reconnect`,
# `on_close` is called with it.
# Run by hand: bash findings/websocket-client-reconnects-silently.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install websocket-client==1.9.2 websockets==16.1.1
cd "$folder"

cat >drive.py <<'PYTHON'
import logging, sys, threading, time

import websocket
from websockets.sync.server import serve

logging.disable()
CODE = 4001


def told(**options):
    """How often each function of the client was called, and the close codes that it was told."""
    opened, again, errors, codes = [], [], [], []
    server = serve(lambda connection: connection.close(CODE, "your token is wrong"), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = websocket.WebSocketApp(
        f"ws://127.0.0.1:{server.socket.getsockname()[1]}/",
        on_open=lambda _: opened.append(None),
        on_reconnect=lambda _: again.append(None),
        on_error=lambda _, error: errors.append(error),
        on_close=lambda _, code, reason: codes.append(code),
    )
    running = threading.Thread(target=lambda: client.run_forever(**options), daemon=True)
    running.start()
    until = time.monotonic() + 60
    while running.is_alive() and len(again) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    before_the_end = len(opened), len(again), len(errors), list(codes)
    client.close()
    running.join(20)
    server.shutdown()
    return before_the_end


for options in ({"reconnect": 1}, {}):
    opened, again, errors, codes = told(**options)
    words = ", ".join(f"{key}={value}" for key, value in options.items())
    print(f"run_forever({words}): on_open {opened}, on_reconnect {again}, on_error {errors} times; on_close: {codes}")
    if (opened, again, errors > 0, codes) != ((1, 3, False, []) if options else (1, 0, True, [CODE])):
        sys.exit("This has changed.")
PYTHON
venv/bin/python drive.py
