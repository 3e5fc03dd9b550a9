"""What uvicorn is told, tried on uvicorn itself."""

import inspect

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.fast.front import Reception
from service.fast.uvicorn_options import uvicorn_options
from service.settings import Drain, Settings


def config(only_proxies_connect: bool = False, settings: Settings | None = None) -> uvicorn.Config:
    options = uvicorn_options(settings or Settings(), only_proxies_connect)
    loaded = uvicorn.Config("service.app:app", log_config=None, **options)
    loaded.load()
    return loaded


def test_the_settings_arrive() -> None:
    assert config(settings=Settings(drain=Drain(timeout=3))).timeout_graceful_shutdown == 3


def test_websockets_are_ours() -> None:
    loaded = config()
    assert isinstance(loaded.http_protocol_class, Reception)
    assert loaded.ws_protocol_class is None


def test_uvicorn_knows_every_option() -> None:
    assert set(uvicorn_options(Settings(), True)) <= set(inspect.signature(uvicorn.Config).parameters)


@pytest.mark.parametrize(
    ("only_proxies_connect", "peer", "believed"),
    [
        (False, "127.0.0.1", True),
        (False, "::1", True),
        (False, "192.0.2.1", False),
        (True, "", True),
    ],
)
def test_on_tcp_loopback_is_believed_on_a_unix_socket_everybody(
    only_proxies_connect: bool, peer: str, believed: bool
) -> None:
    middleware = config(only_proxies_connect).loaded_app
    assert isinstance(middleware, ProxyHeadersMiddleware)
    assert (peer in middleware.trusted_hosts) == believed
