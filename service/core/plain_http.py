"""The answers to plain HTTP, the same in every shell."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import NamedTuple

# Long enough for some clients to have left, short enough that nobody gives up.
RETRY_AFTER_S = 5

_RETRY = ("retry-after", str(RETRY_AFTER_S))


class Answer(NamedTuple):
    """A response: status, header fields and body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def respond(status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    """A response of any kind."""
    return Answer(status, (("content-type", content_type), ("content-length", str(len(body))), *headers), body)


def say(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """A response in words."""
    return respond(status, "text/plain; charset=utf-8", text.encode(), *headers)


NOT_FOUND = say(404, "WebSocket endpoint only")
# To a client that wants a WebSocket, in place of the handshake.
FULL = say(503, "Too many connections", _RETRY)
# The next one serves in a moment.
DRAINING = say(503, "The service is about to stop", ("retry-after", "1"))
TOO_MANY_FROM_ADDRESS = say(429, "Too many connections of this address", _RETRY)
FOREIGN_ORIGIN = say(403, "This page may not connect here")
UNAUTHORIZED = say(401, "A valid token is needed", ("www-authenticate", "Bearer"))
MISDIRECTED = say(421, "Ask by an address or as localhost: other names could be those of a page from elsewhere\n")
REFUSALS = (FULL, DRAINING, TOO_MANY_FROM_ADDRESS, FOREIGN_ORIGIN, UNAUTHORIZED)

# Source: RFC 9110, section 7.2.
_HOST = re.compile(r"(?P<v6>\[)?(?P<name>(?(v6)[^]]*|[^:]*))(?(v6)\])(:\d*)?")


def is_of_this_host(host: str) -> bool:
    """Whether a value of Host is an address or localhost, as with `ssh -L`, or there is none: browsers send one.

    A page from elsewhere can have its own name lead here, and would read as its own what is only for this host. It
    cannot have such a name. Source: "Protecting Browsers from DNS Rebinding Attacks", Jackson and others, 2007.
    """
    found = _HOST.fullmatch(host.lower())
    if found and found["name"] in ("", "localhost"):
        return True
    try:
        ip_address(found["name"] if found else host)
    except ValueError:
        return False
    return True


def passed_on(field_names: Iterable[str]) -> bool:
    """Whether a request with these header fields, in lower case, came through a proxy."""
    return not {"x-forwarded-for", "forwarded"}.isdisjoint(field_names)
