"""uvicorn's server as we have it: how it listens, and how it stops."""

import asyncio
import socket
import time

import pytest
import uvicorn

from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import RECEIVE_BUFFER_BYTES, DrainingServer
from service.settings import Drain, Settings
from tests.service.centers import World
from tests.service.transports import in_a_loop


async def application(scope: object, receive: object, send: object) -> None:
    """Nobody connects."""


class House:
    """A server that nobody connects to, and a center of clients that never answer."""

    def __init__(self, drain: Drain) -> None:
        self.world = World(drain=drain)
        options = uvicorn_options(Settings(drain=drain))
        config = uvicorn.Config(application, log_config=None, lifespan="off", **options)
        config.load()
        self.server = DrainingServer(config, self.world.center)
        self.server.lifespan = config.lifespan_class(config)
        self.listener = socket.create_server(("127.0.0.1", 0))


@in_a_loop
async def test_what_the_kernel_keeps_of_a_client_is_bounded() -> None:
    house = House(Drain())
    await house.server.startup([house.listener])
    # The kernel adds as much for its own records: socket(7).
    assert house.listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE_BUFFER_BYTES
    await house.server.shutdown([house.listener])


@in_a_loop
async def test_a_server_that_nobody_is_connected_to_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(Drain())
    monkeypatch.setattr("service.fast.uvicorn_server.LAST_HANDSHAKES_S", 0.0)
    await house.server.startup([house.listener])
    began = time.monotonic()
    await house.server.shutdown([house.listener])
    assert time.monotonic() - began < 0.1
    assert house.listener.fileno() == -1


@pytest.mark.slow
@in_a_loop
async def test_the_last_clients_have_what_the_others_have_left_of_the_time() -> None:
    house = House(Drain(timeout=5, window=2, rate=1))
    clients = [house.world.v0().client for _ in range(2)]
    await house.server.startup([house.listener])
    # The world's clock stands still, and each turn is counted from the start: 1 s and 2 s.
    await asyncio.wait_for(house.server.shutdown([house.listener]), 10)
    assert all(client.closed for client in clients)
    assert house.server.config.timeout_graceful_shutdown == 2
