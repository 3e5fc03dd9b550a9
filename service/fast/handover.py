"""Lets another process of the service take clients over, and takes them over from one: each is a state and a socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterable
from typing import NamedTuple, cast

from service.core.addresses import Address
from service.core.close_codes import RESTART, UNAUTHORIZED, CloseReason
from service.core.handover import BoxState, ClientState, NotUnderstoodError, SessionState, unseal, unsent_of
from service.core.mailbox import Opened, Position, Store
from service.core.session import Session
from service.core.tally import count_up
from service.fast.fast import FastShell, WebSocket, close_frame

logger = logging.getLogger(__name__)

# How long what has been begun for the clients may take to come to its end, once none of them is read any more. It is
# what their messages wait for that are on their way to a disk, to an engine or to another worker.
SETTLING_S = 0.5
_LOOK_S = 0.005


class Given(NamedTuple):
    """A client that another process is to serve. The socket is a duplicate; whoever gets it closes it."""

    state: bytes
    connection: socket.socket

    @property
    def address(self) -> Address | None:
        """The first address of the client; None if its state is not understood."""
        try:
            return unseal(self.state).session.addresses[0][0]
        except NotUnderstoodError:
            return None


def freeze(clients: Iterable[WebSocket]) -> list[WebSocket]:
    """Read no further what these clients send. Returns: those that are not just going."""
    return [client for client in tuple(clients) if client.freeze()]


async def settle(clients: Iterable[WebSocket], store: Store | None = None) -> None:
    """Wait until what has been begun for these clients has come to its end; with a store, also what they have
    acknowledged, where nobody would be left to tell the senders.
    """
    waiting = list(clients)
    for _ in range(round(SETTLING_S / _LOOK_S)):
        waiting = [client for client in waiting if not client.may_leave]
        if not waiting and not (store and store.is_busy):
            break
        for client in waiting:
            # Whoever asks again and again whether it is alive would have it wait for ever.
            client.session.answer_probes()
        await asyncio.sleep(_LOOK_S)


def leave(clients: Iterable[WebSocket], ends: bool = False) -> list[Given]:
    """Let those leave that can, and the others go on here. `ends`: as of `WebSocket.leave`."""
    given = []
    for client in clients:
        client.session.answer_probes()
        client.flush()  # here: one whose queue runs over with it is closed, and no longer ours to give
        if client.may_leave:
            try:
                given.append(Given(*client.leave(ends)))
                continue
            except OSError as error:  # there is no descriptor left for a duplicate
                logger.error("a client cannot be handed over: %s", error.strerror)
        client.thaw()
    return given


class Taking:
    """Takes clients over, and tells them at last what has changed meanwhile.

    Where all come at once, `frozen`, none of them is read before `finish`: others whom it writes to may not be there.
    """

    def __init__(self, shell: FastShell, frozen: bool = False) -> None:
        self._shell = shell
        self._frozen = frozen
        self._taken: list[tuple[Session, SessionState]] = []
        self.bus = shell.center.hub.bus

    async def take(self, given: Given) -> bool:
        """Serve a client on; if it cannot be, it is closed."""
        tally = self._shell.center.hub.tally
        if reason := await self._fault(given):
            count_up(tally.not_taken_over, reason)
            return False
        tally.taken_over += 1
        return True

    async def _fault(self, given: Given) -> str:
        """Take a client over, or say why not: a value of `service.core.figures.NOT_TAKEN_OVER`."""
        try:
            state = unseal(given.state)
        except NotUnderstoodError as error:
            logger.warning("a client of another release cannot be served on: %s", error)
            turn_away(given, RESTART)
            return "not_understood"
        if reason := self._refusal(state.session):
            turn_away(given, reason)
            center = self._shell.center
            center.hub.tally.close(reason)
            center.events.closed(state.session.addresses[0][0], reason, center.clock() - state.session.began)
            return "refused"
        opened = await self._open(state.session.box)
        arrival = _Arrival(self._shell, state, unsent_of(given.state), opened, self._frozen)
        try:
            await self._shell.loop.connect_accepted_socket(lambda: arrival, given.connection)
        except OSError:
            given.connection.close()
            return "gone"
        if arrival.session is None:
            return "not_understood"
        if self._frozen:
            cast(WebSocket, arrival.session.client).freeze()  # uvloop begins to read when it has told of a connection
        self._taken.append((arrival.session, state.session))
        return ""

    def finish(self) -> None:
        """All are there."""
        for session, state in self._taken:
            session.catch_up(state)
        if self._frozen:
            for session, _ in self._taken:
                cast(WebSocket, session.client).thaw()
        self._taken.clear()

    def _refusal(self, session: SessionState) -> CloseReason | None:
        center = self._shell.center
        if center.draining:
            return RESTART
        is_late = session.protocol == "v0" or session.greeted
        return UNAUTHORIZED if center.settings.auth == "token" and session.identity is None and is_late else None

    async def _open(self, box: BoxState | None) -> Opened | None:
        store = self._shell.center.mail.store
        if store is None or box is None or box.opened is None:
            return None
        outcome: asyncio.Future[Opened | None] = self._shell.loop.create_future()
        store.open(box.box, Position(box.opened.epoch, box.acknowledged), outcome.set_result)
        return await outcome


class _Arrival(asyncio.BufferedProtocol):
    """The protocol of a socket until the shell has it, which is at once."""

    def __init__(
        self, shell: FastShell, state: ClientState, unsent: bytes, opened: Opened | None, frozen: bool
    ) -> None:
        self._shell, self._state, self._unsent, self._opened, self._frozen = shell, state, unsent, opened, frozen
        self.session: Session | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        try:
            self.session = self._shell.go_on(transport, self._state, self._unsent, self._opened)
            if self._frozen:
                cast(WebSocket, self.session.client).wait_for_others()
        except Exception:
            logger.exception("a client cannot be served on")
            transport.abort()


def turn_away(given: Given, reason: CloseReason) -> None:
    """Close a client that is not served on, as far as it reads; whoever has the connection as well cannot serve it."""
    with contextlib.closing(given.connection) as connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        with contextlib.suppress(OSError, NotUnderstoodError):
            connection.send(unsent_of(given.state) + close_frame(reason))
        connection.shutdown(socket.SHUT_RDWR)
