"""An application that answers with what it sees, started with the service's own listener and uvicorn options."""

import json
import os
from typing import Any

import uvicorn

from service.fast.uvicorn_options import uvicorn_options
from service.process.entry import settings_or_exit
from service.process.listen import listening_sockets


async def probe(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        seen = {
            "client": scope["client"] and scope["client"][0],
            "scheme": scope["scheme"],
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


if __name__ == "__main__":
    settings = settings_or_exit(os.environ)
    # Read by uvicorn alone: the service's own reception wants a center.
    own = {"lifespan": "off", "http": "auto", "ws": "none"}
    options = {**uvicorn_options(settings, only_proxies_connect=settings.socket is not None), **own}
    uvicorn.Server(uvicorn.Config(probe, **options)).run(listening_sockets(settings, os.environ))
