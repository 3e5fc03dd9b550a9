"""What must hold whatever bytes come, as functions from bytes to nothing that raise when it does not.

`make fuzz` lets atheris search for bytes that break one; `make test` tries the corpus, and what hypothesis draws.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from service.core.identity import TokenError
from service.core.plain_http import Answer
from service.fast.handshake import HandshakeError, read_handshake
from service.mint import add_key, mint
from service.tokens import Keys
from service.web.publish import PREFIX, Publisher, Request
from tests.service.centers import World, identity, limits
from tests.service.test_fast import Site
from tests.service.test_front import House
from tests.service.transports import FakeTransport, frames_in

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
INTERNAL_ERROR = 1011

_loop = asyncio.new_event_loop()


class FaultError(AssertionError):
    """Something happened that nobody's bytes may cause."""


def _faults_of_the_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _faults.append(context)


_faults: list[dict[str, Any]] = []
_loop.set_exception_handler(_faults_of_the_loop)


def _in_the_loop(act: Callable[[], Iterator[None]]) -> None:
    """Run a generator in a loop, which has a turn at each `yield`."""

    async def run() -> None:
        for _ in act():
            await asyncio.sleep(0)

    _loop.run_until_complete(run())
    if _faults:
        raise FaultError(_faults.pop())


def check_frames(data: bytes) -> None:
    """What a server may send: whole frames that are sound, and nothing after a close frame."""
    is_closed = False
    for opcode, payload in frames_in(data):
        if is_closed:
            raise FaultError("a frame after the close frame")
        if opcode == TEXT:
            payload.decode()
        elif opcode == CLOSE:
            is_closed = True
            if int.from_bytes(payload[:2], "big") == INTERNAL_ERROR and payload[2:] == b"internal error":
                raise FaultError("an exception in the service")
            payload[2:].decode()
        if opcode not in (TEXT, CLOSE, PING, PONG) or (opcode != TEXT and len(payload) > 125):
            raise FaultError(f"a frame of type {opcode} with {len(payload)} bytes")


def deliver(transport: FakeTransport, data: bytes, size: int) -> Iterator[None]:
    """Hand over what has come, in segments of a size."""
    for begin in range(0, len(data), size):
        transport.deliver(data[begin : begin + size])
        yield


def frames(data: bytes) -> None:
    """What follows a handshake: frames of a client, or none, in segments whose size is the first byte."""

    def act() -> Iterator[None]:
        site = Site(limits=limits(message_size=1024))
        alice, mallory = site.connect(), site.connect()
        yield
        yield from deliver(mallory.transport, data[1:], 1 + 4 * (data[0] if data else 0))
        check_frames(b"".join(mallory.transport.writes).removeprefix(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))
        check_frames(b"".join(alice.transport.writes).removeprefix(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))
        if alice.transport.done:
            raise FaultError("somebody else was disconnected")
        for guest in (mallory, alice):
            guest.lose()
        yield
        if kept := site.world.keeps() or list(site.connections) or list(site.shell.clients):
            raise FaultError(f"{kept} is kept of who has left")

    _in_the_loop(act)


def connection(data: bytes) -> None:
    """All that a client can send from the beginning: heads of requests, and frames."""

    def act() -> Iterator[None]:
        house = House(limits=limits(message_size=1024))
        transport = house.knock()
        yield from deliver(transport, data[1:], 1 + 4 * (data[0] if data else 0))
        yield
        written = b"".join(transport.writes)
        if written.startswith(b"HTTP/1.1 101 "):
            check_frames(written.partition(b"\r\n\r\n")[2])
        elif written and not written.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 503 ")):
            raise FaultError(written[:100])
        transport.protocol.connection_lost(None)
        yield
        if house.addresses() or house.app.center.connections:
            raise FaultError("something is kept of who has left")

    _in_the_loop(act)


def handshake(data: bytes) -> None:
    """The head of one request."""
    with contextlib.suppress(HandshakeError):
        upgrade = read_handshake(data)
        if upgrade is not None:
            upgrade.accept(None)


def messages(data: bytes) -> None:
    """Messages of both versions, one in each line; the first byte of a line says whose it is."""
    world = World(auth="token", limits=limits(registrations=2))
    world.tokens = {"t": identity("a", "*"), "u": identity("b", "a", "group:g")}
    parties = [world.v1(identity=world.tokens["t"]), world.v1(), world.v0(world.tokens["u"])]
    for line in data.split(b"\n"):
        party = parties[line[0] % len(parties)] if line else parties[0]
        if not party.client.closed:
            party.session.receive_binary(line[1:])
        while any(other.client.probes for other in parties):
            next(other for other in parties if other.client.probes).answer_probe(alive=True)
    world.passes(1.0)
    for party in parties:
        party.heard()  # JSON, all of it
        party.session.end()
    if kept := world.keeps():
        raise FaultError(f"{kept} is kept of who has left")


def publication(data: bytes) -> None:
    """A request to publish: a line each for path, type, key and length, then the body."""
    world = World()
    world.tokens["t"] = identity("script", "*")
    alice = world.v0()
    path, kind, key, length, body = (data.split(b"\n", 4) + [b""] * 5)[:5]
    fields = {"content-type": [kind.decode("latin-1")], "authorization": ["Bearer t"]}
    if key:
        fields["idempotency-key"] = [key.decode("latin-1")]
    if length.isdigit():  # no server hands on another
        fields["content-length"] = [length.decode()]
    publisher = Publisher(world.center)
    permit = publisher.admit(Request("POST", PREFIX + path.decode("utf-8", "replace"), fields))
    answers: list[Answer] = []
    if isinstance(permit, Answer):
        answers.append(permit)
    else:
        publisher.publish(permit, body, answers.append)
        publisher.publish(permit, body, answers.append)
        if len(answers) != 2:
            raise FaultError("not every publication was answered")
    for answer in answers:
        publisher.count(answer)
        if not 200 <= answer.status < 500:
            raise FaultError(answer)
        json.dumps(dict(answer.headers))
    alice.heard()


class _Tokens:
    """A file of keys, and a token that is sound."""

    def __init__(self) -> None:
        path = CORPUS.parent.parent.parent / "build" / "_fuzz" / "keys.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        add_key(str(path), "HS256")
        add_key(str(path), "EdDSA")
        self.sound = mint(str(path), "alice", 3600, [])
        self.verify = Keys(str(path))
        self.verify.load()


_tokens: list[_Tokens] = []


def token(data: bytes) -> None:
    """A token: none that somebody makes up proves anything."""
    if not _tokens:
        _tokens.append(_Tokens())
    text = data.decode("latin-1")
    try:
        bearer = _tokens[0].verify(text)
    except TokenError:
        return
    if text != _tokens[0].sound:
        raise FaultError(f"{bearer} was believed")


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (frames, connection, handshake, messages, publication, token)
}


def seeds(target: str) -> dict[str, bytes]:
    """Inputs that are known to be of interest, by name."""
    return {file.name: file.read_bytes() for file in sorted((CORPUS / target).iterdir())}
