"""How uvicorn is to be, whatever it runs: the notification center or an application of your own."""

from typing import Any

from service.settings import Settings

_LOOPBACK = "127.0.0.1,::1"


def base_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `uvicorn.Config`.

    On TCP only a proxy of this host is believed when it says who the client is: it comes from loopback, or from the
    very address that it connects to. The peers of a Unix socket have no address that could be compared, and file
    permissions let nobody in but nginx: `service.fast.front` and `service.application.connections` know them.
    """
    return {
        "loop": "auto",  # uvloop where it is installed
        "timeout_graceful_shutdown": settings.drain.timeout,
        "proxy_headers": True,
        "forwarded_allow_ips": f"{_LOOPBACK},{settings.host}",
        "server_header": False,
        "access_log": False,
    }
