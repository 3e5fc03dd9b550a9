"""Workers that share a listener share the clients."""

import asyncio
import errno
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from service.workers import acceptor
from service.workers.acceptor import AT_ONCE, PAUSE_S
from service.workers.shares import FEW, has_its_share, share_listeners
from tests.service.centers import World
from tests.service.processes import Processes
from tests.service.shells import COMMANDS, HANDSHAKE, Shell, running, wait_until
from tests.service.transports import in_a_loop

CLIENTS, WORKERS = 1000, 4


class Others:
    """The bus of a worker among so many, of whom the others have so many clients."""

    def __init__(self, connections: int, workers: int) -> None:
        self.connections = connections
        self.others = range(1, workers)


def test_a_worker_has_its_share_when_it_has_clearly_more_than_the_average() -> None:
    assert not has_its_share(250, Others(750, 4))  # type: ignore[arg-type]
    assert not has_its_share(278, Others(722, 4))  # type: ignore[arg-type]
    assert has_its_share(280, Others(720, 4))  # type: ignore[arg-type]
    assert has_its_share(1000, Others(0, 4))  # type: ignore[arg-type]


def test_a_worker_alone_never_has_its_share() -> None:
    assert not has_its_share(100_000, Others(0, 1))  # type: ignore[arg-type]


class Welcome(asyncio.Protocol):
    """Keeps its connections."""

    made: list[asyncio.BaseTransport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(transport)


class Place:
    """A listener that a worker shares with one other, which has no clients and never comes."""

    def __init__(self) -> None:
        Welcome.made = []
        self.world = World()
        self.world.center.hub.bus = Others(0, 2)  # type: ignore[assignment]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address = self.listener.getsockname()
        self.clients: list[socket.socket] = []

    def connect(self, number: int) -> None:
        self.clients += [socket.create_connection(self.address) for _ in range(number)]

    async def comes_to(self, number: int) -> None:
        """Wait until so many connections were taken."""
        deadline = asyncio.get_running_loop().time() + 5
        while len(Welcome.made) < number:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(PAUSE_S / 5)


@contextmanager
def place() -> Iterator[Place]:
    made = Place()
    with made.listener:
        yield made
    for client in made.clients:
        client.close()
    for transport in Welcome.made:
        transport.close()


async def serve(there: Place) -> asyncio.Server:
    share_listeners(there.world.center)
    server = await asyncio.get_running_loop().create_server(Welcome, sock=there.listener)
    assert server.is_serving()
    return server


@in_a_loop
async def test_what_nobody_else_takes_is_taken_a_moment_later() -> None:
    with place() as there:
        server = await serve(there)
        there.connect(2 * FEW)
        await there.comes_to(2 * FEW)
        began = asyncio.get_running_loop().time()
        there.connect(20)
        await there.comes_to(2 * FEW + 20)
        # The first of them may still be within its share.
        assert asyncio.get_running_loop().time() - began > 10 * PAUSE_S
        server.close()


@in_a_loop
async def test_several_that_wait_are_taken_in_one_turn_and_no_more_than_a_few() -> None:
    with place() as there:
        there.connect(AT_ONCE + 1)
        taken: list[socket.socket] = []
        there.listener = Counting(fileno=there.listener.detach())
        there.listener.taken = taken
        server = await serve(there)
        in_a_turn = []
        while len(taken) < AT_ONCE + 1:
            before = len(taken)
            await asyncio.sleep(0)
            in_a_turn.append(len(taken) - before)
        assert max(in_a_turn) == AT_ONCE
        server.close()


@in_a_loop
async def test_the_share_of_a_worker_is_that_of_all_its_listeners() -> None:
    with place() as there:
        server = await serve(there)
        there.connect(2 * FEW)
        await there.comes_to(2 * FEW)
        with socket.create_server(("127.0.0.1", 0)) as second:
            there.address = second.getsockname()
            other = await asyncio.get_running_loop().create_server(Welcome, sock=second)
            began = asyncio.get_running_loop().time()
            there.connect(20)
            await there.comes_to(2 * FEW + 20)
            assert asyncio.get_running_loop().time() - began >= 10 * PAUSE_S
            other.close()
        server.close()


@in_a_loop
async def test_who_comes_after_the_end_waits_for_somebody_else() -> None:
    with place() as there:
        server = await serve(there)
        with there.listener.dup() as of_another_worker:
            server.close()
            await server.wait_closed()
            assert not server.is_serving()
            there.connect(1)
            await asyncio.sleep(4 * PAUSE_S)
            assert Welcome.made == []
            of_another_worker.accept()[0].close()


class Counting(socket.socket):
    """A listener that notes whom it has let in."""

    taken: list[socket.socket]

    def accept(self) -> tuple[socket.socket, object]:
        connection, address = super().accept()
        self.taken.append(connection)
        return connection, address


class Exhausted(socket.socket):
    """A listener on a host that has no file left, once."""

    is_over = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self.is_over:
            self.is_over = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@in_a_loop
async def test_a_host_without_a_free_file_is_tried_again_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "RETRY_S", 0.05)
    with place() as there:
        there.listener = Exhausted(fileno=there.listener.detach())
        server = await serve(there)
        there.connect(1)
        began = asyncio.get_running_loop().time()
        await there.comes_to(1)
        assert asyncio.get_running_loop().time() - began >= 0.05
        assert "Too many open files" in caplog.text
        server.close()


def sockets_of(pid: str) -> int:
    # Not `readlink`, which raises where one is closed meanwhile.
    return sum("/socket:" in os.path.realpath(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())


def workers_of(shell: Shell) -> list[str]:
    return Path(f"/proc/{shell.process.pid}/task/{shell.process.pid}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["runner", "standalone", "gunicorn"])
def test_no_worker_gets_half_as_many_more_clients_as_the_workers_have_on_average(kind: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CLIENTS), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        bus = f"{stack.enter_context(tempfile.TemporaryDirectory())}/bus"
        command = COMMANDS[kind].replace("gunicorn -k", f"gunicorn -w {WORKERS} -k")
        many = {"WEBSOCKET_MAX_CONNECTIONS": "2000", "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS": "2000"}
        shell = stack.enter_context(running(command, WORKERS=str(WORKERS), WEBSOCKET_BUS=bus, **many))
        # Their streams to each other are among the sockets that are counted.
        Processes(shell, Path(bus), WORKERS).wait()
        wait_until(lambda: shell.get("/health").status == 200)
        before = {worker: sockets_of(worker) for worker in workers_of(shell)}
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", shell.port), timeout=60))
            client.sendall(HANDSHAKE + b"\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
        shares = [sockets_of(worker) - others for worker, others in before.items()]
        assert len(shares) == WORKERS
        assert sum(shares) == pytest.approx(CLIENTS, abs=10)
        assert max(shares) <= 1.5 * CLIENTS / WORKERS
