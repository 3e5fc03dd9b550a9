"""Many clients of bare sockets in one process: those that stay and answer pings, and those that die at any byte."""

import contextlib
import json
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from types import TracebackType

from tests.service.shells import DEADLINE_S, HANDSHAKE
from tests.service.transports import frame, frames_in

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# Each source address of loopback has ports for some twenty thousand connections a minute.
ADDRESSES = 50


class CrowdError(AssertionError):
    """A client was not served as it should be."""


def knock(port: int, number: int) -> socket.socket:
    """A connection to a port of loopback."""
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S, (f"127.0.0.{1 + number % ADDRESSES}", 0))


def said(**message: object) -> bytes:
    return frame(TEXT, json.dumps(message).encode())


class Crowd:
    """Clients that have registered `idle-0`, `idle-1` and so on, and do nothing but answer pings."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: dict[int, socket.socket] = {}
        self._numbers: dict[int, int] = {}
        self._readable = select.epoll()
        self.pings: dict[int, int] = {}
        """How often each was pinged."""
        self.heard: dict[int, list[str]] = {}

    def grow(self, size: int) -> None:
        """Let more clients come, until there are so many."""
        for number in range(len(self._clients), size):
            client = self._clients[number] = knock(self._port, number)
            client.sendall(HANDSHAKE + b"\r\n" + said(recipient_uuid=f"idle-{number}", message="connected"))
            answer = b""
            while not answer.partition(b"\r\n\r\n")[2]:
                answer += client.recv(4096)
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise CrowdError(answer)
            client.setblocking(False)
            self._numbers[client.fileno()] = number
            self._readable.register(client, select.EPOLLIN)
            self.pings[number] = 0
            if number % 200 == 0:
                self.rest(0)

    def rest(self, seconds: float) -> None:
        """Answer what comes, for so long."""
        end = time.monotonic() + seconds
        while True:
            for descriptor, _ in self._readable.poll(max(0.0, min(0.5, end - time.monotonic()))):
                self._read(self._numbers[descriptor])
            if time.monotonic() >= end:
                return

    def _read(self, number: int) -> None:
        client = self._clients[number]
        data = client.recv(4096)
        for opcode, payload in frames_in(data):
            if opcode == PING:
                self.pings[number] += 1
                client.sendall(frame(PONG, payload))
            elif opcode == TEXT:
                self.heard.setdefault(number, []).append(payload.decode())
            else:
                raise CrowdError(f"client {number} got a frame of type {opcode}: {payload!r}")
        if not data:
            raise CrowdError(f"client {number} was disconnected")

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for client in self._clients.values():
            client.close()
        self._readable.close()


def life(number: int) -> bytes:
    """All that one client says, if it lives long enough."""
    address, other = f"mortal-{number % 7}", f"mortal-{(number + 1) % 7}"
    if number % 2:
        return HANDSHAKE + b"\r\n" + _life_v0(address, other)
    return HANDSHAKE + b"Sec-WebSocket-Protocol: nc.v1\r\n\r\n" + _life_v1(address, other)


def _life_v0(address: str, other: str) -> bytes:
    words = (
        said(recipient_uuid=address, message="connected"),
        said(recipient_uuid=address, message="to whoever it is"),
        said(recipient_uuid=other, message="x" * 3000),
        frame(PING, b"?"),
        frame(TEXT, b"half a message", fin=False),
    )
    return b"".join(words)


def _life_v1(address: str, other: str) -> bytes:
    words = (
        said(type="hello", id=1, uuid=address),
        said(type="hello", id=2),
        said(type="join", id=3, group="all"),
        said(type="presence", id=4, uuids=["mortal-1", "mortal-2"], watch=True),
        said(type="send", id=5, group="all", message="to all", ack="delivered"),
        said(type="send", id=6, recipient_uuid=other, message="x", ack="delivered"),
        frame(CLOSE, struct.pack("!H", 1000)),
    )
    return b"".join(words)


def die(port: int, number: int, chance: random.Random) -> None:
    """Say so much of it and go, in one of the ways in which clients go."""
    words = life(number)
    # Half of them die after the handshake, which is a small part of all bytes.
    begin = words.find(b"\r\n\r\n") if chance.random() < 0.5 else 0
    with contextlib.closing(knock(port, number)) as client, contextlib.suppress(ConnectionError):
        client.sendall(words[: chance.randint(begin, len(words))])
        way = chance.randrange(4)
        if way == 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == 1:
            client.shutdown(socket.SHUT_WR)
        elif way == 2:
            client.settimeout(0.002)
            with contextlib.suppress(TimeoutError):
                client.recv(100)


def die_one_by_one(port: int, numbers: range, seed: int) -> Iterator[int]:
    """Let these clients live and die; yields after each hundred of them."""
    chance = random.Random(seed)
    for number in numbers:
        die(port, number, chance)
        if number % 100 == 99:
            yield number
