"""Applications as people write them, and clients of HTTP/1.1 that see how each connection ends."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.service.shells import DEADLINE_S, Shell, running

# Plain ASGI. `/wait` and `/stream` last until the file `go` is there; `waiting` is there when `/wait` has begun.
PLAIN = """
import asyncio, json, logging, os, sys
from pathlib import Path
import shop.prices

begun = 0

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)
    else:
        await http(scope, receive, send)

async def http(scope, receive, send):
    global begun
    begun += 1
    if scope["path"] == "/log":
        logging.getLogger("shop").info("sold an item")
        print("printed at once")
    while (await receive()).get("more_body"):
        pass
    length = []
    body = json.dumps(
        {
            "begun": begun, "pid": os.getpid(), "cwd": os.getcwd(), "path": sys.path[0], "client": scope["client"],
            "price": shop.prices.PRICE, "modules": sorted(sys.modules), "scheme": scope["scheme"],
            "server": scope["server"],
        }
    ).encode()
    await wait(scope)
    if scope["path"] != "/stream":
        length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    while scope["path"] == "/stream" and not Path("go").exists():
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": body})

async def wait(scope):
    if scope["path"] == "/wait":
        Path("waiting").touch()
        while not Path("go").exists():
            await asyncio.sleep(0.01)

async def websocket(scope, receive, send):
    await receive()
    await wait(scope)
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})
"""


def project(home: Path, source: str = PLAIN) -> Path:
    """A directory with an application `shop.asgi:application`."""
    (home / "shop").mkdir(parents=True)
    (home / "shop/__init__.py").touch()
    (home / "shop/prices.py").write_text("PRICE = 1\n")
    (home / "shop/asgi.py").write_text(source)
    return home


def settings(home: Path, **variables: str) -> dict[str, str]:
    """The environment in which the runner runs it."""
    return {"WEBSOCKET_APP": "shop.asgi:application", "WEBSOCKET_APP_DIRECTORY": str(home), **variables}


@contextlib.contextmanager
def serving(home: Path, **variables: str) -> Iterator[Shell]:
    """The application under the runner."""
    with running("-m service", **settings(home, **variables)) as shell:
        yield shell


class Response(NamedTuple):
    """What a client was answered; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection of HTTP/1.1."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def ask(self, path: str = "/", method: str = "GET") -> None:
        """Send a request."""
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())

    def head(self) -> Response:
        """The status and the fields of the answer."""
        status = int(self._reader.readline().split()[1])
        headers = {}
        while line := self._reader.readline().strip().decode():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Response(status, headers, b"")

    def response(self) -> Response:
        """The whole answer to one request, which says how long it is."""
        head = self.head()
        return head._replace(body=self._reader.read(int(head.headers["content-length"])))

    def rest(self) -> bytes:
        """All that comes until the server ends the connection."""
        return self._reader.read()
