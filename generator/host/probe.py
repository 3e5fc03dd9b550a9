"""Is the deployment healthy? As a client would find out: through nginx, a WebSocket, a message that arrives.

Of an application of the operator's own nobody knows the protocol: it is asked for its health.
"""

import json
import socket
import ssl
import time
from contextlib import closing
from uuid import uuid4

import msgspec

from generator.host.clients import listener

PATIENCE_S = 30.0
# As long as a client would wait.
CLIENTS_PATIENCE_S = 5.0
_PAUSE_S = 0.2
_EXCHANGE_S = 10.0
# By the PROXY protocol: it is for no other client, and has its own address.
UNKNOWN = "UNKNOWN"


class Unhealthy(Exception):
    """No message came back through nginx, or no good answer; the message has the last reason."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where nginx listens for a deployment: of each group of `ways`, one address must let clients through."""

    domain: str
    encrypted: bool
    asks_for_token: bool = False
    ways: tuple[tuple[str, ...], ...] = (("127.0.0.1",),)
    ports: tuple[int, int] = (80, 443)
    """Without and with TLS."""
    proxy_protocol: bool = False
    serves_app: bool = False
    health: str | None = None
    """What an application is asked; where it does not say, any answer of its own to `path` will do."""
    path: str = "/"
    """What clients begin with."""
    is_past_nginx: bool = False
    """Whether it is the service itself, which is in no site of nginx yet: `ways` has its listener."""

    @property
    def port(self) -> int:
        return self.ports[self.encrypted]

    @property
    def url(self) -> str:
        scheme = "http" if self.serves_app else "ws"
        return f"{scheme}{'s' if self.encrypted else ''}://{self.place}{self.path}"

    @property
    def place(self) -> str:
        """The domain, with the port where it is not the usual one."""
        return f"{self.domain}:{self.port}".removesuffix(":443" if self.encrypted else ":80")

    def connect(self, address: str, encrypted: bool, within_s: float, claim: str = UNKNOWN) -> socket.socket:
        """A connection to nginx at one of its addresses, before any TLS.

        Where the PROXY protocol is spoken it begins with what that claims of its client. Source: its section 2.1.

        Raises:
            OSError
        """
        if self.is_past_nginx:
            return listener(self.ways[0][0], within_s)
        raw = socket.create_connection((address, self.ports[encrypted]), timeout=within_s)
        if self.proxy_protocol:
            raw.sendall(f"PROXY {claim}\r\n".encode())
        return raw

    def __str__(self) -> str:
        return f"{self.url} at {', '.join(address for way in self.ways for address in way)}"


def probe(endpoint: Endpoint, patience_s: float = PATIENCE_S) -> float:
    """Send a message through nginx and wait for what comes back; how long that took, in seconds.

    A service that is just starting is asked again until it answers or patience ends.

    Raises:
        Unhealthy: it never answered.
    """
    deadline = time.monotonic() + patience_s
    while True:
        began = time.monotonic()
        try:
            _by_every_way(endpoint, _EXCHANGE_S)
            return time.monotonic() - began
        except Exception as error:  # whatever a broken service answers is the finding, not a fault of the probe
            if time.monotonic() > deadline:
                raise Unhealthy(f"{endpoint}: {type(error).__name__}: {error}") from None
        time.sleep(_PAUSE_S)


def silence(endpoint: Endpoint, within_s: float) -> str | None:
    """The same once: why no message came back within this time; None where one did."""
    began = time.monotonic()
    try:
        _by_every_way(endpoint, within_s)
    except Exception as error:  # as above
        # websockets before 17 calls an answer that never came invalid.
        if isinstance(error, TimeoutError) or time.monotonic() - began >= within_s:
            return f"no answer within {within_s:g} s"
        return str(error) or type(error).__name__
    return None


def _by_every_way(endpoint: Endpoint, within_s: float) -> None:
    for addresses in endpoint.ways:
        for address in addresses:
            try:
                (_ask_for_health if endpoint.serves_app else _exchange_a_message)(endpoint, address, within_s)
                break
            except Exception as error:
                # Another address may be that of clients; but a service that hangs does so at each.
                if address == addresses[-1] or isinstance(error, TimeoutError):
                    raise


def _exchange_a_message(endpoint: Endpoint, address: str, within_s: float) -> None:
    """Raises what a client meets, at the latest when the time is over: a service that hangs never closes either."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    me = str(uuid4())
    texts = [{"recipient_uuid": me, "message": "connected"}, {"recipient_uuid": me, "message": "health probe"}]
    if endpoint.asks_for_token:
        # Without one a client of nc.v1 may only ping; with only public keys, none can be minted.
        texts = [{"type": "ping", "id": me}]
    subprotocols = [Subprotocol("nc.v1")] if endpoint.asks_for_token else None
    deadline = time.monotonic() + within_s

    def left() -> float:
        return max(0.1, deadline - time.monotonic())

    with closing(endpoint.connect(address, endpoint.encrypted, within_s)) as raw:
        connected = connect(
            endpoint.url,
            sock=raw,
            ssl=context() if endpoint.encrypted else None,
            open_timeout=left(),
            close_timeout=1,
            proxy=None,
            subprotocols=subprotocols,
        )
        with connected as client:
            client.recv(timeout=left())
            for text in texts:
                client.send(json.dumps(text))
            answer = {"type": "pong", "id": me} if endpoint.asks_for_token else texts[-1]
            if json.loads(client.recv(timeout=left())) != answer:
                raise Unhealthy("another message came back")


def _ask_for_health(endpoint: Endpoint, address: str, within_s: float) -> None:
    """Raises what a client meets."""
    import http.client

    path = endpoint.health or endpoint.path
    connection = http.client.HTTPConnection(endpoint.domain)
    with closing(connection), closing(endpoint.connect(address, endpoint.encrypted, within_s)) as raw:
        connection.sock = context().wrap_socket(raw, server_hostname=endpoint.domain) if endpoint.encrypted else raw
        connection.request("GET", path, headers={"Host": endpoint.place, "Connection": "close"})
        answer = connection.getresponse()
        will_do = answer.status < 500 if endpoint.health is None else 200 <= answer.status < 300
        if not will_do:
            raise Unhealthy(f"GET {path} is answered with {answer.status} {answer.reason}")


def context() -> ssl.SSLContext:
    """TLS without a look at the certificate.

    The question is whether nginx and the service work; a placeholder certificate is replaced later.
    """
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made
