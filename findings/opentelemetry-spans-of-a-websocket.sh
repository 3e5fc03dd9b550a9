#!/usr/bin/env bash
# What the ASGI middleware of OpenTelemetry, and so that of FastAPI and Starlette, records of a WebSocket over which a hundred
# messages are sent and echoed.
#
# Guess: one span for the connection, as for a request, from its start to its end, and metrics of the open connections and
# of how long they took.
# Seen with the versions below: a span for each message in each direction, all in one trace, which grows as long as the
# connection lives: a client that gets ten messages a second makes 864,000 spans of it in a day. They are exported while it
# lives, children of a span that is not there yet: that of the connection comes when it has ended. There are no metrics of
# WebSockets, neither `http.server.active_requests` nor a duration. `exclude_spans=["receive", "send"]` leaves one span.
# Run by hand: bash findings/opentelemetry-spans-of-a-websocket.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install opentelemetry-instrumentation-asgi==0.66b2 \
    opentelemetry-sdk==1.45.2 uvicorn==0.54.0 websockets==16.1.1
cd "$folder"

cat >drive.py <<'PYTHON'
import asyncio, sys

import uvicorn, websockets
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


async def echo(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def seen(**options):
    """The spans while the connection lives and when it has ended, traces, whether one is of the server, and metrics."""
    spans, metrics, tracing = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    application = OpenTelemetryMiddleware(echo, tracer_provider=tracing, meter_provider=MeterProvider([metrics]), **options)
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_level="critical"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with websockets.connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        for _ in range(100):
            await client.send("hello")
            await client.recv()
        living = spans.get_finished_spans()
    await asyncio.sleep(0.5)
    ended, measured = spans.get_finished_spans(), metrics.get_metrics_data()
    server.should_exit = True
    await task
    of_server = [sum(span.kind.name == "SERVER" for span in each) for each in (living, ended)]
    return len(living), len(ended), len({span.context.trace_id for span in ended}), of_server, measured is not None


async def main():
    same = True
    for options, least in (({}, 200), ({"exclude_spans": ["receive", "send"]}, 0)):
        living, ended, traces, of_server, measured = await seen(**options)
        same &= least <= living <= least * 1.1 and traces == 1 and of_server == [0, 1] and not measured
        same &= ended <= least * 1.1 + 1
        print(f"{options or 'by default'}: {living} spans while it is open, {ended} in {traces} trace when it has ended; "
              f"of the connection itself {of_server[0]} and {of_server[1]}; metrics: {measured}")
    return same


sys.exit(0 if asyncio.run(main()) else "This has changed.")
PYTHON
venv/bin/python drive.py
