"""What the service answers to plain HTTP, the same in every shell."""

from typing import NamedTuple

# Long enough for some clients to have left, short enough that nobody gives up.
RETRY_AFTER_S = 5

_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """A response: status, header fields and body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def _answer(status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    return Answer(status, (("content-type", content_type), ("content-length", str(len(body))), *headers), body)


NOT_FOUND = _answer(404, _TEXT, b"WebSocket endpoint only")
# To a client that wants a WebSocket, in place of the handshake.
FULL = _answer(503, _TEXT, b"Too many connections", ("retry-after", str(RETRY_AFTER_S)))
DRAINING = _answer(503, _TEXT, b"The service is about to stop", ("retry-after", str(RETRY_AFTER_S)))
TOO_MANY_FROM_ADDRESS = _answer(
    429, _TEXT, b"Too many connections of this address", ("retry-after", str(RETRY_AFTER_S))
)
FOREIGN_ORIGIN = _answer(403, _TEXT, b"This page may not connect here")
UNAUTHORIZED = _answer(401, _TEXT, b"A valid token is needed", ("www-authenticate", "Bearer"))


def answer(method: str, path: str, connections: int) -> Answer:
    """The response to a request that asks for no WebSocket; to HEAD it is that to GET without the body."""
    response = NOT_FOUND
    if path == "/health" and method in ("GET", "HEAD"):
        body = f'{{"status": "healthy", "connections": {connections}}}'
        response = _answer(200, "application/json", body.encode())
    return response._replace(body=b"") if method == "HEAD" else response
