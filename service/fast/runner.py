"""The notification center under our runner."""

import socket

import uvicorn

from service.core.center import Center
from service.fast.uvicorn_options import uvicorn_options
from service.fast.uvicorn_server import DrainingServer
from service.process.listen import BACKLOG
from service.runner import InformingServer, only_proxies_connect
from service.settings import Settings


class Server(InformingServer, DrainingServer):
    """Sends its clients away one after another, and keeps the service manager informed."""

    def __init__(self, config: uvicorn.Config, center: Center) -> None:
        DrainingServer.__init__(self, config, center)

    def status(self) -> str:
        return self._center.status()


def run(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT."""
    from service.app import app  # after the settings were found right: it reads them when it is imported

    options = uvicorn_options(settings, only_proxies_connect(sockets))
    config = uvicorn.Config(app, backlog=BACKLOG, log_config=None, **options)
    Server(config, app.center).run(sockets)
