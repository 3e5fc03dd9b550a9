"""The service on the `websockets` library alone: `python service/server.py [PORT]` or `python -m service.server`.

For development, and for whoever starts it this way already. Same messages, close codes and limits as elsewhere.
The library reads only requests without a body, and before its version 17 (Python 3.10) only GET: others get no answer.
"""

import os
import sys

if not __package__:
    # Run as a file: Python then looks for modules beside this file, and not for the package that it is in.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

from service.process.stops import hold_signals, let_signals_through, stop_signals

if __name__ == "__main__":
    hold_signals()

import argparse
import asyncio
import contextlib
import logging
import re
import socket
from asyncio import TimerHandle
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from websockets import http11
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event
from websockets.typing import Subprotocol

from service.core.admission import Admission, Handshake, admit, client_address, note_refusal
from service.core.bounds import CLOSE_GRACE_S, MAX_FRAGMENTS
from service.core.center import PROBE_TIMEOUT_S
from service.core.close_codes import NO_PONG, RESTART, TOO_MANY_FRAGMENTS, CloseReason
from service.core.plain_http import Answer, passed_on, say
from service.engine.faults import EngineError
from service.engine.hosts import Hosts
from service.fast.handshake import MAX_HEAD_BYTES, HandshakeError, read_handshake
from service.links.exchange import Exchange
from service.links.link import LinkClosedError
from service.mailbox.database import MailboxError
from service.mailbox.stores import open_mailbox
from service.process.begin import ignore_hangups
from service.process.control import Control
from service.process.drain import LAST_HANDSHAKES_S, drain
from service.process.entry import center_of, settings_or_exit
from service.process.hangups import has_hung_up
from service.process.journal import fail
from service.process.listen import BACKLOG, FDS_VARIABLE, ListenError, listening_sockets, name_of
from service.process.logs import configure_logging
from service.process.notify import Notifier
from service.settings import Settings
from service.web.publish import PREFIX
from service.web.watching import Watching
from service.workers.acceptor import Acceptor
from service.workers.manager import end_with_manager, run_workers
from service.workers.mesh import Mesh, MeshError
from service.workers.shares import share_listeners

logger = logging.getLogger("service")

_NO_BODIES = say(501, "The standalone server reads no message over HTTP; use server: uvicorn\n")
# As much as `service.fast.front` takes.
http11.MAX_LINE_LENGTH = MAX_HEAD_BYTES


class Connection(ServerConnection):
    """The library's connection, for clients that do not read and clients that never finish a message.

    The library waits for room in the buffer before it sends a ping, and begins to count the ping's timeout after that:
    a client that does not read would never time out. And before its version 17 it takes fragments without end.
    """

    _stuck: TimerHandle | None = None
    _fragments = 0
    _has_begun = False

    def data_received(self, data: bytes) -> None:
        if not self._has_begun:
            data = data.lstrip(b"\r\n")  # empty lines before a request: RFC 9112, section 2.2
            self._has_begun = data != b""
        if data:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        assert self.ping_interval is not None
        assert self.ping_timeout is not None
        self._stuck = self.loop.call_later(self.ping_interval + self.ping_timeout, self._give_up)

    def _give_up(self) -> None:
        self.protocol.fail(*NO_PONG)  # which the client does not read: so that it is known why the connection has ended
        self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments = 0 if event.fin else self._fragments + 1
            if self._fragments == MAX_FRAGMENTS:
                self.protocol.fail(*TOO_MANY_FRAGMENTS)
                self.send_data()
                self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)
            if self._fragments >= MAX_FRAGMENTS:
                return
        super().process_event(event)


class LibraryLink:
    """A WebSocket as the library offers it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.transport = connection.transport

    @property
    def fault(self) -> CloseReason | None:
        protocol = self._connection.protocol
        if protocol.close_sent is None or protocol.close_rcvd_then_sent:  # that was the client
            return None
        return CloseReason(protocol.close_sent.code, protocol.close_sent.reason)

    async def receive(self) -> str | bytes | None:
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def send(self, text: bytes) -> None:
        try:
            await self._connection.send(text, text=True)
        except ConnectionClosed as error:
            raise LinkClosedError from error

    async def close(self, reason: CloseReason) -> None:
        await self._connection.close(*reason)

    async def is_alive(self) -> bool:
        try:
            pong = asyncio.ensure_future(await self._connection.ping())
            while not pong.done():
                await asyncio.wait([pong], timeout=PROBE_TIMEOUT_S / 4)
                if not self._connection.transport.is_reading():
                    # It has sent too much just now, is read no further for a while, and cannot answer.
                    return not has_hung_up(self._connection.transport)
            pong.result()
        except ConnectionClosed as error:
            raise LinkClosedError from error
        return True


class Standalone:
    """The library's callbacks."""

    def __init__(self, settings: Settings) -> None:
        self.center = center_of(settings)
        self.center.server = "standalone"
        self.connections: set[ServerConnection] = set()
        self._exchange = Exchange(self.center)
        self._watching = Watching(self.center)
        self._admissions: WeakKeyDictionary[ServerConnection, Admission] = WeakKeyDictionary()

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets the handshake go on."""
        method, version = getattr(request, "method", "GET"), getattr(request, "protocol", "HTTP/1.1")
        try:
            upgrade = read_handshake(_head(f"{method} {request.path} {version}", request.headers))
        except HandshakeError as error:
            note_refusal(self.center, error.answer, None)
            return _response(error.answer)
        if upgrade is None:
            path, forwarded = _path(request.path), passed_on(name.lower() for name in request.headers)
            if path.startswith(PREFIX):
                return _response(_NO_BODIES)
            host = ",".join(request.headers.get_all("Host"))
            return _response(await self._watching.answer(method, path, forwarded, host))
        decision = admit(self.center, _handshake(connection, request.headers))
        if isinstance(decision, Answer):
            return _response(decision)
        self._admissions[connection] = decision
        # The library wants nothing else to be offered.
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "websocket")):
            del request.headers[name]
            request.headers[name] = value
        return None

    def select_subprotocol(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """The one that was admitted."""
        selected = self._admissions[connection].subprotocol
        return None if selected is None else Subprotocol(selected)

    async def handle(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        try:
            await self._exchange.serve(LibraryLink(connection), self._admissions.pop(connection))
        finally:
            self.connections.discard(connection)
            # Whoever is still connected does not read: there is nothing to wait for.
            connection.transport.abort()


def _head(line: str, headers: Headers) -> bytes:
    """The head of a request as it came, so that every shell reads it in the same way."""
    lines = [line, *(f"{name}: {value}" for name, value in headers.raw_items()), "", ""]
    return "\r\n".join(lines).encode("latin-1", "surrogateescape")


def _handshake(connection: ServerConnection, headers: Headers) -> Handshake:
    forwarded = headers.get_all("X-Forwarded-For")
    peer = connection.remote_address[0] if connection.remote_address else None
    # Only nginx of this host can reach a Unix socket or loopback, and it says one address: that of its own peer.
    believed = peer is None or peer.startswith("127.") or peer == "::1"
    if believed and forwarded:
        peer = forwarded[-1].rpartition(",")[2].strip()
    offered = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
    return Handshake(
        client_address=client_address(peer, bool(believed and forwarded)),
        origins=tuple(headers.get_all("Origin")),
        authorizations=tuple(headers.get_all("Authorization")),
        subprotocols=tuple(name.strip() for name in offered.split(",")),
    )


def _path(target: str) -> str:
    # A client of a proxy names the server as well: RFC 9112, section 3.2.2. Not urlsplit: it fails on "http://[" and
    # takes the "x" of "//x/health" for a server.
    path, _, _ = re.sub("^https?://[^/?]*", "", target).partition("?")
    return unquote(path)


def _response(response: Answer) -> Response:
    headers = Headers([("date", formatdate(usegmt=True)), *response.headers, ("connection", "close")])
    return Response(response.status, HTTPStatus(response.status).phrase, headers, response.body)


async def _serve(shell: Standalone, settings: Settings, listener: socket.socket) -> Server:
    server: Server = await serve(
        shell.handle,
        sock=listener,
        backlog=BACKLOG,
        process_request=shell.process_request,
        select_subprotocol=shell.select_subprotocol,
        create_connection=Connection,
        server_header=None,
        compression=None,
        open_timeout=settings.limits.header_timeout,
        max_size=settings.limits.message_size,
        write_limit=0,  # what was sent has then left: `service.core.center.Client.when_left`
        ping_interval=settings.ping.interval,
        ping_timeout=settings.ping.timeout,
        close_timeout=min(CLOSE_GRACE_S, settings.drain.timeout),
    )
    return server


async def run(settings: Settings, listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT, then close every client and return within the drain timeout.

    Raises:
        MailboxError, MeshError, EngineError
    """
    stopped = asyncio.Event()
    for stopping in stop_signals():
        asyncio.get_running_loop().add_signal_handler(stopping, stopped.set)
    let_signals_through()
    end_with_manager(os.environ)
    shell = Standalone(settings)
    notifier = Notifier(os.environ)
    mailbox = await open_mailbox(shell.center)
    mesh = Mesh(shell.center)
    await mesh.open()
    control = Control(shell.center)
    await control.open()
    hosts = Hosts(shell.center)
    await hosts.open()
    if settings.workers != 1:
        share_listeners(shell.center)
    servers = [await _serve(shell, settings, listener) for listener in listeners]
    logger.info("listening on %s", ", ".join(map(name_of, listeners)))
    notifier.ready(shell.center.status())
    alive = asyncio.create_task(notifier.keep_alive(shell.center.status))
    await stopped.wait()
    notifier.stopping()
    for server, listener in zip(servers, listeners, strict=True):
        _look_away(server, listener)
    await asyncio.sleep(LAST_HANDSHAKES_S)
    for server in servers:
        server.close(close_connections=False)
    ends = asyncio.get_running_loop().time() + settings.drain.timeout
    await drain(shell.center)
    for server in servers:
        server.close(code=RESTART.code, reason=RESTART.reason)
    with contextlib.suppress(asyncio.TimeoutError):
        # The last clients have what is left of the time.
        await asyncio.wait_for(_all_closed(servers), ends - asyncio.get_running_loop().time())
    for connection in tuple(shell.connections):
        # The library would wait until a client reads that does not.
        connection.transport.abort()
    if mailbox is not None:
        await mailbox.close()
    await control.close()
    await hosts.close()
    await mesh.close()
    alive.cancel()
    hold_signals()


def _look_away(server: Server, listener: socket.socket) -> None:
    """Accept none any more, without that the library refuses those who have not finished their handshake."""
    if isinstance(server.server, Acceptor):
        server.server.look_away()
    else:
        asyncio.get_running_loop().remove_reader(listener)


async def _all_closed(servers: Iterable[Server]) -> None:
    for server in servers:
        await server.wait_closed()


def main() -> None:
    """Run in the foreground. A port on the command line goes before the environment's."""
    hold_signals()  # also where another program calls this
    parser = argparse.ArgumentParser(
        prog="python -m service.server",
        description="Run the notification center on the websockets library alone. Its settings are the WEBSOCKET_ "
        "variables of the environment.",
        allow_abbrev=False,
    )
    parser.add_argument("port", nargs="?", metavar="PORT", help="listen here instead of WEBSOCKET_PORT")
    port: str | None = parser.parse_args().port
    chosen = {} if port is None else {"WEBSOCKET_PORT": port, "WEBSOCKET_SOCKET": ""}
    settings = settings_or_exit({**os.environ, **chosen})
    configure_logging(settings.log)
    is_worker = FDS_VARIABLE in os.environ
    ignore_hangups(is_worker)
    try:
        listeners = listening_sockets(settings, os.environ)
        if settings.workers != 1 and not is_worker:
            run_workers("service.server", settings, listeners)
        else:
            asyncio.run(run(settings, listeners))
    except (EngineError, ListenError, MailboxError, MeshError) as error:
        fail(error)


if __name__ == "__main__":
    main()
