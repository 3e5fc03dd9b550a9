"""What other sites of the host's nginx mean for ours: which take its clients, or its port. Pure.

nginx gives a connection to the servers of the most specific address that it came to, and only then asks for the name:
with `listen 203.0.113.5:80` elsewhere, a site with `listen 80` is not served to clients of 203.0.113.5.
"""

from collections.abc import Iterator

import msgspec

from generator.config.addresses import EVERY, LOOPBACK
from generator.config.listening import nginx_ports
from generator.config.schema import Deploy, domains, main_domain
from generator.paths import Paths
from generator.readers.nginx import DEFAULT_SITE
from generator.readers.nginx_sites import Listen, Server
from service.declaration import Fault


class Surroundings(msgspec.Struct, frozen=True):
    """The surroundings of our site: the other servers, and the addresses that clients connect to."""

    others: tuple[Server, ...] = ()
    addresses: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    """Those addresses of this host to which the domain leads."""
    bound: tuple[tuple[str, int], ...] = ()
    """The addresses and ports on which nginx listens now, whatever its files say since."""

    @property
    def clients_come_to(self) -> tuple[str, ...]:
        return self.named or self.addresses


def without(around: Surroundings, paths: tuple[str, ...]) -> Surroundings:
    """The same when these sites are gone."""
    others = tuple(server for server in around.others if server.path not in paths)
    return msgspec.structs.replace(around, others=others)


def faults(deploy: Deploy, around: Surroundings) -> Iterator[Fault]:
    """Faults that would keep clients from us, or nginx from starting."""
    if deploy.nginx.include:  # they come to a site that is there
        return
    for server in _others(deploy, around):
        for listen in server.listens:
            if listen.port in nginx_ports(deploy):
                yield from _of_the_port(deploy, server, listen, _options(deploy, around, listen))
    taken = _taken(deploy, around)
    for listen in taken:
        like = [each for each in around.addresses if (":" in each) == listen.is_ipv6]
        if around.named or len(like) == len([each for each in taken if _is_like(each, listen)]):
            yield _stands_before(deploy, listen, taken, around)


def immovable(deploy: Deploy, around: Surroundings) -> Iterator[Fault]:
    """Where nginx cannot come to by a reload: it binds what is new while it still has what is old.

    Every address of a port and one alone exclude each other, and nothing of a configuration with that comes into force.
    """
    servers = [each for server in _others(deploy, around) for each in server.listens]
    wanted = {(each.host, each.port) for each in servers}
    if not deploy.nginx.include:
        wanted |= {(host, port) for host in deploy.nginx.listen for port in nginx_ports(deploy)}
    for port in sorted({port for _, port in around.bound}):
        for every in EVERY:
            held, asked = (
                sorted(host for host, at in found if at == port and (":" in host) == (":" in every))
                for found in (around.bound, wanted)
            )
            if held and asked and (every in held) != (every in asked):
                yield _between(port, every, held, asked)


def _between(port: int, every: str, held: list[str], asked: list[str]) -> Fault:
    if every in held:
        what = f"nginx has port {port} of every address ({every}), and would have it of {' and '.join(asked)} alone"
    else:
        what = f"nginx has port {port} of {' and '.join(held)} alone, and would have it of every address ({every})"
    fix = "listen as it does now; or `systemctl stop nginx`, which ends all its connections, then do this again"
    return Fault(f"{what}, which it cannot change while it runs", f"{fix}: that starts it")


def warnings(deploy: Deploy, around: Surroundings) -> Iterator[Fault]:
    """What keeps clients from us that may be meant for another site."""
    if deploy.nginx.include:
        return
    refused = set(faults(deploy, around))
    taken = _taken(deploy, around)
    yield from (fault for listen in taken if (fault := _stands_before(deploy, listen, taken, around)) not in refused)
    if deploy.nginx.default_server or set(deploy.nginx.health_from) <= set(LOOPBACK):
        return
    for port in nginx_ports(deploy):
        if (listen := _default(deploy, around, port)) is not None:
            fix = f"let it send `Host: {main_domain(deploy)}`"
            if listen.where.startswith(f"/{DEFAULT_SITE}:") or not _is_default(listen):  # nginx takes no second one
                fix += ", or set nginx.default_server to true"
            yield Fault(f"{listen.where} answers a health check on port {port} that names no site of this host", fix)


def names_lost(name: str, domains: tuple[str, ...], sites: tuple[Server, ...]) -> Iterator[Fault]:
    """The sites that get our clients once nginx reads its files again: at each address the first one with a name."""
    own = f"/{Paths(name).site_link}"
    ours = {(each.host, each.port) for server in sites if server.path == own for each in server.listens}
    found = {}
    for domain in domains:
        for place in sorted(ours):
            beside = (server for server in sites if domain.lower() in server.names)
            first = next((each for each in beside if place in {(at.host, at.port) for at in each.listens}), None)
            if first is not None and first.path != own:
                found[first.where, domain] = Fault(
                    f"{first.where} is {domain} too, and gets its clients once nginx reads its files again",
                    "remove it there, or use another domain",
                )
    yield from found.values()


def names_taken(deploy: Deploy, around: Surroundings) -> Iterator[Fault]:
    """The sites that have a name of ours where we listen, whichever of the two nginx would ignore."""
    ours = {(host, port) for host in deploy.nginx.listen for port in nginx_ports(deploy)}
    for server in () if deploy.nginx.include else _others(deploy, around):
        for domain in domains(deploy):
            if domain.lower() in server.names and not ours.isdisjoint((at.host, at.port) for at in server.listens):
                what = f"{server.where} is {domain} too, and nginx would ignore one of the two"
                yield Fault(what, "uninstall that one, or remove the name there")


def ways_in(listen: tuple[str, ...], around: Surroundings) -> tuple[tuple[str, ...], ...]:
    """Where a client must get through to a site that listens on these: one address of each group.

    Which address clients use is known where the domain leads to one of this host, or `nginx.listen` names one. Behind
    a router or a load balancer any may be meant; and there is loopback where the host has no other.
    """

    def heard(address: str) -> bool:
        return ("::" if ":" in address else "0.0.0.0") in listen

    named = [host for host in listen if host not in ("0.0.0.0", "::")]
    named += [address for address in around.named if heard(address) and address not in named]
    if named:
        return tuple((address,) for address in named)
    any_of = tuple(filter(heard, around.addresses))
    return (any_of or ("127.0.0.1" if "0.0.0.0" in listen else "::1",),)


def _others(deploy: Deploy, around: Surroundings) -> Iterator[Server]:
    """All but our own site, and the default site that makes way for us."""
    ours = {f"/{Paths(deploy.name).site_link}"} | ({f"/{DEFAULT_SITE}"} if deploy.nginx.default_server else set())
    return (server for server in around.others if server.path not in ours)


def _options(deploy: Deploy, around: Surroundings, listen: Listen) -> set[str]:
    """What nginx does for all sites that share an address and port, if one of those that are there asks for it."""
    beside = (each for server in _others(deploy, around) if server.module == "http" for each in server.listens)
    return {
        option for each in beside if (each.host, each.port) == (listen.host, listen.port) for option in each.options
    }


def _of_the_port(deploy: Deploy, server: Server, listen: Listen, options: set[str]) -> Iterator[Fault]:
    port, hosts = listen.port, deploy.nginx.listen
    meets = listen.host in hosts or (server.module != "http" and listen.is_for_all)
    if server.module != "http" and meets:
        what = f"{listen.where} has port {port} for a {server.module} server"
        yield Fault(what, "move one of the two: give that server, or nginx.listen, another address")
    elif "ipv6only=off" in listen.options and listen.host == "::" and any(":" not in host for host in hosts):
        what = f"{listen.where} has port {port} of IPv4 and IPv6 at once, so nginx could not bind it for IPv4 again"
        yield Fault(what, f"write `listen {port};` and `listen [::]:{port};` there, without ipv6only=off")
    elif meets and "proxy_protocol" in listen.options and not deploy.nginx.proxy_protocol:
        what = f"{listen.where} expects the PROXY protocol on port {port}, and nginx would of our clients too"
        yield Fault(what, "give that site, or nginx.listen, an address of its own")
    elif meets and "proxy_protocol" not in options and deploy.nginx.proxy_protocol:
        what = f"{listen.where} has port {port} without the PROXY protocol, and nginx would expect it there too"
        is_debians = listen.where.startswith(f"/{DEFAULT_SITE}:")
        fix = "set nginx.default_server to true, or " if is_debians else ""
        yield Fault(what, f"{fix}give that site, or nginx.listen, an address of its own")
    elif meets and port == deploy.nginx.http_port and "ssl" in listen.options:
        what = f"{listen.where} has TLS on port {port}, and nginx would ask our clients for it too"
        yield Fault(what, "take `ssl` away there")
    elif meets and port != deploy.nginx.http_port and "ssl" not in options:
        what = f"{listen.where} has port {port} without TLS, and nginx would ask its clients for TLS too"
        yield Fault(what, "give that site another port, or set nginx.https_port to another")


def _taken(deploy: Deploy, around: Surroundings) -> list[Listen]:
    """Listens for one address alone to which our clients come: of each address and port the first."""
    found: dict[tuple[str, int], Listen] = {}
    for server in _others(deploy, around):
        for listen in server.listens if server.module == "http" else ():
            ours = ("::" if listen.is_ipv6 else "0.0.0.0") in deploy.nginx.listen
            is_named = listen.host in deploy.nginx.listen
            if ours and not is_named and listen.port in nginx_ports(deploy) and listen.host in around.clients_come_to:
                found.setdefault((listen.host, listen.port), listen)
    return list(found.values())


def _is_like(one: Listen, other: Listen) -> bool:
    return (one.port, one.is_ipv6) == (other.port, other.is_ipv6)


def _stands_before(deploy: Deploy, listen: Listen, taken: list[Listen], around: Surroundings) -> Fault:
    alone = {host for host, port in around.bound if port == listen.port}
    shut = [every for every in EVERY if every not in alone and any((":" in host) == (":" in every) for host in alone)]
    ours = (host for host in deploy.nginx.listen if host not in shut)  # nginx could not come to those while it runs
    hosts = dict.fromkeys([*ours, *(each.host for each in taken)])
    wanted = ", ".join(f'"{host}"' if ":" in host else host for host in hosts)
    what = f"{listen.where} has {listen.host} port {listen.port} for itself, so clients that come there get that site"
    return Fault(what, f"listen there too: write `listen: [{wanted}]` below `nginx:`")


def _default(deploy: Deploy, around: Surroundings, port: int) -> Listen | None:
    """The listener of another site that gets what names no site; None where that is ours."""
    there = [
        listen
        for server in _others(deploy, around)
        for listen in server.listens
        if server.module == "http" and listen.port == port and listen.host in deploy.nginx.listen
    ]
    # If none is declared, nginx takes the first; it reads sites in the order of their names, after conf.d.
    before = (each for each in there if each.where < f"/{Paths(deploy.name).site_link}:")
    return next(filter(_is_default, there), next(before, None))


def _is_default(listen: Listen) -> bool:
    return not {"default_server", "default"}.isdisjoint(listen.options)
