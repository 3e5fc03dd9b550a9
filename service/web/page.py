"""The demo page, for a developer's own machine: only `make run` says where its files are."""

from pathlib import Path

from service.core.plain_http import NOT_FOUND, Answer, respond

# Of the directory `clients`; nothing of it is on a host.
VARIABLE = "WEBSOCKET_PAGE"

_FILES = {
    "/page/": ("page/index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page/page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page/page.js", "text/javascript; charset=utf-8"),
    "/js/client.js": ("js/client.js", "text/javascript; charset=utf-8"),
}


def answer(clients: str | None, path: str) -> Answer:
    """The file of the page at a path, if a directory of clients is named."""
    if not clients or path not in _FILES:
        return NOT_FOUND
    name, content_type = _FILES[path]
    # Read each time: a change of the page is seen at the next reload.
    return respond(200, content_type, Path(clients, name).read_bytes(), ("cache-control", "no-cache"))
