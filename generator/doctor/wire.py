"""A client of the deployment that sees every frame, also those that a library would hide: pings, and how it ends."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from generator import __version__
from generator.host.probe import UNKNOWN, Endpoint, context

# By this its requests are known in the access log.
AGENT = f"wsbundle-doctor/{__version__}"
PATIENCE_S = 5.0


class Answer(NamedTuple):
    """What a plain request got; fields are in lower case. Status 0: the connection was closed without an answer."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return str(self.status) if self.status else "no answer"


class Ended(Exception):
    """The connection ended before what was waited for; the message says how."""


def connected(
    endpoint: Endpoint, address: str = "", encrypted: bool | None = None, claim: str = UNKNOWN, protocol: str = ""
) -> socket.socket:
    """A connection to nginx, with TLS where clients use it; no certificate is judged.

    `protocol` is the only one that the client speaks within TLS (RFC 7301). Where the PROXY protocol is spoken, `claim`
    says in its words for which client the connection is.

    Raises:
        OSError
    """
    with_tls = endpoint.encrypted if encrypted is None else encrypted
    plain = endpoint.connect(address or endpoint.ways[0][0], with_tls, PATIENCE_S, claim)
    if not with_tls:
        return plain
    trusting = context()
    if protocol:
        trusting.set_alpn_protocols([protocol])
    try:
        return trusting.wrap_socket(plain, server_hostname=endpoint.domain)
    except BaseException:
        plain.close()
        raise


def ask(raw: socket.socket, path: str, host: str, method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
    """The answer to a plain request on a connection, which is closed then."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = raw
    headers = {"Host": host, "User-Agent": AGENT, **{name.replace("_", "-"): text for name, text in fields.items()}}
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return Answer(0, {}, b"")
    finally:
        connection.close()


class Client:
    """One WebSocket. `status` is what the handshake got. Texts and pings are kept as they come.

    `place` is the domain with the path. Pings are answered while something is waited for, unless `answers` is false.
    """

    def __init__(self, raw: socket.socket, place: str, subprotocol: str | None = None, **fields: str) -> None:
        self.answers = True
        offered = None if subprotocol is None else [Subprotocol(subprotocol)]
        self._socket = raw
        self._protocol = ClientProtocol(parse_uri(f"ws://{place}"), subprotocols=offered, max_size=None)
        self.status = 0
        self.texts: list[str] = []
        self.pinged_at: list[float] = []
        self._fragments = b""
        request = self._protocol.connect()
        request.headers["User-Agent"] = AGENT
        for name, value in fields.items():
            request.headers[name.replace("_", "-")] = value
        self._protocol.send_request(request)
        self._flush()
        self.read_until(lambda: self.status, PATIENCE_S)

    @property
    def close_code(self) -> int | None:
        """That of the service's close frame, if one came."""
        return self._protocol.close_rcvd.code if self._protocol.close_rcvd else None

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def text(self, within_s: float = PATIENCE_S) -> str:
        """The next one. Raises: Ended, TimeoutError"""
        self.read_until(lambda: self.texts, within_s)
        return self.texts.pop(0)

    def say(self, **message: Any) -> None:
        self.send(json.dumps(message))

    def read_until(self, condition: Callable[[], object], within_s: float) -> None:
        """Raises: Ended, TimeoutError"""
        deadline = time.monotonic() + within_s
        while not condition():
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise TimeoutError(f"nothing came within {within_s:g} s") from None
            except ConnectionError as error:
                raise Ended(error.strerror or "the connection was reset") from None
            self._protocol.receive_data(data) if data else self._protocol.receive_eof()
            for event in self._protocol.events_received():
                self._take(event)
            if self.answers:
                with contextlib.suppress(OSError):
                    self._flush()
            if not data and not condition():
                raise Ended(f"the connection was closed with {self.close_code or 1006}")

    def read_to_end(self, within_s: float) -> int:
        """The code with which the service closed the connection, 1006 if it was cut. Raises: TimeoutError"""
        with contextlib.suppress(Ended):
            self.read_until(lambda: self.close_code is not None, within_s)
        return self.close_code or 1006

    def _take(self, event: object) -> None:
        if isinstance(event, Response):
            self.status = event.status_code
        elif isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pinged_at.append(time.monotonic())
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
            self._fragments += bytes(event.data)
            if event.fin:
                self.texts.append(self._fragments.decode())
                self._fragments = b""

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.settimeout(PATIENCE_S)
                self._socket.sendall(data)

    def take_little(self) -> None:
        """Let little wait here that has not been read: it waits at nginx then, and soon in the service."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)

    def close(self) -> None:
        """Say good-bye, as far as the service hears it."""
        with contextlib.suppress(OSError, Exception):
            self._protocol.send_close(1000)
            self._flush()
        self._socket.close()


@contextlib.contextmanager
def client(endpoint: Endpoint, subprotocol: str | None = None, **fields: str) -> Iterator[Client]:
    """A WebSocket through nginx, or what refused it."""
    raw = connected(endpoint)
    try:
        made = Client(raw, f"{endpoint.domain}{endpoint.path}", subprotocol, **fields)
    except BaseException:
        raw.close()
        raise
    try:
        yield made
    finally:
        made.close()
