"""Why a connection is lost or does not come about, and when the next try is due."""

import asyncio
import http.client
import random
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from wsbundle_client.wire import NOT_TAKEN

# Full jitter: after a restart all clients come back, and must not come at the same moment.
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 30.0
# A connection that lasted this long was a good one. A shorter one may have been accepted only to be closed again.
STABLE_S = 30.0
# The longest wait that a server is believed: by a slip of its configuration clients would stay away for days.
LONGEST_S = 3600.0


class Backoff:
    """How long to wait before the next try."""

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        self._random_share = random_share
        self._ceiling_s = BACKOFF_BASE_S

    def after(self, connected_s: float, told_s: float | None = None) -> float:
        """The wait, in seconds, after a connection that lasted `connected_s`; 0 when it was never there.

        `told_s`: when the service has asked for the client. It is obeyed to the moment once, and soon after that only
        where the wait is over, or both could go round and round.
        """
        if connected_s >= STABLE_S:
            self._ceiling_s = BACKOFF_BASE_S
        is_first, wait_s = self._ceiling_s == BACKOFF_BASE_S, self._random_share() * self._ceiling_s
        self._ceiling_s = min(BACKOFF_CAP_S, self._ceiling_s * 2)
        if told_s is None:
            return wait_s
        return max(told_s, 0.0 if is_first else wait_s)


class Lost(Exception):
    """There is no connection, or soon none. What follows: nothing, if it would be lost again (`final`); or a next try,
    after `told_s`, 0 for at once, or after the back-off and `least_s`. `is_not_taken`: what was sent last is the cause.
    """

    def __init__(
        self,
        reason: str,
        final: bool = False,
        told_s: float | None = None,
        least_s: float = 0.0,
        is_not_taken: bool = False,
    ) -> None:
        self.reason, self.final, self.told_s, self.least_s = reason, final, told_s, least_s
        self.is_not_taken = is_not_taken
        super().__init__(reason)


def closed(error: ConnectionClosed) -> Lost:
    """The three ranges of service/core/close_codes.py."""
    code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
    hint = f": {HINTS[401]}" if code == 4001 else ""
    return Lost(
        f"closed with {code} {reason}".rstrip() + hint,
        final=4000 <= code < 4100,
        told_s=0.0 if 4200 <= code < 4300 else None,
        is_not_taken=code in NOT_TAKEN,
    )


def refused(refusal: InvalidStatus) -> Lost:
    status, headers = refusal.response.status_code, refusal.response.headers
    # A proxy may add a second one to that of the service.
    least_s = max(map(float, filter(str.isdecimal, headers.get_all("Retry-After"))), default=0.0)
    hint = f": {HINTS[status]}" if status in HINTS else ""
    if 300 <= status < 400:
        hint += "".join(f"; it leads to {location}" for location in headers.get_all("Location"))
    if least_s > LONGEST_S:
        hint += f"; it asks for {least_s:.0f} s, and is tried again in {LONGEST_S:.0f} s"
    return Lost(f"refused with HTTP {status}{hint}", final=status in (401, 403), least_s=min(least_s, LONGEST_S))


HINTS = {
    **dict.fromkeys((301, 302, 303, 307), "redirects are not followed"),
    308: "the server wants TLS; use wss://",
    401: "a valid token is needed; give one with --token-file or WEBSOCKET_TOKEN",
    403: "this origin or address may not connect; see `origins` and `nginx.health_from` of the server",
    404: "no notification center is there; look at the path, which is /",
    429: "too many connections of this address",
    502: "nginx is there, but the service is not; look at it with `wsbundle status`",
    503: "the service is full or about to stop",
}


def why_unreachable(error: BaseException, url: str) -> str:
    """Why there is no connection, and what to do about it."""
    parts = urlsplit(url)
    host = parts.hostname
    port = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
    if isinstance(error, ConnectionRefusedError) or "Multiple exceptions" in str(error):
        return f"nothing listens on {host} port {port}; is it running? `wsbundle run` starts it here"
    if isinstance(error, socket.gaierror):
        return f"the host {host} is not known; look at its name, and at the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {host} is not accepted: {error.verify_message}; renew it, or use the name it is for"
    if isinstance(error, ssl.SSLError):
        return f"{host} does not speak TLS on port {port}; use ws:// or http://, or the port of wss://"
    if isinstance(error, asyncio.TimeoutError):
        return f"{host} has not answered on port {port} in time; look at the address, and at firewalls"
    if isinstance(error, InvalidMessage | http.client.HTTPException):
        return f"{host} does not speak HTTP on port {port}; with TLS use wss://"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or "the connection was lost"
        return f"{host} cannot be reached on port {port}: {reason}; look at the address, and at the network"
    return str(error) or type(error).__name__
