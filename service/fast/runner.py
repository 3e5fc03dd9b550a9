"""The notification center under our runner."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from service.app import create_app
from service.core.bus import PeerBus
from service.core.center import Center
from service.fast.fast import FastShell
from service.fast.front import Reception
from service.fast.passing import Door
from service.fast.restart import can_keep, followers_in, keep_clients, take_clients_back
from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import ANSWERS_S, DrainingServer
from service.process.descriptor_store import StoredSet
from service.process.listen import BACKLOG
from service.process.notify import Notifier
from service.process.stops import end
from service.runner import InformingServer
from service.settings import Settings
from service.workers.manager import PASS_ON, STOP_MARGIN_S
from service.workers.release import RELEASE_VARIABLE

logger = logging.getLogger(__name__)

# It imports uvloop, if that is there; uvicorn would later, in each of the workers that are forked from here.
auto_loop_factory()


class Server(InformingServer, DrainingServer):
    """Keeps its clients over a restart, sends them away one after another before a stop, and informs the manager."""

    def __init__(self, config: uvicorn.Config, center: Center, stored: Sequence[StoredSet]) -> None:
        """`stored` are clients of a process before this one."""
        DrainingServer.__init__(self, config, center)
        self._stored = stored
        self._stop_signal: int = signal.SIGTERM
        self._door: Door | None = None

    def status(self) -> str:
        return self._center.status()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._stop_signal = sig
        super().handle_exit(sig, frame)

    @property
    def is_restart(self) -> bool:
        """Whether another process is to follow at once."""
        return self._stop_signal == signal.SIGINT  # `RestartKillSignal=` of the unit

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        signal.signal(PASS_ON, self.handle_exit)
        with super().capture_signals():
            yield

    @property
    def _shell(self) -> FastShell:
        reception = cast(Reception, self.config.http_protocol_class)
        return reception.open_shell(self.config, self.server_state, self.lifespan.state)

    async def take_clients_back(self) -> None:
        """Serve those that a process before this one has left. To be called before anybody else can connect."""
        settings, bus = self._center.settings, self._center.hub.bus
        if settings.drain.keep and isinstance(bus, PeerBus) and settings.bus:
            release = int(os.environ.get(RELEASE_VARIABLE, "0"))
            door = Door(self._shell, bus, Path(settings.bus), release)
            try:
                door.open()
                self._door = door
            except OSError as error:  # no reason to serve nobody, nor to lose those that have been stored
                door.close()
                logger.error("no clients can pass to or from this worker at a reload: %s: %s", settings.bus, error)
        if self._stored:
            await take_clients_back(self._shell, self._stored, Notifier(os.environ), os.environ)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.is_restart:
            end(0)  # at once, and without closing the loop, which takes its time: clients wait for the next process

    async def let_clients_stay(self) -> None:
        if self._door is not None:
            self._door.close()
        keeps = self.is_restart and self._center.settings.drain.keep and can_keep(os.environ)
        passes_on = self._stop_signal == PASS_ON and self._door is not None
        if (keeps or passes_on) and self.server_state.tasks:
            # What they publish is for clients that are here.
            _, late = await asyncio.wait(set(self.server_state.tasks), timeout=ANSWERS_S)
            if keeps and late:
                for task in late:
                    task.cancel()  # it answers that the service stops
                await asyncio.wait(late, timeout=ANSWERS_S)
        if keeps:
            self._is_waited_for = True
            await keep_clients(self._shell, self._notifier, os.environ)
        elif passes_on and self._door is not None:
            # However many they are: there is time as long as some leave, and then to send the others away.
            rest_s = self._center.settings.drain.timeout + STOP_MARGIN_S
            await self._door.pass_on(lambda: self._notifier.extend(rest_s))


def run(settings: Settings, sockets: list[socket.socket], stored: Sequence[StoredSet]) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = create_app(settings)
    config = uvicorn.Config(app, backlog=BACKLOG, log_config=None, **uvicorn_options(settings))
    server = Server(config, app.center, stored)
    app.hosts.expected = followers_in(stored)
    app.before_serving = server.take_clients_back
    server.run(sockets)
