"""Reads first what comes in on a connection under uvicorn: WebSockets go to the fast shell, all else back to uvicorn.

So no handshake is read twice, none is let through that RFC 6455 forbids, each refusal says why and arrives, and nobody
holds a connection by never finishing a request.
"""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.app import SendEvent, send_answer
from service.core.admission import Handshake, admit, client_address, note_refusal
from service.core.bounds import CLOSE_GRACE_S
from service.core.center import Center
from service.core.plain_http import Answer, say
from service.fast.deadlines import Deadlines
from service.fast.fast import FastShell
from service.fast.handshake import MAX_HEAD_BYTES, HandshakeError, Upgrade, read_handshake
from service.process.farewell import Farewell
from service.process.orderly_http import OrderlyHttp

# uvicorn keeps every request that comes before the last one is answered, and reads on.
MAX_PIPELINED = 16

_END_OF_HEAD = b"\r\n\r\n"
_TOO_LONG = say(431, "The head of the request is too long")
_TOO_SLOW = say(408, "The request takes too long")
_NOT_HTTP = say(400, "This is not HTTP/1.1")

# A protocol takes away the bytes that it has read here before another one reads: all connections share the buffer.
_room = memoryview(bytearray(64 * 1024))


class Reception:
    """Receives the connections of one server; uvicorn takes it as `http`, and calls it for each."""

    shell: FastShell | None = None

    def __call__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "Front":
        return Front(self, self.open_shell(config, server_state, app_state))

    def open_shell(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> FastShell:
        """The shell for the clients of this process."""
        # Not earlier: gunicorn's master makes the reception, and its workers use it.
        if self.shell is None:
            self.shell = FastShell(cast(Any, config.app).center, cast(set[Any], server_state.connections))
            self.server_state = server_state
            self.deadlines = Deadlines(self.shell.loop, self.shell.center.settings.limits.header_timeout)
            self.plain_http = partial(PlainHttp, self, config, server_state, app_state)
            self._believed = ProxyHeadersMiddleware(config.loaded_app, config.forwarded_allow_ips).trusted_hosts
        return self.shell

    def client_address(self, peername: object, upgrade: Upgrade) -> str | None:
        """The address of a client; a proxy is believed if uvicorn believes it, or if it comes over a Unix socket.

        `peername` is the transport's: a path there, which is empty as a rule, and None on TCP if the client has gone.
        """
        peer = peername[0] if isinstance(peername, tuple) else ""
        if "x-forwarded-for" in upgrade.fields and (isinstance(peername, str) or peer in self._believed):
            # A proxy adds its own peer at the end; all before that the client may have written.
            return client_address(upgrade.members("x-forwarded-for")[-1], True)
        return client_address(peer, False)


class Front(asyncio.BufferedProtocol):
    """Reads the head of a connection's first request."""

    transport: asyncio.Transport
    data_received = None
    """uvloop asks every protocol for it, and to find none takes a microsecond of each handshake."""

    def __init__(self, reception: Reception, shell: FastShell) -> None:
        self._reception = reception
        self._shell = shell
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._shell.connections.add(self)
        self._reception.deadlines.begin(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _room

    def buffer_updated(self, nbytes: int) -> None:
        self._received += _room[:nbytes]
        found = self._received.find(_END_OF_HEAD)
        if found < 0 and len(self._received) <= MAX_HEAD_BYTES:
            return
        length = found + len(_END_OF_HEAD)
        if found < 0 or length > MAX_HEAD_BYTES:
            self.give_up(_TOO_LONG)
        else:
            self.decide(self._received[:length], self._received[length:])

    def decide(self, head: bytes, rest: bytes) -> None:
        """Go on with the head of a request, and what has been received after it."""
        try:
            # An empty line before a request is ignored, as uvicorn's parser does: RFC 9112, section 2.2.
            upgrade = read_handshake(head.removeprefix(b"\r\n"))
        except HandshakeError as error:
            self.give_up(error.answer)
            return
        if upgrade is None:
            self._leave()
            http = self._reception.plain_http()
            http.connection_made(self.transport)
            hand_over(self.transport, http)
            http.data_received(head + rest)
        else:
            self.open(upgrade, rest)

    def open(self, upgrade: Upgrade, rest: bytes) -> None:
        """Let in a client that asks for a WebSocket, or refuse it."""
        handshake = Handshake(
            client_address=self._reception.client_address(self.transport.get_extra_info("peername"), upgrade),
            origins=upgrade.values("origin"),
            authorizations=upgrade.values("authorization"),
            subprotocols=upgrade.members("sec-websocket-protocol"),
        )
        decision = admit(self._shell.center, handshake)
        if isinstance(decision, Answer):
            self.refuse(decision)
        else:
            self._leave()
            accept = upgrade.accept(decision.subprotocol)
            self._shell.open(self.transport, decision, accept, rest)

    def give_up(self, answer: Answer) -> None:
        """Refuse what was received: it is not a request, and never will be one."""
        note_refusal(self._shell.center, answer, None)
        self.refuse(answer)

    def too_late(self) -> None:
        """The head of the request was not there in time."""
        if self._received:
            self.give_up(_TOO_SLOW)
        else:
            self.transport.abort()

    def refuse(self, answer: Answer) -> None:
        """Send the answer, and end the connection."""
        self._reception.deadlines.end(self)
        head = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()]
        fields = [(name.encode(), value.encode()) for name, value in answer.headers]
        for name, value in (*self._reception.server_state.default_headers, *fields, (b"connection", b"close")):
            head.append(name + b": " + value)
        self.transport.write(b"\r\n".join(head) + _END_OF_HEAD + answer.body)
        Farewell(self.transport, self._leave)

    def _leave(self) -> None:
        self._reception.deadlines.end(self)
        self._shell.connections.discard(self)

    def shutdown(self) -> None:
        """uvicorn stops."""
        self.transport.abort()


class TooManyRequestsError(Exception):
    """More of them than `MAX_PIPELINED` wait for an answer."""


class PlainHttp(OrderlyHttp, HttpToolsProtocol):
    """uvicorn's protocol for HTTP, with a deadline for each request; a handshake that comes late is handed back.

    No answer that is due is lost to what follows the request: RFC 9112, section 9.3.2. A handshake waits for its turn.
    A request that cannot be read is counted and refused without a warning in the log, which anybody could fill. And an
    offer of another protocol is ignored, where uvicorn loses the body that comes with it: RFC 9110, section 7.8.
    """

    def __init__(
        self, reception: Reception, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._reception = reception
        self._center: Center = cast(Any, config.app).center
        self._header_timeout: int = self._center.settings.limits.header_timeout
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._has_come_further = False
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self.has_given_up:
            return
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._header_timeout, self._too_late)
        self._has_come_further = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            rest = data[offer.args[0] :]
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, TooManyRequestsError):
                self._end_with_the_last_answer()
            else:
                self._give_up(_NOT_HTTP)
            return
        else:
            self._look_after(data)
            return
        self._decide(rest)  # not above, where the offer would be the context of all other errors

    def _look_after(self, data: bytes) -> None:
        # The parser keeps a head that does not end, and trailers, however long they are: gigabytes within the deadline.
        self._head_bytes = 0 if self._has_come_further else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._give_up(_TOO_LONG)
        elif self._deadline is None and self.is_idle:
            # A body has ended behind its answer, and uvicorn waits for the next request only from the answer on.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _decide(self, rest: bytes) -> None:
        """Another protocol is offered, or a tunnel asked for. `rest` is what follows on the head of the request."""
        if self.scope["method"] == "CONNECT":
            self._give_up(_NOT_HTTP)
            return
        try:
            upgrade = read_handshake(self._head())
        except HandshakeError as error:
            self._give_up(error.answer)
            return
        if upgrade is None:
            # The parser has made up its mind not to read the body; a new one reads the request without the offer.
            self._start_parser()
            self.data_received(self._head(without=b"upgrade") + rest)
        else:
            # A WebSocket takes all that waits in its transport for its own.
            self.when_answered(lambda: self._hand_back().open(upgrade, rest))

    def _head(self, without: bytes = b"") -> bytes:
        lines = [self.scope["method"].encode() + b" " + self.url + b" HTTP/" + self.scope["http_version"].encode()]
        lines += [name + b": " + value for name, value in self.scope["headers"] if name != without]
        return b"\r\n".join(lines) + _END_OF_HEAD

    def _start_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn has it, so that a request is answered though another one follows on its "Connection: close".
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _should_upgrade(self) -> bool:
        return True  # nothing is done before `_decide`

    def _give_up(self, answer: Answer) -> None:
        """The bytes received are not HTTP."""
        self._cancel_deadline()
        note_refusal(self._center, answer, None)
        self.give_up(lambda: self._hand_back().refuse(answer), _refusing(answer))

    def _end_with_the_last_answer(self) -> None:
        """Answer the requests that have come whole, and read no other one."""
        self.has_given_up = True
        self._cancel_deadline()
        self.cycle.keep_alive = False

    def _too_late(self) -> None:
        self._give_up(_TOO_SLOW)

    def _body_too_late(self) -> None:
        if self.pipeline:
            self._give_up(_TOO_SLOW)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        if self.pipeline and not self.transport.is_closing() and self.pipeline[-1][0].more_body:
            self._expect_body()  # the application begins to wait for it now
        super().on_response_complete()

    def _hand_back(self) -> Front:
        # For uvicorn the connection ends here.
        self._unset_keepalive_if_required()
        self.connection_lost(ConnectionAbortedError())
        front = self._reception(self.config, self.server_state, self.app_state)
        front.connection_made(self._connection)
        hand_over(self._connection, front)
        return front

    def part(self) -> None:
        self.has_given_up = True
        self._cancel_deadline()
        self._cancel_patience()
        super().part()

    def on_message_begin(self) -> None:
        self._has_come_further = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._has_come_further = True
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyRequestsError
        super().on_headers_complete()
        self._expect_body()

    def _expect_body(self) -> None:
        # The application gives a body as long as this, and has an answer to one that takes longer.
        self._cancel_deadline()
        self._deadline = self.loop.call_later(self._header_timeout + CLOSE_GRACE_S, self._body_too_late)

    def on_body(self, body: bytes) -> None:
        self._has_come_further = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_come_further = True
        self._cancel_deadline()
        super().on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_patience()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        """The client does not read what it has asked for."""
        super().pause_writing()
        self._patience = self.loop.call_later(self._header_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_patience()
        super().resume_writing()

    def _cancel_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _refusing(answer: Answer) -> Any:
    """An application that answers so, whatever it is asked, and lets the connection end."""

    async def refuse(scope: object, receive: object, send: SendEvent) -> None:
        await send_answer(send, "http", answer._replace(headers=(*answer.headers, ("connection", "close"))))

    return refuse


def hand_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Change the protocol for one of the other kind, buffered or not; uvloop looks only when it begins to read."""
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()
