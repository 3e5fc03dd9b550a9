"""How uvicorn is to be, whatever it runs: the notification center or an application of your own."""

from typing import Any

from service.settings import Settings

# uvicorn's words for "any peer" and for a proxy on this host.
_ANYBODY, _LOOPBACK = "*", "127.0.0.1,::1"


def base_options(settings: Settings, only_proxies_connect: bool) -> dict[str, Any]:
    """Keyword arguments of `uvicorn.Config`.

    `only_proxies_connect`: the listener is a Unix socket. Its peers have no address that could be compared, and file
    permissions let nobody in but nginx, so what they forward is believed. On TCP only this host is: nginx comes from
    loopback, or from the very address that it connects to.
    """
    return {
        "loop": "auto",  # uvloop where it is installed
        "timeout_graceful_shutdown": settings.drain.timeout,
        "proxy_headers": True,
        "forwarded_allow_ips": _ANYBODY if only_proxies_connect else f"{_LOOPBACK},{settings.host}",
        "server_header": False,
        "access_log": False,
    }
