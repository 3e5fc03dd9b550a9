"""How the service wants uvicorn to be, said once for the runner and for the gunicorn worker."""

from typing import Any

from service.settings import Settings
from service.uvicorn_websocket import WebSocketProtocol

# uvicorn's words for "whoever connects" and for a proxy on this host.
_ANYBODY, _LOOPBACK = "*", "127.0.0.1,::1"


def uvicorn_options(settings: Settings, only_proxies_connect: bool) -> dict[str, Any]:
    """Keyword arguments of `uvicorn.Config`.

    `only_proxies_connect`: the listener is a Unix socket. Its peers have no address that could be compared, and file
    permissions let nobody in but nginx, so what they forward is believed. On TCP only this host is: nginx comes from
    loopback, or from the very address that it connects to.
    """
    return {
        "loop": "auto",  # uvloop and httptools where they are installed
        "http": "auto",
        "ws": WebSocketProtocol,
        "ws_ping_interval": settings.ping.interval,
        "ws_ping_timeout": settings.ping.timeout,
        "ws_max_size": settings.limits.message_size,
        # Compression costs 34 KiB of memory per idle connection.
        "ws_per_message_deflate": False,
        "timeout_graceful_shutdown": settings.drain.timeout,
        "proxy_headers": True,
        "forwarded_allow_ips": _ANYBODY if only_proxies_connect else f"{_LOOPBACK},{settings.host}",
        "server_header": False,
        "access_log": False,
    }
