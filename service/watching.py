"""What the service tells over HTTP about itself.

`/health` is the guide's, and nginx passes it on for those who are listed. `/livez`, `/readyz` and `/metrics` are for
programs of this host: nginx passes none of them on, and if one comes through a proxy all the same, it is not found.
"""

from service.center import Center
from service.plain_http import DRAINING, NOT_FOUND, Answer, respond, say

_ALIVE = say(200, "alive")
_READY = say(200, "ready")


class Watching:
    """The answers to whatever is no handshake and no publication."""

    def __init__(self, center: Center) -> None:
        self._center = center

    def answer(self, method: str, path: str, passed_on: bool) -> Answer:
        """The response to a request, which came through a proxy or did not; to HEAD it is that to GET without body."""
        response = NOT_FOUND
        if method in ("GET", "HEAD"):
            response = self._health() if path == "/health" else self._internal("" if passed_on else path)
        return response._replace(body=b"") if method == "HEAD" else response

    def _health(self) -> Answer:
        body = f'{{"status": "healthy", "connections": {self._center.connections}}}'
        return respond(200, "application/json", body.encode())

    def _internal(self, path: str) -> Answer:
        match path:
            case "/livez":
                return _ALIVE
            case "/readyz":
                return DRAINING if self._center.draining else _READY
            case "/metrics":
                from service.metrics import metrics  # takes 5 MB, which nobody pays who does not ask

                return metrics(self._center)
        return NOT_FOUND
