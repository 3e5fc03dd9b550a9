"""Keeps connections while no process of the service runs, in the descriptor store of systemd.

Stored one by one they would take systemd a time that grows with the square of their number. So they are stored as sets,
of two descriptors under one name each: a Unix socket in whose queue the connections wait, some hundred to a message,
and a file without a name, which has a state for each. A message of the queue can be read once. Therefore a process that
dies while it reads loses no other connections than those that it has read, as it would lose any that are its own, and
the next one finds the rest; and no state is ever used twice.

What is to be known before any of them is read stands at the beginning of the file, and the name says how long it is. A
release before looks for it no more than for anything else of which no message says where it begins.

Source: sd_notify(3) on FDSTORE=1, sd_listen_fds(3), unix(7) on SCM_RIGHTS and ETOOMANYREFS.
"""

import contextlib
import logging
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from typing import Annotated, BinaryIO, Literal, TypeAlias

import msgspec
from msgspec import Meta

from service.process.notify import Notifier

# The names of sets begin with it.
PREFIX = "clients-"
# The kernel takes 253 (SCM_MAX_FD). So few that several workers, which read the same queue, get about the same number.
PER_MESSAGE = 25
# Far more than the description of so many connections takes.
_MESSAGE_BYTES = 16 * 1024
# By which systemd says where a service may write, and nobody else: a directory in memory.
_DIRECTORY_VARIABLE = "RUNTIME_DIRECTORY"

Client: TypeAlias = tuple[bytes, socket.socket]
"""The state of a client, which means nothing here, and its connection."""

logger = logging.getLogger(__name__)

_Length = Annotated[int, Meta(ge=0)]


class _Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What comes with connections: where in the file the first one's state begins, and how long that of each is."""

    version: Literal[1]
    offset: _Length
    lengths: Annotated[list[_Length], Meta(max_length=PER_MESSAGE)]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Message).decode


class StoredSet:
    """A set of clients: what waits in its queue can be read once, by whichever process is the first."""

    def __init__(self, name: str, queue: socket.socket, states: BinaryIO) -> None:
        self.name = name
        self.descriptors = (queue.fileno(), states.fileno())
        self._queue = queue
        self._states = states
        _, _, length = name.removeprefix(PREFIX).partition("-")
        self.before = os.pread(states.fileno(), int(length), 0) if length.isascii() and length.isdigit() else b""
        """What is to be known before any of its clients is read."""

    def close(self) -> None:
        """Leave what has not been read to others that have the same descriptors, if there are any."""
        self._queue.close()
        self._states.close()

    def read(self) -> Iterator[list[Client]]:
        """The clients that are left, message by message. Whoever gets them closes their connections.

        A client whose state is missing has an empty one.
        """
        with contextlib.suppress(BlockingIOError):  # somebody holds its other end
            while message := self._receive():
                yield self._clients(*message)

    def _receive(self) -> tuple[bytes, list[socket.socket]] | None:
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        data, descriptors, said, _ = socket.recv_fds(self._queue, _MESSAGE_BYTES, PER_MESSAGE, flags)
        if said & socket.MSG_CTRUNC:
            logger.error("%s: there are not enough descriptors for all clients: raise LimitNOFILE=", self.name)
        if not data:
            return None
        return data, [each for each in map(self._connection, descriptors) if each is not None]

    def _connection(self, descriptor: int) -> socket.socket | None:
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
        else:
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM:
                return connection
            connection.close()
        logger.error("%s: a descriptor is not a connection; it is closed", self.name)
        return None

    def _clients(self, data: bytes, connections: list[socket.socket]) -> list[Client]:
        try:
            message = _decode(data)
        except msgspec.MsgspecError as error:
            logger.error("%s: the list of %d clients cannot be read: %s", self.name, len(connections), error)
            return [(b"", connection) for connection in connections]
        if len(message.lengths) != len(connections):
            # Whose is whose is not known.
            logger.error("%s: %d clients have %d states", self.name, len(connections), len(message.lengths))
            return [(b"", connection) for connection in connections]
        return list(zip(self._read_states(message), connections, strict=True))

    def _read_states(self, message: _Message) -> Iterator[bytes]:
        file = self._states.fileno()
        at, size, missing = message.offset, os.fstat(file).st_size, 0
        for length in message.lengths:
            is_there = at + length <= size
            missing += not is_there
            yield os.pread(file, length, at) if is_there else b""
            at += length
        if missing:
            logger.error("%s: the file of states ends too early; %d of them are missing", self.name, missing)


def put(clients: Sequence[Client], notifier: Notifier, environ: Mapping[str, str], before: bytes = b"") -> int:
    """Let systemd keep clients for the next process: the first so many, which is the result. It can read what is to be
    known `before` any of them.

    All connections stay open here, too; those that are kept must not be used any more.
    """
    sets: list[StoredSet] = []
    number = 0
    try:
        try:
            while number < len(clients):
                packed, count = _pack(clients[number:], before, environ.get(_DIRECTORY_VARIABLE))
                sets.append(packed)
                number += count
                if count == 0:
                    break
                notifier.store(packed.name, packed.descriptors)
            notifier.settle()
        except OSError as error:
            logger.error("systemd does not keep the clients: %s", error)
            number = 0
            for each in sets:
                _take_back(each, notifier)
    finally:
        for each in sets:
            each.close()
    return number


def _pack(clients: Sequence[Client], before: bytes, directory: str | None) -> tuple[StoredSet, int]:
    """A set of the first clients, as many as go into one. Raises: OSError: there cannot even be an empty one."""
    states = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  it is the set's
    try:
        _write(states, before)
        queue, entrance = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        states.close()
        raise
    entrance.setblocking(False)
    number, offset = 0, len(before)
    with entrance:
        while number < len(clients):
            some = clients[number : number + PER_MESSAGE]
            lengths = [len(state) for state, _ in some]
            try:
                _write(states, b"".join(state for state, _ in some))
                message = _encode(_Message(1, offset, lengths))
                socket.send_fds(entrance, [message], [connection.fileno() for _, connection in some])
            except BlockingIOError:  # the queue is full
                break
            except OSError as error:
                logger.error("%d clients cannot be kept: %s", len(clients) - number, error)
                break
            number += len(some)
            offset += sum(lengths)
    return StoredSet(f"{PREFIX}{secrets.token_hex(8)}-{len(before)}", queue, states), number


def _write(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _take_back(stored: StoredSet, notifier: Notifier) -> None:
    """Empty a set of which it is not known whether it is stored: what systemd may have of it is of no use then."""
    for some in stored.read():
        for _, connection in some:
            connection.close()
    notifier.unstore(stored.name)


def stored_sets(descriptors: Sequence[tuple[str, int]]) -> Iterator[StoredSet]:
    """The sets among the descriptors that systemd has passed by these names; what belongs to none is closed."""
    by_name: dict[str, list[int]] = {}
    for name, descriptor in descriptors:
        by_name.setdefault(name, []).append(descriptor)
    for name, those in by_name.items():
        queues = [each for each in those if _is_queue(each)]
        files = [each for each in those if stat.S_ISREG(os.fstat(each).st_mode)]
        if len(those) == 2 and len(queues) == len(files) == 1:
            for each in those:
                os.set_inheritable(each, False)
            yield StoredSet(name, socket.socket(fileno=queues[0]), FileIO(files[0]))
        else:
            logger.error("%s is not a set of clients as this release stores them; it is ignored", name)
            for each in those:
                os.close(each)


def _is_queue(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    found = socket.socket(fileno=descriptor)
    try:
        is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return found.family == socket.AF_UNIX and found.type == socket.SOCK_SEQPACKET and not is_listening
    finally:
        found.detach()
