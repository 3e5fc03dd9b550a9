"""The notification center under our runner."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from types import FrameType
from typing import cast

import uvicorn

from service.core.center import Center
from service.fast.fast import FastShell
from service.fast.front import Reception
from service.fast.restart import can_keep, keep_clients, take_clients_back
from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import DrainingServer
from service.process.descriptor_store import StoredSet
from service.process.listen import BACKLOG
from service.process.notify import Notifier
from service.runner import InformingServer, only_proxies_connect
from service.settings import Settings

# How long the answers to requests are waited for that are under way; what they publish is for clients that are here.
ANSWERS_S = 1.0


class Server(InformingServer, DrainingServer):
    """Keeps its clients over a restart, sends them away one after another before a stop, and informs the manager."""

    def __init__(self, config: uvicorn.Config, center: Center, stored: Sequence[StoredSet]) -> None:
        """`stored` are clients of a process before this one."""
        DrainingServer.__init__(self, config, center)
        self._stored = stored
        self._is_restart = False

    def status(self) -> str:
        return self._center.status()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self._is_restart = sig == signal.SIGINT  # `RestartKillSignal=` of the unit
        super().handle_exit(sig, frame)

    @property
    def _shell(self) -> FastShell:
        reception = cast(Reception, self.config.http_protocol_class)
        return reception.open_shell(self.config, self.server_state, self.lifespan.state)

    async def take_clients_back(self) -> None:
        """Serve those that a process before this one has left. To be called before anybody else can connect."""
        if self._stored:
            await take_clients_back(self._shell, self._stored, Notifier(os.environ), os.environ)

    async def let_clients_stay(self) -> None:
        if self._is_restart and self._center.settings.drain.keep and can_keep(os.environ):
            if self.server_state.tasks:
                await asyncio.wait(set(self.server_state.tasks), timeout=ANSWERS_S)
            await keep_clients(self._shell, self._notifier, os.environ)


def run(settings: Settings, sockets: list[socket.socket], stored: Sequence[StoredSet]) -> None:
    """Serve until SIGTERM or SIGINT."""
    from service.app import app  # after the settings were found right: it reads them when it is imported

    options = uvicorn_options(settings, only_proxies_connect(sockets))
    config = uvicorn.Config(app, backlog=BACKLOG, log_config=None, **options)
    server = Server(config, app.center, stored)
    app.before_serving = server.take_clients_back
    server.run(sockets)
