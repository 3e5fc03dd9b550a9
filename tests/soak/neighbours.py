"""Thousands of clients in one process, who write to each other over TLS until they are told to stop.

`python -m tests.soak.neighbours ADDRESS PORT DOMAIN FIRST NUMBER PERIOD`: half of them speak v0 and half nc.v1, each
writes to the next one every so many seconds, and wants a receipt if both speak nc.v1. Some read only once in this time,
and some are in the middle of a frame most of the time. It says `ready`, stops at the end of its standard input, and
says in a line of JSON what has become of everything: a `Report`.
"""

import contextlib
import json
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.service.transports import first_frame, frame

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# One in so many does not read, or writes each frame in two halves.
DEAF, SLOW = 50, 10
DEADLINE_S = 120.0
_ROOT = Path(__file__).resolve().parents[2]


class Report(msgspec.Struct):
    """What has become of all that was sent, and for how long the slowest of it was on its way to one who reads."""

    clients: int = 0
    sent: int = 0
    closed: int = 0
    missing: int = 0
    twice: int = 0
    out_of_order: int = 0
    false_ok: int = 0
    unanswered: int = 0
    errors: int = 0
    lost: int = 0
    unconfirmed: int = 0
    slowest_s: float = 0.0

    def faults(self) -> dict[str, int]:
        """What must be nothing, where it is not."""
        counts = msgspec.structs.asdict(self)
        return {name: count for name, count in counts.items() if count and name not in ("clients", "sent", "slowest_s")}


class Client:
    """One of them: what it has sent to the next one and what it has heard."""

    def __init__(self, number: int, connection: ssl.SSLSocket, domain: str) -> None:
        self.connection = connection
        self._domain = domain
        # In fours, so that each protocol writes to both.
        self.speaks_v1 = number % 4 >= 2
        self.is_deaf = number % DEAF == 1
        self.is_slow = number % SLOW == 3
        self.name = f"neighbour-{number}"
        self.unread = b""
        self.unsent = b""
        self.rest = b""
        """The second half of a frame that has been begun."""
        self.sent_at: list[float] = []
        self.heard: list[int] = []
        self.answers: Counter[str] = Counter()
        self.said_ok: set[int] = set()
        self.answered: set[int] = set()
        self.confirmed: set[int] = set()
        self.is_closed = False

    def greet(self) -> None:
        """The handshake, and its name."""
        protocol = b"Sec-WebSocket-Protocol: nc.v1\r\n" if self.speaks_v1 else b""
        self.connection.sendall(_HANDSHAKE % (self._domain.encode(), protocol))
        while b"\r\n\r\n" not in self.unread:
            self.unread += self._receive()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        if self.speaks_v1:
            self._say_now(type="hello", id=0, uuid=self.name)
        else:
            self._say_now(recipient_uuid=self.name, message="connected")
            self._say_now(recipient_uuid=self.name, message=0)
        heard = 0
        while heard < 2:  # the welcome, and the answer
            self.unread += self._receive()
            heard += len(list(self.frames()))

    def _receive(self) -> bytes:
        data = self.connection.recv(65536)
        assert data, "the connection has ended"
        return data

    def _say_now(self, **message: object) -> None:
        self.connection.sendall(_text(**message))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Those that are complete."""
        while found := first_frame(self.unread):
            opcode, payload, end = found
            self.unread = self.unread[end:]
            yield opcode, payload

    def send_to(self, other: "Client", now: float) -> None:
        self.sent_at.append(now)
        number = len(self.sent_at)
        message: dict[str, object] = {"recipient_uuid": other.name, "message": number}
        if self.speaks_v1:
            message |= {"type": "send", "id": number, "ack": "delivered" if other.speaks_v1 else "accepted"}
        data = _text(**message)
        if self.is_slow:
            half = len(data) // 2
            self.unsent, self.rest = self.unsent + self.rest + data[:half], data[half:]
        else:
            self.unsent += data
        self.flush()

    def _add(self, data: bytes) -> None:
        if self.rest:  # not into the middle of a frame
            self.rest += data
        else:
            self.unsent += data

    def flush(self) -> None:
        while self.unsent and not self.is_closed:
            try:
                self.unsent = self.unsent[self.connection.send(self.unsent) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError:
                self.is_closed = True

    def read(self, now: float, before: "Client") -> float:
        """Read all that is there. Returns: how long the slowest of it was on its way."""
        slowest = 0.0
        while True:
            try:
                data = self.connection.recv(65536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return slowest
            except OSError:
                data = b""
            if not data:
                self.is_closed = True
                return slowest
            self.unread += data
            for opcode, payload in self.frames():
                if opcode == TEXT:
                    slowest = max(slowest, self._hear(json.loads(payload), now, before))
                elif opcode == PING:
                    self._add(frame(PONG, payload))
                elif opcode == CLOSE:
                    self.is_closed = True
                    self.answers[f"closed {struct.unpack('!H', payload[:2])[0]}"] += 1
            self.flush()

    def _hear(self, message: dict[str, object], now: float, before: "Client") -> float:
        kind, of = message.get("type", "msg"), message.get("id")
        if kind == "msg":
            number = message["message"]
            assert isinstance(number, int)
            self.heard.append(number)
            if "key" in message:
                self._add(_text(type="ack", key=message["key"]))
            # Of one that sends a frame in two halves, the second one is late by intent.
            return 0.0 if before.is_slow else now - before.sent_at[number - 1]
        self.answers[str(kind)] += 1
        if isinstance(of, int):
            if kind == "ok":
                self.said_ok.add(of)
            if kind in ("ok", "error"):
                self.answered.add(of)
            if kind == "delivered":
                self.confirmed.add(of)
        return 0.0


def _text(**message: object) -> bytes:
    return frame(TEXT, json.dumps(message).encode())


_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Neighbours:
    """All of them, in a ring."""

    def __init__(self, address: str, port: int, domain: str, first: int, number: int, period_s: float) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.clients = []
        self.period_s = period_s
        self.slowest_s = 0.0
        self._events = select.epoll()
        self._by_descriptor: dict[int, int] = {}
        for index in range(number):
            plain = socket.create_connection((address, port), DEADLINE_S)
            client = Client(first + index, context.wrap_socket(plain, server_hostname=domain), domain)
            client.greet()
            client.connection.setblocking(False)
            self.clients.append(client)
            if not client.is_deaf:
                self._listen_to(index)
            if index % 100 == 99:
                self.pass_time(0.0)
                self._wake_the_deaf()

    def _listen_to(self, index: int) -> None:
        descriptor = self.clients[index].connection.fileno()
        self._by_descriptor[descriptor] = index
        self._events.register(descriptor, select.EPOLLIN)

    def pass_time(self, seconds: float) -> None:
        """Hear what comes."""
        end = time.monotonic() + seconds
        while True:
            for descriptor, _ in self._events.poll(max(0.0, end - time.monotonic())):
                self._read(self._by_descriptor[descriptor])
            if time.monotonic() >= end:
                return

    def _read(self, index: int) -> None:
        client = self.clients[index]
        slowest = client.read(time.monotonic(), self.clients[index - 1])
        if not client.is_deaf:
            self.slowest_s = max(self.slowest_s, slowest)
        if client.is_closed:
            ends = [answer for answer in client.answers if answer.startswith("closed")]
            print(client.name, *(ends or ["closed without a word"]), file=sys.stderr)
            if client.connection.fileno() in self._by_descriptor:
                self._events.unregister(client.connection.fileno())

    def _wake_the_deaf(self) -> None:
        """They read now and then, or would rightly be closed: they would answer no ping."""
        for index, client in enumerate(self.clients):
            if client.is_deaf and not client.is_closed:
                self._read(index)

    def talk(self) -> None:
        """Until the end of standard input."""
        chance = random.Random(0)
        order = list(range(len(self.clients)))
        chance.shuffle(order)
        waiting = select.poll()
        waiting.register(sys.stdin.fileno(), select.POLLIN)
        begun, turns = time.monotonic(), 0
        while True:
            self._wake_the_deaf()
            for index in order:
                turns += 1
                due = begun + turns * self.period_s / len(order)
                self.pass_time(max(0.0, due - time.monotonic()))
                if turns % 64 == 0 and waiting.poll(0):
                    return
                sender = self.clients[index]
                if not sender.is_closed:
                    sender.send_to(self.clients[(index + 1) % len(order)], time.monotonic())

    def finish(self) -> None:
        """Send what is left, and hear everything."""
        for index, client in enumerate(self.clients):
            client.unsent, client.rest = client.unsent + client.rest, b""
            client.flush()
            if client.is_deaf and not client.is_closed:
                self._listen_to(index)
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end and self.report().faults():
            self.pass_time(0.5)

    def report(self) -> Report:
        """What is missing so far."""
        report = Report(clients=len(self.clients), slowest_s=self.slowest_s)
        for client, after in zip(self.clients, self.clients[1:] + self.clients[:1], strict=True):
            numbers = set(range(1, len(client.sent_at) + 1))
            heard = set(after.heard)
            report.sent += len(numbers)
            report.closed += client.is_closed
            report.missing += len(numbers - heard)
            report.twice += len(after.heard) - len(heard)
            report.out_of_order += sum(one > other for one, other in zip(after.heard, after.heard[1:], strict=False))
            if client.speaks_v1:
                report.false_ok += len(client.said_ok - heard)
                report.unanswered += len(numbers - client.answered)
                report.unconfirmed += len(numbers - client.confirmed) if after.speaks_v1 else 0
            report.errors += client.answers["error"]
            report.lost += client.answers["lost"]
        return report


@contextlib.contextmanager
def neighbours(
    address: str, port: int, domain: str, number: int, processes: int = 1, period_s: float = 10.0
) -> Iterator[list["subprocess.Popen[str]"]]:
    """So many clients, in some processes; they talk while the block lasts. `reports` ends it."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.soak.neighbours", address, str(port), domain, *map(str, part), str(period_s)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in _parts(number, processes)
    ]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        yield running
    finally:
        for each in running:
            each.kill()
            each.wait()
            for stream in (each.stdin, each.stdout):
                assert stream is not None
                stream.close()


def reports(running: list["subprocess.Popen[str]"]) -> Report:
    """Let them stop. Returns: all that has become of what they have sent."""
    for each in running:
        assert each.stdin is not None
        each.stdin.close()
    sums: dict[str, float] = defaultdict(float)
    slowest = 0.0
    for each in running:
        assert each.stdout is not None
        report = msgspec.json.decode(each.stdout.readline(), type=Report)
        slowest = max(slowest, report.slowest_s)
        for name, count in msgspec.structs.asdict(report).items():
            sums[name] += count
    return msgspec.convert({**{name: round(value) for name, value in sums.items()}, "slowest_s": slowest}, Report)


def _parts(number: int, processes: int) -> Iterator[tuple[int, int]]:
    each = number // processes
    for position in range(processes):
        yield position * each, each if position < processes - 1 else number - position * each


def main(address: str, port: str, domain: str, first: str, number: str, period: str) -> None:
    all_of_them = Neighbours(address, int(port), domain, int(first), int(number), float(period))
    print("ready", flush=True)
    all_of_them.talk()
    all_of_them.finish()
    print(msgspec.json.encode(all_of_them.report()).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
