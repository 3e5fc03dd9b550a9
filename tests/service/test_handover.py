"""A client is served on by another process: nothing is lost, doubled or torn, whatever was just under way."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import msgspec
import pytest
import uvloop

from service.core import handover as states
from service.core.admission import Admission
from service.core.frames import SUBPROTOCOL
from service.core.identity import Identity
from service.fast.fast import FastShell
from service.fast.handover import Given, Taking, freeze, leave, settle
from service.fast.passing import _is_alive
from service.settings import Limits
from tests.service.centers import World
from tests.service.shells import DEADLINE_S
from tests.service.transports import first_frame, frame, frames_in, until

CONTINUATION, TEXT, CLOSE, PING, PONG = 0, 1, 8, 9, 10
LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], test: Coroutine[Any, Any, None]) -> None:
    loop = new_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(test, DEADLINE_S))
    finally:
        loop.run_until_complete(everybody_goes())
        loop.close()


async def everybody_goes() -> None:
    for guest in Guest.all:
        guest.connection.close()
    Guest.all.clear()
    for transport in _Opening.transports:
        transport.abort()  # also of one that has left, where the process is to end
    _Opening.transports.clear()
    for _ in range(1000):
        if not any(process.shell.clients for process in Process.all):
            break
        await asyncio.sleep(0.005)
    for process in Process.all:
        if process.shell._ticker._task:
            process.shell._ticker._task.cancel()
    Process.all.clear()
    await asyncio.sleep(0.01)


class Process:
    """A shell, as another process would have one."""

    all: ClassVar[list["Process"]] = []

    def __init__(self, prefix: str, **settings: Any) -> None:
        self.world = World(prefix, number=1 + len(Process.all), **settings)
        self.shell = FastShell(self.world.center, set())
        Process.all.append(self)

    async def connect(self, protocol: str | None = None, identity: Identity | None = None) -> "Guest":
        """A client whose handshake is over."""
        ours, theirs = socket.socketpair()
        opening = _Opening(self.shell, Admission(protocol, identity, "192.0.2.7"))
        ours.setblocking(False)
        await self.shell.loop.connect_accepted_socket(lambda: opening, ours)
        guest = Guest(theirs)
        assert (await guest.hears())[0] == TEXT
        return guest

    async def take(self, given: list[Given]) -> list[bool]:
        taking = Taking(self.shell)
        taken = [await taking.take(each) for each in given]
        taking.finish()
        return taken


class _Opening(asyncio.BufferedProtocol):
    transports: ClassVar[list[Any]] = []

    def __init__(self, shell: FastShell, admission: Admission) -> None:
        self.shell, self.admission = shell, admission

    def connection_made(self, transport: Any) -> None:
        self.transports.append(transport)
        self.shell.open(transport, self.admission, b"", b"")


class Guest:
    """The client's end of a connection."""

    all: ClassVar[list["Guest"]] = []

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setblocking(False)
        self.rest = b""
        Guest.all.append(self)

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.connection, data)

    async def tell(self, **message: Any) -> None:
        await self.say(frame(TEXT, json.dumps(message).encode()))

    async def hears(self) -> tuple[int, bytes]:
        """The next frame."""
        while (found := first_frame(self.rest)) is None:
            data = await asyncio.get_running_loop().sock_recv(self.connection, 65536)
            assert data, "the connection has ended"
            self.rest += data
        opcode, payload, length = found
        self.rest = self.rest[length:]
        return opcode, payload

    async def hears_text(self) -> Any:
        opcode, payload = await self.hears()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def hears_nothing_more(self) -> bool:
        await asyncio.sleep(0.02)
        try:
            self.rest += self.connection.recv(65536)
        except BlockingIOError:
            return not self.rest
        return False


async def give_all(shell: FastShell) -> list[Given]:
    """All clients that can leave; the others go on."""
    frozen = freeze(shell.clients)
    await settle(frozen)
    return leave(frozen)


async def read_by(shell: FastShell, guest: Guest) -> None:
    """Wait until the service has read all that the client has sent."""
    for _ in range(4):
        await asyncio.sleep(0)
    await asyncio.sleep(0.001)


def to(address: str, message: object) -> bytes:
    return json.dumps({"recipient_uuid": address, "message": message}).encode()


LARGE = Limits(message_size=400_000)
STREAM = b"".join(
    [
        frame(TEXT, to("me", "connected")),
        frame(PING, b"are you there?"),
        frame(TEXT, to("me", "x" * 200)),
        frame(TEXT, to("me", "in")[:10], fin=False),
        frame(PING, b"between"),
        frame(CONTINUATION, b"", fin=False),
        frame(CONTINUATION, to("me", "in")[10:]),
        frame(TEXT, to("me", "last")),
    ]
)
ANSWERS = [
    (PONG, b"are you there?"),
    (TEXT, to("me", "x" * 200)),
    (PONG, b"between"),
    (TEXT, to("me", "in")),
    (TEXT, to("me", "last")),
]


@pytest.mark.slow
@LOOPS
def test_a_stream_that_is_cut_at_any_byte_goes_on_there(new_loop: Any) -> None:
    async def cut_all() -> None:
        new = Process("new-")
        for cut in range(len(STREAM) + 1):
            old = Process("old-")
            guest = await old.connect()
            await guest.say(STREAM[:cut])
            await read_by(old.shell, guest)
            given = await give_all(old.shell)
            assert await new.take(given) == [True], cut
            await guest.say(STREAM[cut:])
            assert [await guest.hears() for _ in ANSWERS] == ANSWERS, cut
            guest.connection.close()
            for _ in range(2000):
                if not new.shell.clients:
                    break
                await asyncio.sleep(0.001)
            assert not old.shell.clients
            assert not old.world.center.hub.members

    run(new_loop, cut_all())


@LOOPS
@pytest.mark.parametrize("length", [1785, 1786, 1787, 5000, 70_000, 300_000])
def test_a_long_frame_that_is_cut_anywhere_goes_on_there(new_loop: Any, length: int) -> None:
    async def cut() -> None:
        new = Process("new-", limits=LARGE)
        text = to("me", "y" * (length - len(to("me", ""))))
        stream = frame(TEXT, to("me", "connected")) + frame(TEXT, text) + frame(PING, b"behind")
        head = len(stream) - length
        for at in {*range(head - 40, head), head + length // 2, len(stream) - 30, *range(1770, 1800), 3584, 3583, 3585}:
            old = Process("old-", limits=LARGE)
            guest = await old.connect()
            await guest.say(stream[: max(0, at)])
            await read_by(old.shell, guest)
            await asyncio.sleep(0.01 if length > 5000 else 0)
            assert await new.take(await give_all(old.shell)) == [True]
            await guest.say(stream[max(0, at) :])
            assert await guest.hears() == (TEXT, text)
            assert await guest.hears() == (PONG, b"behind")
            guest.connection.close()

    run(new_loop, cut())


@LOOPS
def test_what_a_client_has_not_taken_yet_comes_after_that_and_once(new_loop: Any) -> None:
    async def go_on() -> None:
        old, new = Process("old-"), Process("new-")
        sent = []
        slow, sender = await old.connect(), await old.connect()
        await slow.say(frame(TEXT, to("slow", "connected")))
        await read_by(old.shell, slow)
        for number in range(150):
            sent.append(to("slow", f"{number:05} " + "z" * (number * 37 % 5000)))
            await sender.say(frame(TEXT, sent[-1]))
        await until(lambda: old.world.center.hub.tally.routed == len(sent))  # else it would find nobody there
        transports = [client.transport for client in old.shell.clients]
        assert any(transport.get_write_buffer_size() for transport in transports)
        assert await new.take(await give_all(old.shell)) == [True, True]
        sent.append(to("slow", "after"))
        await sender.say(frame(TEXT, sent[-1]))
        assert [await slow.hears() for _ in sent] == [(TEXT, text) for text in sent]
        assert await slow.hears_nothing_more()

    run(new_loop, go_on())


@LOOPS
def test_what_is_sent_in_the_turn_in_which_a_client_leaves_arrives_once_and_is_known_to_have_left(
    new_loop: Any,
) -> None:
    async def go_on() -> None:
        old, new = Process("old-"), Process("new-")
        guest = await old.connect()
        (client,) = old.shell.clients
        verdicts: list[bool] = []
        (frozen,) = freeze([client])
        client.send(b"last")
        client.when_left(verdicts.append)
        given = leave([frozen])
        assert verdicts == [True]
        await asyncio.sleep(0.01)
        assert await new.take(given) == [True]
        await guest.say(frame(PING, b"behind"))
        assert [await guest.hears(), await guest.hears()] == [(TEXT, b"last"), (PONG, b"behind")]
        assert await guest.hears_nothing_more()

    run(new_loop, go_on())


@LOOPS
def test_one_whose_queue_runs_over_in_the_turn_in_which_it_leaves_is_closed_and_the_others_leave(new_loop: Any) -> None:
    async def go_on() -> None:
        old, new = Process("old-", limits=Limits(queue=65536)), Process("new-")
        slow = await old.connect()
        (client,) = old.shell.clients
        other = await old.connect()
        while client.transport.get_write_buffer_size() < 60_000:
            client.send(b"z" * 2000)
            await asyncio.sleep(0)
        frozen = freeze([client, *(old.shell.clients - {client})])
        for _ in range(10):
            client.send(b"y" * 1000)
        assert await new.take(leave(frozen)) == [True]
        await other.say(frame(PING, b"still here"))
        assert await other.hears() == (PONG, b"still here")
        while (found := await slow.hears())[0] == TEXT:
            pass
        assert found == (CLOSE, struct.pack("!H", 4101) + b"slow consumer")

    run(new_loop, go_on())


@LOOPS
def test_one_that_is_read_no_further_leaves_though_somebody_asks_again_and_again_whether_it_is_alive(
    new_loop: Any,
) -> None:
    async def go_on() -> None:
        old, new = Process("old-"), Process("new-")
        guest = await old.connect()
        (client,) = freeze(old.shell.clients)
        verdicts: list[bool] = []
        for _ in range(2):
            client.session.probe(client.session.temporary, False, verdicts.append)
        assert not client.may_leave
        client.session.answer_probes()
        assert verdicts == [True, True]
        assert await new.take(leave([client])) == [True]
        await guest.say(frame(PING, b"still here"))
        assert await guest.hears() == (PONG, b"still here")

    run(new_loop, go_on())


def test_a_process_of_another_user_or_none_is_not_a_worker_that_is_alive() -> None:
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            os._exit(1 if any(map(_is_alive, ("1", "x", "", str(os.getpid())))) else 0)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _is_alive(str(os.getppid())) or os.geteuid() != 0


@LOOPS
def test_all_that_a_client_of_nc_v1_has_comes_along(new_loop: Any) -> None:
    async def go_on() -> None:
        old, new = Process("old-"), Process("new-")
        ann, bob = await old.connect(SUBPROTOCOL), await old.connect(SUBPROTOCOL)
        for guest, name in ((ann, "ann"), (bob, "bob")):
            await guest.tell(type="hello", id=1, uuid=name)
            resume = (await guest.hears_text())["resume"]
            await guest.tell(type="join", id=2, group="all")
            await guest.hears_text()
        await ann.tell(type="presence", id=3, uuids=["bob", "eve"], watch=True)
        assert (await ann.hears_text())["online"] == ["bob"]
        await ann.tell(type="send", id=4, recipient_uuid="bob", message="confirm me", ack="delivered")
        key = (await bob.hears_text())["key"]
        assert (await ann.hears_text())["receipts"] == 1

        assert await new.take(await give_all(old.shell)) == [True, True]
        center = new.world.center
        assert center.connections_of == {"192.0.2.7": 2}
        assert len(center.hub.members_of("all")) == 2
        await bob.tell(type="ack", key=key)
        assert await ann.hears_text() == {"type": "delivered", "id": 4, "recipient_uuid": "bob"}
        await ann.tell(type="send", id=5, group="all", message="hello all", ack="delivered")
        again = await bob.hears_text()
        assert again["message"] == "hello all"
        assert again["key"] > key
        assert (await ann.hears_text())["receipts"] == 1
        eve = await new.connect(SUBPROTOCOL)
        await eve.tell(type="hello", id=1, uuid="eve")
        assert await ann.hears_text() == {"type": "presence", "uuid": "eve", "state": "online"}
        # The secret still proves that it is the same client, on another connection.
        bob_again = await new.connect(SUBPROTOCOL)
        await bob_again.tell(type="hello", id=1, uuid="bob", resume=resume)
        assert (await bob_again.hears_text())["uuid"] == "bob"

    run(new_loop, go_on())


@LOOPS
def test_a_client_hears_who_was_lost_on_the_way(new_loop: Any) -> None:
    async def lose_one() -> None:
        old, new = Process("old-"), Process("new-")
        ann, bob = await old.connect(SUBPROTOCOL), await old.connect()
        await ann.tell(type="hello", id=1, uuid="ann")
        await ann.hears_text()
        await bob.say(frame(TEXT, to("bob", "connected")))
        await ann.tell(type="presence", id=2, uuids=["bob"], watch=True)
        assert (await ann.hears_text())["online"] == ["bob"]
        given = await give_all(old.shell)
        states_of = {states.unseal(each.state).session.protocol: each for each in given}
        assert await new.take([states_of[SUBPROTOCOL]]) == [True]
        assert await ann.hears_text() == {"type": "presence", "uuid": "bob", "state": "offline"}
        states_of["v0"].connection.close()

    run(new_loop, lose_one())


@LOOPS
def test_budgets_and_what_waits_for_them_come_along(new_loop: Any) -> None:
    async def go_on() -> None:
        limits = Limits(messages_per_second=20)
        old, new = Process("old-", limits=limits), Process("new-", limits=limits)
        for process in (old, new):
            process.world.center.clock = process.shell.loop.time
        began = new.shell.loop.time()
        guest = await old.connect()
        await guest.say(frame(TEXT, to("me", "connected")))
        texts = [to("me", number) for number in range(30)]
        await guest.say(b"".join(frame(TEXT, text) for text in texts))
        await asyncio.sleep(0.05)
        assert await new.take(await give_all(old.shell)) == [True]
        assert [await guest.hears() for _ in texts] == [(TEXT, text) for text in texts]
        assert new.shell.loop.time() - began >= 0.5  # of 31 messages 20 at once, and 20 in each second

    run(new_loop, go_on())


def _state(**changes: Any) -> bytes:
    session = states.SessionState("v0", [("temporary", 0.0)], None, None, 0.0, 1.0, 1.0, 0.0, None)  # type: ignore[list-item]
    stream = states.StreamState(b"", None, b"", None, 0.0, 0)
    state = states.ClientState(session, stream)
    for path, value in changes.items():
        part, _, name = path.partition("__")
        setattr(getattr(state, part), name, value)
    return states.seal(state, b"\x81\x04last")


ODD = [
    b"",
    b"\xc1",
    msgspec.msgpack.encode([states.VERSION, b"\x81\x04last", [1, 2, 3]]),
    _state(session__addresses=[]),
    _state(stream__kept=b"\x81\xff\xff\xff\xffx"),
    _state(stream__kept=b"\x87\x00\x00\x00\x00"),
    _state(stream__pings=-1),
    _state(session__protocol="nc.v9"),
]


@pytest.mark.parametrize("state", ODD, ids=range(len(ODD)))
def test_what_is_not_understood_is_closed_and_harms_nobody(state: bytes) -> None:
    async def take() -> None:
        new = Process("new-")
        ours, theirs = socket.socketpair()
        assert await new.take([Given(state, ours)]) == [False]
        assert not new.shell.clients
        assert not new.world.center.hub.members
        assert not new.world.center.connections_of
        theirs.setblocking(False)
        while await asyncio.get_running_loop().sock_recv(theirs, 4096):
            pass
        theirs.close()

    run(uvloop.new_event_loop, take())


def test_the_state_of_another_release_is_closed_with_1012_behind_what_was_under_way() -> None:
    async def take() -> None:
        new = Process("new-")
        ours, theirs = socket.socketpair()
        state = msgspec.msgpack.encode([states.VERSION + 1, b"\x81\x04last", {"what": "ever"}])
        assert await new.take([Given(state, ours)]) == [False]
        (text, close) = frames_in(theirs.recv(4096))
        assert text == (TEXT, b"last")
        assert close == (CLOSE, struct.pack("!H", 1012) + b"service restart")
        assert theirs.recv(1) == b""
        theirs.close()

    run(uvloop.new_event_loop, take())


def test_a_client_without_a_token_is_not_served_on_where_one_is_asked_for() -> None:
    async def take() -> None:
        old, new = Process("old-"), Process("new-", auth="token")
        guest = await old.connect()
        assert await new.take(await give_all(old.shell)) == [False]
        opcode, payload = await guest.hears()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 4001))

    run(uvloop.new_event_loop, take())


@LOOPS
def test_a_client_that_is_just_going_or_has_something_under_way_stays(
    new_loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.fast.fast.PROBE_TIMEOUT_S", DEADLINE_S)

    async def stay() -> None:
        old = Process("old-")
        ann = await old.connect(SUBPROTOCOL)
        bob = await old.connect(SUBPROTOCOL)
        await ann.tell(type="hello", id=1, uuid="ann")
        await ann.hears_text()
        for client in old.shell.clients:
            client.session._in_flight = 1  # a message of each is on its way to a disk
        assert await give_all(old.shell) == []
        assert len(old.shell.clients) == 2
        # And both are served on as before: Bob asks for the address of Ann, who is asked whether she is alive.
        await bob.tell(type="hello", id=1, uuid="ann")
        await read_by(old.shell, bob)
        opcode, payload = await ann.hears()
        assert opcode == PING
        await ann.say(frame(PONG, payload))
        assert (await bob.hears_text())["code"] == 113

    run(new_loop, stay())
