"""What must hold of the engine, over which several hosts are one notification center."""

from posixpath import normpath

from generator.config.addresses import is_address, network_fix, same_address
from generator.config.engine import Place, engine, password_file, server, servers
from generator.config.listening import answers_at, nginx_ports
from generator.config.rule import Findings, Origins, rule
from generator.config.schema import Deploy, Engine, socket
from generator.paths import HIDDEN_PLACES, Paths
from service.declaration import Fault, settings_of, values_of

ENOUGH_SENTINELS = 3
UNPRIVILEGED = 1024
_KEYS = tuple(setting.key for setting in settings_of(Deploy) if setting.key.startswith("engine."))
_FILES = ("password_file", "ca", "cert", "key")


@rule(*_KEYS, because="Without engine.url this host is alone, whatever else is said of an engine.")
def engine_is_named(deploy: Deploy, origins: Origins) -> Findings:
    if deploy.engine.url is None:
        nothing, values = values_of(Engine()), values_of(deploy.engine)
        for key in (key for key in _KEYS if key in origins and values[_name(key)] != nothing[_name(key)]):
            yield key, Fault("has no effect: engine.url is missing", "write `url:` beside it, or remove it")


def _name(key: str) -> str:
    return key.partition(".")[2]


@rule(
    *("engine.url", "engine.insecure"),
    because="Every message of every client crosses the network between the hosts, and the password of the engine with "
    "them.",
)
def engine_is_encrypted(deploy: Deploy, _: Origins) -> Findings:
    there = engine(deploy)
    if there is None:
        return
    is_open = not there.is_local and not there.encrypted
    if is_open and not deploy.engine.insecure:
        fix = "use valkeys:// or rediss://, or add `insecure: true` if nobody else is on that network"
        yield "engine.url", Fault(f"sends every message to {there} without TLS", fix)
    elif deploy.engine.insecure and not is_open:
        yield "engine.insecure", Fault("has no effect: nothing leaves this host without TLS", "remove it")


@rule(
    *("engine.url", "engine.sentinels", "engine.allow", "manager"),
    because="The unit lets the service reach the engine and nothing else. systemd takes addresses for that, and of a "
    "name it says nothing: every connection would then wait until it times out.",
)
def engine_is_an_address(deploy: Deploy, _: Origins) -> Findings:
    for place in servers(deploy):
        key = "engine.sentinels" if place != engine(deploy) else "engine.url"
        if not 1 <= place.port <= 65_535:
            yield key, Fault(f"{place.port} is no port", "use 1 to 65535")
        if fault := _unfit_to_connect_to(place.host):
            yield key, fault
        elif deploy.manager == "systemd" and not is_address(place.host):
            yield key, Fault(f"'{place.host}' is a name", "write its IP address, or use manager: supervisor")
    for network in deploy.engine.allow:
        if fix := network_fix(network):
            yield "engine.allow", Fault(f"'{network}' is not an IP address or network", fix)
        elif fault := _unfit_to_connect_to(network):
            yield "engine.allow", fault
    if deploy.engine.allow and deploy.engine.url is not None and not servers(deploy)[1:]:
        yield "engine.allow", Fault("has no effect: without Sentinels the engine is where engine.url says", "remove it")


def _unfit_to_connect_to(address: str) -> Fault | None:
    """Why no server can have this address; None for a name or a network."""
    from ipaddress import ip_address

    if not is_address(address):
        return None
    parsed = ip_address(address)
    if mapped := getattr(parsed, "ipv4_mapped", None):  # systemd would compare it with addresses of IPv6 only
        return Fault(f"'{address}' is IPv4 written as IPv6", f"write the IPv4 address: {mapped}")
    no_scope = parsed.version == 6 and parsed.is_link_local  # which network it is on cannot be said here
    if parsed.is_unspecified or parsed.is_multicast or address == "255.255.255.255" or no_scope:
        return Fault(f"'{address}' is not an address to connect to", "write one that all hosts can reach")
    return None


@rule(
    *("engine.url", "engine.sentinels", "engine.serve", "host", "port", "socket", "name"),
    because="Two programs cannot listen on one port of an address, and the service is no engine.",
)
def engine_is_not_this_service(deploy: Deploy, _: Origins) -> Findings:
    there = engine(deploy)
    if there is not None and there.path and normpath(there.path) == normpath(socket(deploy)):
        yield "engine.url", Fault(f"{there} is where this service listens", "name the socket of the engine")
    for place in servers(deploy):
        if place.port == deploy.port and _is_reached_at(deploy.host, place, deploy):
            key = "engine.url" if place == there else "engine.sentinels"
            yield key, Fault(f"{place} is where this service listens", "write the port of the engine")


@rule(
    *("nginx.http_port", "nginx.https_port", "nginx.listen", "tls", "engine.url", "engine.sentinels", "engine.serve"),
    because="Two programs cannot listen on one port of an address: which of them starts last does not start.",
)
def nginx_is_not_at_the_engine(deploy: Deploy, _: Origins) -> Findings:
    for key, port in zip(("nginx.http_port", "nginx.https_port"), nginx_ports(deploy), strict=False):
        for place in (place for place in servers(deploy) if place.port == port):
            if any(_is_reached_at(host, place, deploy) for host in deploy.nginx.listen):
                yield key, Fault(f"{place} is the engine's", "use another port for nginx, or for the engine")


def _is_reached_at(listener: str, place: Place, deploy: Deploy) -> bool:
    """Whether what listens on an address of this host would be where a server of the engine is."""
    is_here = place.is_local or (deploy.engine.serve and place == engine(deploy))
    return answers_at(listener, place.host) if is_here else same_address(place.host, (listener,))


@rule(
    "engine.sentinels",
    because="A Sentinel that is named twice is still one: it has one vote, and fails once.",
)
def sentinels_differ(deploy: Deploy, _: Origins) -> Findings:
    named = tuple(server(text) for text in deploy.engine.sentinels)
    for position, place in enumerate(named):
        if any(_is_same(place, other) for other in named[:position]):
            yield "engine.sentinels", Fault(f"{place} is given twice", "keep one")


def _is_same(one: Place, other: Place) -> bool:
    return one.port == other.port and (one.host == other.host or same_address(one.host, (other.host,)))


@rule(
    *("engine.url", "engine.password_file", "engine.serve"),
    because="Whoever may publish on the engine can speak for every host, and read what they say to each other.",
)
def engine_asks_for_a_password(deploy: Deploy, _: Origins) -> Findings:
    there = engine(deploy)
    if there is not None and not there.path and password_file(deploy) is None:
        fix = f"write `password_file: /{Paths(deploy.name).engine_password}`, and the password into it"
        yield "engine.url", Fault("has no password beside it", fix)


@rule(
    *("engine.url", "engine.ca", "engine.cert", "engine.key", "engine.serve"),
    because="A certificate is of no use without its key, and neither is without TLS.",
)
def engine_certificate_is_whole(deploy: Deploy, _: Origins) -> Findings:
    there, ours = engine(deploy), deploy.engine
    if there is None:
        return
    named = {"ca": ours.ca, "cert": ours.cert, "key": ours.key}
    if not there.encrypted:
        for name in (name for name, path in named.items() if path is not None):
            yield f"engine.{name}", Fault("has no effect: engine.url is not TLS", "use valkeys://, or remove it")
    elif (ours.cert is None) != (ours.key is None) or (ours.serve and ours.cert is None):
        name, given = ("key", "cert") if ours.key is None and ours.cert is not None else ("cert", "key")
        beside = "engine.serve" if ours.serve and named[given] is None else f"engine.{given}"
        yield beside, Fault(f"needs engine.{name}", f"write `{name}:` below `engine:`")


@rule(
    *("engine.sentinels", "engine.master", "engine.url"),
    because="Sentinels watch several engines, each under a name.",
)
def sentinels_know_the_master(deploy: Deploy, _: Origins) -> Findings:
    ours = deploy.engine
    if ours.url is not None and bool(ours.sentinels) != (ours.master is not None):
        given, other = ("sentinels", "master") if ours.sentinels else ("master", "sentinels")
        yield f"engine.{given}", Fault(f"needs engine.{other}", f"write `{other}:` beside it")
    elif ours.sentinels and not servers(deploy):
        yield "engine.sentinels", Fault("has no effect: engine.url is a Unix socket", "use valkeys://, or remove it")


@rule(
    *("engine.sentinels", "engine.url"),
    because="A majority of the Sentinels must agree on a new master: of those on two hosts, none is left when one is "
    "down.",
    warns=True,
)
def sentinels_are_enough(deploy: Deploy, _: Origins) -> Findings:
    number = len({server(text).host for text in deploy.engine.sentinels})
    if deploy.engine.url is not None and 0 < number < ENOUGH_SENTINELS:
        what = f"are on {number} host{'s' if number > 1 else ''}"
        yield "engine.sentinels", Fault(what, f"name {ENOUGH_SENTINELS} or more, each on a host of its own")


@rule(
    *("engine.sentinels", "engine.allow", "manager"),
    because="The unit lets the service reach what deploy.yaml names, and Sentinel may name another server as the "
    "master: that must be among it.",
    warns=True,
)
def every_master_is_reached(deploy: Deploy, _: Origins) -> Findings:
    if servers(deploy)[1:] and deploy.manager == "systemd" and not deploy.engine.allow:
        fix = "name in engine.allow every server that can become the master"
        yield "engine.sentinels", Fault("may name a master that the unit does not let the service reach", fix)


@rule(
    *("engine.url", "engine.silence", "drain.timeout"),
    because="A host that stops answers for what is under way to others, and learns at the latest after engine.silence "
    "that one of them will not.",
)
def silence_within_the_drain(deploy: Deploy, _: Origins) -> Findings:
    silence, drain = deploy.engine.silence, deploy.drain.timeout
    if deploy.engine.url is not None and silence >= drain:
        what = f"{silence:g} is not below drain.timeout ({drain})"
        yield "engine.silence", Fault(what, f"raise drain.timeout, or use less than {drain}")


@rule(
    *("engine.password_file", "engine.ca", "engine.cert", "engine.key", "engine.url", "name"),
    because="The service has a user of its own, and under systemd no home directories and a /tmp of its own.",
)
def engine_files_can_be_read(deploy: Deploy, _: Origins) -> Findings:
    paths = {f"engine.{name}": getattr(deploy.engine, name) for name in _FILES}
    paths["engine.url"] = (engine(deploy) or Place()).path
    for key, path in paths.items():
        if hidden := next((place for place in HIDDEN_PLACES if normpath(path or "/").startswith(place)), None):
            fix = "let the engine make it below /run" if key == "engine.url" else f"put it below /etc/{deploy.name}"
            yield key, Fault(f"'{path}' is in {hidden}, which the service cannot see", fix)


@rule(
    *("engine.serve", "engine.url", "engine.sentinels", "engine.user", "name"),
    because="An engine that is served here stands alone, listens where engine.url says, and knows one user, who may do "
    "what the service does.",
)
def served_engine_is_one(deploy: Deploy, _: Origins) -> Findings:
    ours, there = deploy.engine, engine(deploy)
    if not ours.serve or there is None:
        return
    if ours.sentinels:
        yield "engine.serve", Fault("is one server, without Sentinels", "remove engine.sentinels, or serve")
    if ours.user == "default":
        yield "engine.serve", Fault("has no default user", f"write `user: {deploy.name}` below `engine:`, on all hosts")
    if 0 < there.port < UNPRIVILEGED:
        yield "engine.url", Fault(f"{there.port} is a port for root", f"use {UNPRIVILEGED} or more")
    run = f"/{Paths(deploy.name).engine_run}"
    if there.path and (not there.path.startswith(f"{run}/") or "/" in there.path.removeprefix(f"{run}/")):
        yield "engine.url", Fault(f"'{there.path}' is not in {run}", f"use unix://{run}/engine.sock")
