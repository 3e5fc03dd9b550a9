"""A site of the operator's own, which includes our locations: how clients come to it, and the line it needs. Pure."""

from collections.abc import Iterable
from posixpath import dirname

from msgspec.structs import replace

from generator.host.neighbours import Surroundings, ways_in
from generator.host.probe import Endpoint
from generator.paths import Paths
from generator.readers.nginx_sites import Server


def line_of(name: str) -> str:
    """The line that the site contains. nginx takes it as well where our file is not there, or not any more."""
    return f"include /{dirname(Paths(name).locations)}/*.conf;"


def fix(name: str) -> str:
    """What is to be done where no site has it."""
    reload = "nginx -t && systemctl reload nginx"
    return f"write `{line_of(name)}` into the `server {{ }}` of your site, then `{reload}`"


def including(name: str, there: Iterable[Server]) -> list[Server]:
    """Those that include the locations of a deployment."""
    return [server for server in there if f"/{Paths(name).locations}" in server.includes]


def through_site(name: str, endpoint: Endpoint, around: Surroundings) -> Endpoint | None:
    """Where clients come to the site, with TLS where it has it; None where no site includes us."""
    there = including(name, around.others)
    # A name may be a pattern as well; so of several, that which has the domain counts.
    there = [server for server in there if endpoint.domain in server.names] or there
    listens = [listen for server in there for listen in server.listens]
    chosen = [listen for listen in listens if "ssl" in listen.options] or listens
    if not chosen:
        return None
    port, options = chosen[0].port, chosen[0].options
    hosts = tuple(dict.fromkeys(listen.host for listen in chosen if listen.port == port))
    return replace(
        endpoint,
        encrypted="ssl" in options,
        ways=ways_in(hosts, around),
        ports=(port, port),
        proxy_protocol="proxy_protocol" in options,
    )


def past_nginx(listener: str, endpoint: Endpoint) -> Endpoint:
    """The service itself, at `unix:PATH` or `HOST:PORT`: the notification center knows nothing of the site's paths."""
    path = endpoint.path if endpoint.serves_app else "/"
    return replace(endpoint, encrypted=False, ways=((listener,),), path=path, is_past_nginx=True)
