"""Connects the workers of one host: a Unix stream socket from each to each other, in a directory of their own.

A worker listens under its process id, and connects to all that listen already. They connect back, so that each sends on
a stream of its own, in order. When either stream of two workers ends, both count as gone. The kernel says which process
has connected, so that none can pretend to be another worker.

Source: unix(7), SO_PEERCRED.
"""

import asyncio
import contextlib
import logging
import os
import stat
import struct
from pathlib import Path
from typing import cast

import msgspec

import service.core.bus_records as records
from service.core.bus import PeerBus
from service.core.center import Center
from service.core.hub import Bus
from service.core.peer import Peer
from service.process.hangups import untaken_bytes
from service.process.unix_sockets import OURS_ALONE, open_to, peer_of

# No message is longer than 16 MiB: a batch that claims to be so long is not one of ours.
MAX_BATCH_BYTES = 32 * 1024 * 1024
# With so much a batch is complete, so that little waits for the rest of it.
BATCH_BYTES = 64 * 1024
# How long after a lost connection a worker that still listens is looked for again.
RETRY_S = 0.5
# How long a worker that stops waits until the others have read its last records.
FAREWELL_S = 1.0
# How long a new worker waits to hear what the clients of the others have, before it has any itself: it would give away
# what is theirs. A worker that is stuck has been killed by then.
HEARING_S = 12.0
# How often a worker tells the others what it has counted: when it is killed, so much of that is lost at most. With
# tens of thousands of clients, all of whom are looked at, it is less often: that takes no more than this share of time.
TELL_S = 1.0
TELLING_SHARE = 0.005
_LOOK_S = 0.01
# How long others may take to read what they were told, where it is waited for; and how often it is looked.
READING_S = 0.5
_SHORT_LOOK_S = 0.001
_SUFFIX = ".sock"

_length = struct.Struct("!I")

logger = logging.getLogger(__name__)


class MeshError(Exception):
    """The workers cannot find each other; the message says where, what, and the fix."""


class OutgoingWire(asyncio.Protocol):
    """Our stream to another worker. The records of one turn of the loop leave in one write: a batch, behind its length.

    Workers of one host are of one release in this: see `generator.host.succession`.
    """

    def __init__(self, mesh: "Mesh", number: str) -> None:
        self.peer: Peer | None = None
        self._mesh = mesh
        self._number = number
        self.queued = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        # We look at the size of the buffer ourselves.
        self._transport.set_write_buffer_limits(0)
        self.peer = self._mesh.reached(self._number, self)

    def send(self, record: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        if self._waiting_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting and not self._transport.is_closing():
            batch = records.batch(self._waiting)
            self._transport.write(_length.pack(len(batch)) + batch)
        self._waiting, self._waiting_bytes = [], 0
        self._look()

    def _look(self) -> None:
        self.queued = self._transport.get_write_buffer_size()  # a batch more or less makes no difference

    pause_writing = resume_writing = _look

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended.set()
        self._mesh.lost(self._number, self)

    @property
    def is_read(self) -> bool:
        """Whether the other worker has read all that was sent, or has gone."""
        if self._transport.is_closing():
            return True
        return not (self._waiting or self._transport.get_write_buffer_size() or untaken_bytes(self._transport))

    async def finish(self) -> None:
        """End the stream when all that waits was sent; a worker that does not take it is not waited for."""
        self._flush()
        self._transport.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._has_ended.wait(), FAREWELL_S)

    def close(self) -> None:
        """End the stream."""
        self._transport.abort()


async def all_is_read(bus: Bus) -> None:
    """Wait until the other workers of this host have read what they were told; for one that is stuck, not for long."""
    peers = bus.near() if isinstance(bus, PeerBus) else ()
    wires = [peer.wire for peer in peers if isinstance(peer.wire, OutgoingWire)]
    for _ in range(round(READING_S / _SHORT_LOOK_S)):
        if all(wire.is_read for wire in wires):
            break
        await asyncio.sleep(_SHORT_LOOK_S)


class IncomingWire(asyncio.Protocol):
    """The stream of another worker; it is read as soon as there is a way to answer."""

    def __init__(self, mesh: "Mesh") -> None:
        self._mesh = mesh
        self._rest = b""
        self._number = ""
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        pid, uid = peer_of(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            logger.warning("a process of user %d, which is not one of our workers, was turned away from the bus", uid)
            self._transport.abort()
        else:
            self._number = str(pid)
            self._mesh.heard_of(self._number, self)

    def data_received(self, data: bytes) -> None:
        data, self._rest = self._rest + data, b""
        peer, at = self._peer, 0
        try:
            while peer is not None and at + _length.size <= len(data):
                (size,) = _length.unpack_from(data, at)
                begin = at + _length.size
                end = begin + size
                if size > MAX_BATCH_BYTES:
                    self._broken("a batch is too long")
                    return
                if end > len(data):
                    break
                self._mesh.bus.receive(peer, data[begin:end])
                at = end
        except msgspec.MsgspecError as error:
            self._broken(str(error))
            return
        self._rest = data[at:]

    def meet(self, peer: Peer) -> None:
        """From now on it can be answered."""
        self._peer = peer
        self.data_received(b"")

    def _broken(self, what: str) -> None:
        logger.error("the bus does not understand worker %s: %s", self._number, what)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._mesh.lost(self._number, self)

    def close(self) -> None:
        """End the stream."""
        self._transport.abort()


class Mesh:
    """This worker's place among the workers that meet in the directory `bus` of the settings.

    Without one it is alone, and nothing is opened.
    """

    def __init__(self, center: Center) -> None:
        self._center = center
        self._server: asyncio.Server | None = None
        self._outgoing: dict[str, OutgoingWire] = {}
        self._incoming: dict[str, IncomingWire] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._telling: asyncio.Task[None] | None = None
        self._is_closed = False

    def _path(self, number: str) -> Path:
        return self._directory / f"{number}{_SUFFIX}"

    async def open(self) -> None:
        """Listen, connect to all workers there are, and wait until they have said which addresses they have.

        Raises:
            MeshError: the directory cannot be used, or is not ours alone.
        """
        if self._center.settings.bus is None:
            return
        self._directory = Path(self._center.settings.bus)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            state = self._directory.stat()
        except OSError as error:
            raise MeshError(
                f"the workers cannot meet in {self._directory}: {error.strerror}; make its parent directory, and let "
                "the service's user write there"
            ) from None
        if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
            raise MeshError(
                f"the workers cannot meet in {self._directory}: others may write there; give it mode 0700 and the "
                "service's user as its owner, or name another directory"
            )
        self.number = str(os.getpid())
        self.bus = self._center.hub.bus = PeerBus(self._center, self.number)
        # A worker that finds a socket on which nobody listens takes it for that of a dead worker, and removes it: ours
        # gets its name only when we listen.
        unnamed = self._directory / f".{self.number}"
        unnamed.unlink(missing_ok=True)
        with open_to(OURS_ALONE):
            self._server = await asyncio.get_running_loop().create_unix_server(lambda: IncomingWire(self), unnamed)
        unnamed.rename(self._path(self.number))
        for other in self._directory.glob(f"*{_SUFFIX}"):
            if other.stem.isdigit() and other.stem != self.number:
                self._connect(other.stem)
        await asyncio.gather(*self._connecting.values())
        for _ in range(round(HEARING_S / _LOOK_S)):
            if all(peer.has_told for peer in self.bus.peers.values()):
                break
            await asyncio.sleep(_LOOK_S)
        self._telling = asyncio.create_task(self._keep_telling())

    async def _keep_telling(self) -> None:
        loop, took = asyncio.get_running_loop(), 0.0
        while True:
            await asyncio.sleep(max(TELL_S, took / TELLING_SHARE))
            began = loop.time()
            self.bus.tell_what_is_new()
            took = loop.time() - began

    def _connect(self, number: str, after_s: float = 0.0) -> None:
        if not self._is_closed and number not in self._connecting and number not in self._outgoing:
            self._connecting[number] = asyncio.create_task(self._reach(number, after_s))

    async def _reach(self, number: str, after_s: float) -> None:
        try:
            await asyncio.sleep(after_s)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: OutgoingWire(self, number), str(self._path(number)))
        except ConnectionRefusedError:
            self._path(number).unlink(missing_ok=True)  # a process that was killed has left it
            self._part(number)
        except OSError:
            self._part(number)  # it has connected to us, and cannot be answered
        finally:
            del self._connecting[number]

    def reached(self, number: str, wire: OutgoingWire) -> Peer:
        """We have connected to another worker."""
        self._outgoing[number] = wire
        peer = self.bus.meet(number, wire)
        self.bus.tell_what_is_new()
        if number in self._incoming:
            self._incoming[number].meet(peer)
        return peer

    def heard_of(self, number: str, wire: IncomingWire) -> None:
        """Another worker has connected to us."""
        if number in self._incoming:
            self._part(number)
        self._incoming[number] = wire
        outgoing = self._outgoing.get(number)
        if outgoing is not None and outgoing.peer is not None:
            wire.meet(outgoing.peer)
        else:
            self._connect(number)

    def lost(self, number: str, wire: OutgoingWire | IncomingWire) -> None:
        """A stream to or from another worker has ended."""
        if wire in (self._outgoing.get(number), self._incoming.get(number)):
            self._part(number)
            if self._path(number).exists():
                self._connect(number, RETRY_S)

    def _part(self, number: str) -> None:
        outgoing, incoming = self._outgoing.pop(number, None), self._incoming.pop(number, None)
        if outgoing is not None:
            outgoing.close()
            if outgoing.peer is not None:
                self.bus.part(outgoing.peer)
                if not self._is_closed:
                    self.bus.tell_what_is_new()  # we may have what it has counted, and may be killed as well
        if incoming is not None:
            incoming.close()

    async def close(self) -> None:
        """Leave."""
        self._is_closed = True
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError):
            self._path(self.number).unlink()
        tasks = [*self._connecting.values(), *([self._telling] if self._telling else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.bus.tell_standing(self._center.standing())
        await asyncio.gather(*(wire.finish() for wire in self._outgoing.values()))
        for number in {*self._outgoing, *self._incoming}:
            self._part(number)
