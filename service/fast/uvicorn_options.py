"""How the notification center wants uvicorn to be, said once for the runner and for the gunicorn worker."""

from typing import Any

from service.fast.front import Reception
from service.process.base_options import base_options
from service.settings import Settings


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `uvicorn.Config`."""
    return {
        **base_options(settings),
        "http": Reception(),  # which serves WebSockets as well
        "ws": "none",
    }
