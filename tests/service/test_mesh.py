"""The wires between the workers of one host, as the kernel carries them."""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import service.core.bus_records as records
from service.core.addresses import Address
from service.workers.mesh import BATCH_BYTES, MAX_BATCH_BYTES, Mesh, MeshError, all_is_read
from tests.service.centers import World
from tests.service.shells import DEADLINE_S
from tests.service.transports import in_a_loop, until

HEAD = struct.Struct("!I")

# What another process does: it connects as the user that it is told, says something, and prints what becomes of it.
SPEAK = """import os, socket, sys
os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
wire = socket.socket(socket.AF_UNIX)
try:
    wire.connect(sys.argv[1])
    wire.sendall(bytes.fromhex(sys.argv[3]))
    wire.settimeout(60)
    print(wire.recv(1))
except OSError as error:
    print(type(error).__name__)
"""


def framed(*texts: bytes) -> bytes:
    return b"".join(HEAD.pack(len(text)) + text for text in texts)


def batches(*encoded: bytes) -> bytes:
    """Each record in a batch of its own."""
    return framed(*(records.batch([record]) for record in encoded))


class Meeting:
    """One worker in this process, under a number that it cannot have, and another one of bare sockets.

    The kernel says that the other one is this process, so there can be only one.
    """

    def __init__(self, directory: Path) -> None:
        self.world = World(bus=str(directory))
        self.mesh = Mesh(self.world.center)
        self.path = directory / f"{os.getpid()}.sock"
        self.opened: asyncio.Future[None]
        self._directory = directory
        self._open = contextlib.ExitStack()

    def listen(self) -> socket.socket:
        """What the worker connects to."""
        listener = self._open.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.path))
        listener.listen()
        listener.setblocking(False)
        return listener

    def connect(self) -> socket.socket:
        """A stream on which the other worker speaks."""
        wire = self._open.enter_context(socket.socket(socket.AF_UNIX))
        wire.connect(str(self._directory / f"{self.mesh.number}.sock"))
        wire.setblocking(False)
        return wire

    async def meet(self) -> socket.socket:
        """The stream on which the other worker speaks; both know each other."""
        self.listen()
        wire = self.connect()
        await until(lambda: self.mesh.bus.peers and self.mesh._incoming)
        return wire

    async def say(self, wire: socket.socket, *texts: bytes) -> None:
        """Send records."""
        await asyncio.get_running_loop().sock_sendall(wire, batches(*texts))

    def has(self, address: str) -> bool:
        """Whether the worker knows who has an address."""
        return self.world.center.hub.owner_of(Address(address)) is not None

    async def close(self) -> None:
        """Let both end."""
        await self.mesh.close()
        self._open.close()


async def heard_batch(wire: socket.socket) -> bytes:
    """The next batch that the worker sends."""
    loop = asyncio.get_running_loop()

    async def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await asyncio.wait_for(loop.sock_recv(wire, size - len(data)), DEADLINE_S)
        return data

    return await exactly(*HEAD.unpack(await exactly(HEAD.size)))


async def ended(wire: socket.socket) -> bool:
    """Wait until the worker has closed a stream."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(wire, 1), DEADLINE_S) == b""
    except ConnectionResetError:
        return True


@contextlib.asynccontextmanager
async def meeting(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Meeting]:
    both = Meeting(directory)
    with monkeypatch.context() as patch:
        patch.setattr("service.workers.mesh.os.getpid", lambda: 1)
        await both.mesh.open()
    try:
        yield both
    finally:
        await both.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def came(address: str) -> bytes:
    return records.encode(records.Came(Address(address), None))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "bus"


@in_a_loop
async def test_what_the_others_were_told_is_read_when_they_have_read_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(directory, monkeypatch) as both:
        listener = both.listen()
        both.connect()
        await until(lambda: both.mesh.bus.peers and both.mesh._incoming)
        reading, _ = listener.accept()
        with reading:
            for size in (1, 1_000_000):  # the second one does not go in one write
                both.mesh.bus.tell_all(records.Came(Address("x" * size), None))
                waiting = asyncio.create_task(all_is_read(both.mesh.bus))
                await asyncio.sleep(0.02)
                assert not waiting.done()
                while not waiting.done():
                    with contextlib.suppress(BlockingIOError):
                        reading.setblocking(False)
                        reading.recv(65536)
                    await asyncio.sleep(0.0005)
                await waiting
                with pytest.raises(BlockingIOError):
                    reading.recv(1)
            monkeypatch.setattr("service.workers.mesh.READING_S", 0.01)
            both.mesh.bus.tell_all(records.Came(Address("nobody reads it"), None))
            await asyncio.wait_for(all_is_read(both.mesh.bus), DEADLINE_S)
            reading.recv(1)
        await all_is_read(World().center.hub.bus)  # there are no others


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 1000])
@in_a_loop
async def test_records_arrive_wherever_they_are_cut(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    async with meeting(directory, monkeypatch) as both:
        await both.meet()
        (incoming,) = both.mesh._incoming.values()
        encoded = [came(f"client {number}") for number in range(5)]
        data = batches(*encoded[:2]) + framed(records.batch(encoded[2:]))
        for at in range(0, len(data), step):
            incoming.data_received(data[at : at + step])
        assert all(both.has(f"client {number}") for number in range(5))


@in_a_loop
async def test_the_records_of_a_turn_leave_in_one_batch_and_many_in_several_that_are_not_long(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(directory, monkeypatch) as both:
        listener, _ = both.listen(), both.connect()
        heard, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), DEADLINE_S)
        with heard:
            await until(lambda: both.mesh.bus.peers)
            await heard_batch(heard)  # of the meeting
            (outgoing,) = both.mesh._outgoing.values()
            few, many = [came(f"client {number}") for number in range(3)], [came(100 * "x")] * 2000
            for record in few:
                outgoing.send(record)
            assert await heard_batch(heard) == records.batch(few)
            for record in many:
                outgoing.send(record)
            batch, size = [], 0
            while size < sum(map(len, many)):
                batch.append(await heard_batch(heard))
                size += sum(len(records.encode(record)) for record in records.decode_batch(batch[-1]))
            assert len(batch) > 1
            assert max(map(len, batch)) < BATCH_BYTES + 2 * len(many[0])


@in_a_loop
async def test_what_came_before_there_was_a_way_to_answer_is_heard(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(directory, monkeypatch) as both:
        both.listen()
        wire = both.connect()
        wire.send(batches(came("alice")))
        await until(lambda: both.has("alice"))


@contextlib.asynccontextmanager
async def opening(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Meeting, socket.socket]]:
    """One that is about to join another worker, and the stream on which that one hears it."""
    os.mkdir(directory, 0o700)
    both = Meeting(directory)
    listener = both.listen()
    monkeypatch.setattr("service.workers.mesh.os.getpid", lambda: 1)
    both.opened = asyncio.create_task(both.mesh.open())
    wire, _ = await asyncio.get_running_loop().sock_accept(listener)
    try:
        with wire:
            yield both, wire
            await asyncio.wait_for(both.opened, DEADLINE_S)
    finally:
        await both.close()


@in_a_loop
async def test_a_new_worker_has_no_clients_before_it_knows_what_the_others_have(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening(directory, monkeypatch) as (both, _):
        wire = both.connect()
        await both.say(wire, came("alice"))
        await until(lambda: both.has("alice"))
        await asyncio.sleep(0.05)
        assert not both.opened.done()
        await both.say(wire, records.encode(records.Told()))


@in_a_loop
async def test_a_new_worker_waits_for_none_that_ends(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opening(directory, monkeypatch) as (_, wire):
        wire.close()


@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (HEAD.pack(MAX_BATCH_BYTES + 1), "a batch is too long"),
        (framed(b"garbage"), "Expected"),
        (framed(b""), "truncated"),
        (batches(records.encode(records.Text(b"no JSON", Address("a"), 0))), "JSON"),
    ],
)
@in_a_loop
async def test_what_cannot_be_understood_ends_the_link_and_nothing_else(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    garbage: bytes,
    complaint: str,
) -> None:
    async with meeting(directory, monkeypatch) as both:
        here = both.world.v0()
        wire = await both.meet()
        await both.say(wire, came("alice"))
        await until(lambda: both.has("alice"))
        wire.send(garbage)
        assert await ended(wire)
        assert complaint in caplog.text
        assert not both.has("alice")
        here.say(recipient_uuid=here.session.addresses[0], message=1)
        assert len(here.heard()) == 1


@in_a_loop
async def test_after_a_broken_link_the_other_worker_is_looked_for_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(directory, monkeypatch) as both:
        wire = await both.meet()
        await both.say(wire, b"garbage")
        assert await ended(wire)
        await until(lambda: both.mesh.bus.peers)
        await both.say(both.connect(), came("alice"))
        await until(lambda: both.has("alice"))


@in_a_loop
async def test_a_worker_that_connects_again_is_known_by_its_new_link(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(directory, monkeypatch) as both:
        old = await both.meet()
        await both.say(old, came("alice"))
        await until(lambda: both.has("alice"))
        await both.say(both.connect(), came("bob"))
        assert await ended(old)
        await until(lambda: both.has("bob"))
        assert not both.has("alice")


@in_a_loop
async def test_a_process_that_cannot_be_answered_is_let_go(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(directory, monkeypatch) as both:
        assert await ended(both.connect())
        assert not both.mesh._incoming


async def _speak(directory: Path, mesh: Mesh, user: int, text: bytes) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SPEAK, str(directory / f"{mesh.number}.sock"), str(user), text.hex()),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return output.decode().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@in_a_loop
async def test_another_user_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "bus"
    async with meeting(directory, monkeypatch) as both:
        assert await _speak(directory, both.mesh, 65534, b"") == "PermissionError"
        # Even where somebody has opened the directory and the socket to everybody.
        for path in (*reversed(directory.parents), directory, directory / f"{both.mesh.number}.sock"):
            if path.stat().st_uid == os.geteuid() and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o777)
        assert await _speak(directory, both.mesh, 65534, batches(came("alice"))) in (
            "b''",
            "ConnectionResetError",
            "BrokenPipeError",
        )
        assert "user 65534" in caplog.text
        assert not both.has("alice")


def fault(directory: Path) -> str:
    async def open_it() -> None:
        await Mesh(World(bus=str(directory)).center).open()

    with pytest.raises(MeshError) as raised:
        asyncio.run(open_it())
    return str(raised.value)


def test_a_directory_that_others_may_use_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o750)
    assert f"{directory}: others may write there; give it mode 0700" in fault(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    assert "the service's user as its owner" in fault(directory)


def test_a_directory_that_cannot_be_made_is_told(directory: Path) -> None:
    assert "make its parent directory" in fault(directory / "below")


def test_a_file_in_its_place_is_told(directory: Path) -> None:
    directory.write_text("")
    assert str(directory) in fault(directory)


@in_a_loop
async def test_only_the_user_of_the_service_may_connect(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(directory, monkeypatch) as both:
        assert mode(directory / f"{both.mesh.number}.sock") == 0o600
        assert mode(directory) == 0o700


@in_a_loop
async def test_what_a_killed_worker_left_is_removed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(directory, 0o700)
    for left in ("99999999.sock", "no number.sock"):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(directory / left))
    async with meeting(directory, monkeypatch):
        assert sorted(os.listdir(directory)) == ["1.sock", "no number.sock"]


@in_a_loop
async def test_a_worker_that_leaves_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with meeting(directory, monkeypatch) as both:
        listener, wire = both.listen(), both.connect()
        heard, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), DEADLINE_S)
        await until(lambda: both.mesh.bus.peers)
        client = both.world.v0()
        await both.mesh.close()
        assert await ended(wire)
        assert not (directory / "1.sock").exists()
        with heard:  # what it had to say at last
            assert client.session.addresses[0].encode() in heard.recv(1000)


@in_a_loop
async def test_without_a_directory_a_worker_is_alone() -> None:
    mesh = Mesh(World().center)
    await mesh.open()
    await mesh.close()


@pytest.mark.parametrize(("takes_s", "is_at_once"), [(0.0, True), (0.1, False)])
@in_a_loop
async def test_a_worker_tells_the_others_what_is_new_as_often_as_that_costs_little(
    directory: Path, monkeypatch: pytest.MonkeyPatch, takes_s: float, is_at_once: bool
) -> None:
    monkeypatch.setattr("service.workers.mesh.TELL_S", 0.01)
    async with meeting(directory, monkeypatch) as both:
        told: list[float] = []

        def tell() -> None:
            told.append(asyncio.get_running_loop().time())
            time.sleep(takes_s)

        monkeypatch.setattr(both.mesh.bus, "tell_what_is_new", tell)
        if is_at_once:
            await until(lambda: len(told) > 1)
        else:
            await until(lambda: told)
            await asyncio.sleep(0.2)
            assert len(told) == 1  # it waits for 20 s
