"""Clients pass from a worker that is replaced to one that stays, over a Unix stream between the two.

Every worker listens in the directory of the bus, under its process id and the number of its release. Each connection
brings a batch: the states of some clients, with their sockets as SCM_RIGHTS in front of them. The answer says which of
them are served.

Source: unix(7), SCM_RIGHTS, SO_PEERCRED; at most 253 descriptors go with one message (SCM_MAX_FD).
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from service.core.bus import PeerBus
from service.core.close_codes import RESTART
from service.core.peer import Peer
from service.fast.fast import FastShell, WebSocket
from service.fast.handover import Given, Taking, freeze, leave, settle, turn_away
from service.process.unix_sockets import OURS_ALONE, open_to, peer_of
from service.workers.manager import WATCHDOG_S

BATCH = 200
# Clients that have let more pile up than this go in several batches.
BATCH_BYTES = 64 * 1024 * 1024
# A worker that dies meanwhile is no reason to try no other one; each that is stuck is waited for.
MAX_FAILURES = 2
# Clients that do not come to an end with what they are about are not waited for any longer.
MAX_ROUNDS_IN_VAIN = 2
# How long the new worker may take to answer, and to read a batch; when it is stuck, clients stay, and are sent away.
# One of another host may take longer to say that nothing is on its way any more: until its link ends.
PATIENCE_S = 2.0
# How long clients then wait that others believe with the new worker already, and that cannot stay: until one that is
# stuck has been killed.
OTHERS_S = 1.5 * WATCHDOG_S
# How often it is seen whether a worker that is stuck, or a host that restarts, is back, which is waited for.
LOOK_S = 0.1
# How long the new one may take to answer to a batch: it serves the clients on all the same, on a slow disk just later.
ANSWER_S = 10.0
# No batch is longer; one client may have let so much pile up with the largest limits.
MAX_BYTES = 2 * 1024**3
_SUFFIX = ".door"

_head = struct.Struct("!IQ")
_decode = msgspec.msgpack.Decoder(list[bytes]).decode
_decode_taken = msgspec.msgpack.Decoder(list[bool]).decode

logger = logging.getLogger(__name__)


class PassingError(Exception):
    """The other worker does not take the clients; the message says why."""


class Door:
    """Where this worker gets clients of others; `release` is a number that is greater in later releases."""

    def __init__(self, shell: FastShell, bus: PeerBus, directory: Path, release: int) -> None:
        self._shell = shell
        self._bus = bus
        self._loop = shell.loop
        self._directory = directory
        self._path = directory / f"{bus.number}-{release}{self._mark}{_SUFFIX}"
        self._release = release
        self._listener = socket.socket(socket.AF_UNIX)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _mark(self) -> str:
        """Of workers with an engine: clients pass only between two that have one, or none, for their clocks differ."""
        return "" if self._bus.far is None else "e"

    def open(self) -> None:
        """Take clients from now on. Raises: OSError"""
        for path in self._directory.glob(f"*{_SUFFIX}"):
            if not _is_alive(path.stem.partition("-")[0]):
                path.unlink(missing_ok=True)
        with open_to(OURS_ALONE):
            self._listener.bind(str(self._path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._let_in)

    def close(self) -> None:
        """Take none any more. Also where it could not be opened."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _let_in(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            pid, uid = peer_of(connection)
            if uid != os.geteuid():
                logger.warning("a process of user %d, which is not one of our workers, was turned away", uid)
                connection.close()
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection, str(pid)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, number: str) -> None:
        with contextlib.closing(connection):
            try:
                taken = await self._take(await _read(self._loop, connection))
            except (OSError, EOFError, msgspec.MsgspecError) as error:
                logger.warning("worker %s has not handed over all of its clients: %s", number, error)
                self._bus.moves.lost_of(number)
            else:
                with contextlib.suppress(OSError):  # it waits no longer for that
                    await self._loop.sock_sendall(connection, _packed(msgspec.msgpack.encode(taken)))
        self._bus.moves.nobody_comes(number)

    async def _take(self, given: Sequence[Given]) -> list[bool]:
        taking = Taking(self._shell)
        try:
            taken = list(await asyncio.gather(*map(taking.take, given)))
        finally:
            taking.finish()
        for each, is_taken in zip(given, taken, strict=True):
            if not is_taken and (address := each.address) is not None:
                self._bus.moves.lost(address)
        return taken

    # The worker that is replaced

    def _successor(self) -> tuple[Peer, Path] | None:
        """The worker of the newest release with the fewest clients."""
        if self._bus.far is not None and not self._bus.far.knows_moves:
            logger.warning(
                "no clients pass to other workers: another host has an older release, which cannot follow them"
            )
            return None
        peers = []
        for path in self._directory.glob(f"*{_SUFFIX}"):
            number, _, release = path.stem.partition("-")
            peer = self._bus.peers.get(number)
            is_alike, release = release.endswith(self._mark), release.removesuffix(self._mark)
            if peer is not None and is_alike and release.isdigit() and int(release) >= self._release:
                peers.append((-int(release), len(peer.client_addresses), number, peer, path))
        return min(peers)[3:] if peers else None

    async def pass_on(self, go_on: Callable[[], object] = lambda: None) -> int:
        """Let other workers serve all clients that can leave; the others stay. `go_on` is called when some have left.

        Returns: how many have left.
        """
        number = failures = rounds_in_vain = 0
        # Again for those who were just about something, such as a message to one who was passing on, or came meanwhile.
        while self._shell.clients and rounds_in_vain < MAX_ROUNDS_IN_VAIN:
            before = number
            waiting = list(self._shell.clients)
            while waiting and failures < MAX_FAILURES and (successor := self._successor()) is not None:
                while self._bus.restarts.are_under_way:  # what is kept here for clients of another host stays here
                    go_on()
                    await asyncio.sleep(LOOK_S)
                batch = _first(waiting)
                del waiting[: len(batch)]
                try:
                    number += await self._pass(batch, *successor, go_on)
                    go_on()
                except (OSError, PassingError) as error:
                    logger.warning("worker %s takes no clients: %s", successor[0].number, error)
                    failures += 1
            rounds_in_vain = 0 if number > before else rounds_in_vain + 1
        logger.info("%d clients are served on by other workers", number)
        return number

    async def _pass(self, batch: Sequence[WebSocket], to: Peer, path: Path, go_on: Callable[[], object]) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            await self._loop.sock_connect(connection, str(path))
            frozen = freeze(batch)
            await settle(frozen)
            leaving = [client for client in frozen if client.may_leave]
            for client in frozen:
                if client not in leaving:
                    client.thaw()
            given, have_answered = await self._leave(leaving, to, go_on)
            # Also when none leaves: if the stream just ends, the other worker takes those for lost that it waits for,
            # and hears later that they stay.
            try:
                await asyncio.wait_for(_write(self._loop, connection, given), PATIENCE_S)
            except (OSError, asyncio.TimeoutError) as error:
                for each in given:
                    turn_away(each, RESTART)
                raise PassingError(str(error) or "it does not read") from None
            for each in given:
                each.connection.close()  # from now on they are the other's, whatever it answers
            patience_s = ANSWER_S if given else PATIENCE_S
            try:
                taken = sum(_decode_taken(await asyncio.wait_for(_read_bytes(self._loop, connection), patience_s)))
            except (OSError, EOFError, asyncio.TimeoutError, msgspec.MsgspecError) as error:
                raise PassingError(str(error) or "it does not answer") from None
        if not have_answered:
            raise PassingError("a worker does not answer")
        return taken

    async def _leave(
        self, leaving: Sequence[WebSocket], to: Peer, go_on: Callable[[], object]
    ) -> tuple[list[Given], bool]:
        """Let clients leave when nothing is on its way to them or from them any more.

        Returns: those that have left, and whether all workers have answered; if not, all stay, or are closed.
        """
        moves = self._bus.moves
        given: list[Given] = []
        fenced: asyncio.Future[bool] = self._loop.create_future()

        def answered(may_leave: bool) -> None:
            if not fenced.done():
                fenced.set_result(may_leave)

        number = moves.announce([client.session for client in leaving], to, answered)
        await asyncio.wait([fenced], timeout=PATIENCE_S + (self._bus.far.patience_s if self._bus.far else 0.0))
        until = self._loop.time() + OTHERS_S
        while not (fenced.done() or moves.may_withdraw(number)) and self._loop.time() < until:
            go_on()
            await asyncio.wait([fenced], timeout=LOOK_S)
        may_leave = fenced.done() and fenced.result()
        moves.prepare(number)
        staying = []
        for client in leaving:
            if may_leave and (left := leave([client])):
                given += left
                moves.left(client.session, to)
            else:
                staying.append(client)
        may_stay = moves.may_withdraw(number)
        if may_stay:
            moves.withdraw(number, [client.session for client in staying if client.session in self._bus.hub.members])
        for client in staying:
            client.thaw()
            if not may_stay:
                client.session.close(RESTART)
                client.session.end()
        moves.finish(number, to)
        return given, may_leave


def _first(clients: Sequence[WebSocket]) -> Sequence[WebSocket]:
    """As many as go in one batch, at least one."""
    number = size = 0
    for client in clients[:BATCH]:
        size += client.weight
        if number and size > BATCH_BYTES:
            break
        number += 1
    return clients[:number]


def _is_alive(number: str) -> bool:
    """Whether a process of our user has this number, other than us: what is there under ours is of one before us."""
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError, PermissionError):
        return False
    return int(number) != os.getpid()


async def _write(loop: asyncio.AbstractEventLoop, connection: socket.socket, given: Sequence[Given]) -> None:
    states = msgspec.msgpack.encode([each.state for each in given])
    # They are the first, so that there is room for these few bytes.
    socket.send_fds(connection, [_head.pack(len(given), len(states))], [each.connection.fileno() for each in given])
    await loop.sock_sendall(connection, states)


async def _read(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> list[Given]:
    """A batch. Raises: EOFError, OSError, msgspec.MsgspecError"""
    await _readable(loop, connection)
    head, descriptors, _, _ = socket.recv_fds(connection, _head.size, BATCH, socket.MSG_CMSG_CLOEXEC)
    connections = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        if len(head) < _head.size:
            raise EOFError("what it says is cut off")
        number, length = _head.unpack(head)
        if length > MAX_BYTES or number != len(connections):
            raise EOFError(f"{number} clients of {length} bytes with {len(connections)} sockets")
        states = _decode(await _read_exactly(loop, connection, length))
        return [Given(state, each) for state, each in zip(states, connections, strict=True)]
    except BaseException:
        for each in connections:
            each.close()
        raise


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    is_readable = asyncio.Event()
    loop.add_reader(connection, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(connection)


def _packed(data: bytes) -> bytes:
    return _head.pack(0, len(data)) + data


async def _read_bytes(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    _, length = _head.unpack(await _read_exactly(loop, connection, _head.size))
    return await _read_exactly(loop, connection, min(length, MAX_BYTES))


async def _read_exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        more = await loop.sock_recv(connection, min(length - len(data), 1 << 20))
        if not more:
            raise EOFError("it has ended")
        data += more
    return bytes(data)
