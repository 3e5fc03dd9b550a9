"""A worker that answers too late serves none of the clients that were passed to it."""

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

import service.core.bus_records as records
from service.core.bus import PeerBus
from service.fast import passing
from service.fast.passing import Door, _read
from tests.service.test_handover import CLOSE, LOOPS, TEXT, Process, read_by, run, to
from tests.service.transports import frame


class Answering:
    """The way to another worker, which has nothing on its way to anybody."""

    queued = 0

    def __init__(self, bus: PeerBus) -> None:
        self.bus = bus

    def send(self, record: bytes) -> None:
        said = records.decode(record)
        if isinstance(said, records.Moves):
            peer, answer = self.bus.peers["2"], records.Fenced(said.number, self.bus.number)
            asyncio.get_running_loop().call_soon(self.bus.act, peer, answer)


@LOOPS
def test_clients_of_a_worker_that_does_not_answer_in_time_have_no_two_servers(
    new_loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "PATIENCE_S", 0.1)

    async def pass_on() -> None:
        old, new = Process("old-"), Process("new-")
        bus = old.world.center.hub.bus = PeerBus(old.world.center, "1")
        bus.meet("2", Answering(bus))
        guest = await old.connect()
        await guest.say(frame(TEXT, to("me", "connected")))
        await read_by(old.shell, guest)
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(str(tmp_path / "2-0.clients"))
            listener.listen()
            listener.setblocking(False)
            door = Door(old.shell, bus, tmp_path, 0)
            passed = asyncio.create_task(door.pass_on())
            connection, _ = await old.shell.loop.sock_accept(listener)
            with connection:
                given = await _read(old.shell.loop, connection)
                assert given is not None
                assert await passed == 0
                assert not old.shell.clients
                await new.take(given)
        assert await guest.hears() == (CLOSE, struct.pack("!H", 1012) + b"service restart")
        for _ in range(1000):
            if not new.shell.clients:
                break
            await asyncio.sleep(0.005)
        assert not new.shell.clients
        assert not new.world.center.hub.members
        door.close()

    run(new_loop, pass_on())
