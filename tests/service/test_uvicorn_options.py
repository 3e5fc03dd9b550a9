"""What uvicorn is told, tried on uvicorn itself."""

import inspect

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.fast.front import Reception
from service.fast.uvicorn_options import uvicorn_options
from service.settings import Drain, Settings


def config(settings: Settings | None = None) -> uvicorn.Config:
    loaded = uvicorn.Config("service.app:app", log_config=None, **uvicorn_options(settings or Settings()))
    loaded.load()
    return loaded


def test_the_settings_arrive() -> None:
    assert config(settings=Settings(drain=Drain(timeout=3))).timeout_graceful_shutdown == 3


def test_websockets_are_ours() -> None:
    loaded = config()
    assert isinstance(loaded.http_protocol_class, Reception)
    assert loaded.ws_protocol_class is None


def test_uvicorn_knows_every_option() -> None:
    assert set(uvicorn_options(Settings())) <= set(inspect.signature(uvicorn.Config).parameters)


@pytest.mark.parametrize(("peer", "believed"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("", False)])
def test_on_tcp_only_a_proxy_of_this_host_is_believed(peer: str, believed: bool) -> None:
    middleware = config().loaded_app
    assert isinstance(middleware, ProxyHeadersMiddleware)
    assert (peer in middleware.trusted_hosts) == believed
