"""Rules about the addresses on which the service and nginx listen, and of the proxies in front of them."""

from generator.config.addresses import EVERY, LOOPBACK, MAPPED, is_address, network_fix, same_address, share
from generator.config.rule import Findings, Origins, rule
from generator.config.schema import Deploy, Nginx, main_domain, serves_app
from generator.paths import Paths
from service.declaration import Fault, settings_of, values_of

# Of the public addresses of a family: nobody has more load balancers than that.
LARGEST_SHARE_OF_PROXIES = 1 / 16


@rule(
    *("host", "port", "socket"),
    because="An address without a port is not listened on, so that what it is meant for would not be reached.",
)
def host_has_a_port(deploy: Deploy, origins: Origins) -> Findings:
    closes = origins.get("port") or origins.get("socket")
    # An overlay may close the port of the base file.
    if deploy.port == "none" and closes and "host" in origins and origins["host"].source == closes.source:
        what = "`port` is none" if "port" in origins else "with `socket` and no `port`, no port is open"
        yield "host", Fault(f"has no effect: {what}", "write a port beside it, or remove it")


@rule(
    *("socket", "name"),
    because="/run/<name> is made at every boot with the rights that let nginx, and nobody else, connect.",
)
def socket_is_in_its_directory(deploy: Deploy, _: Origins) -> Findings:
    if deploy.socket is not None:
        directory, _slash, file = deploy.socket.rpartition("/")
        if directory != f"/run/{deploy.name}" or file in ("", ".", ".."):
            fix = f"use a file in /run/{deploy.name}, such as /{Paths(deploy.name).listener}"
            yield "socket", Fault(f"'{deploy.socket}' is not in the deployment's own directory", fix)


@rule("host", because="systemd binds addresses; it looks no name up.")
def host_is_an_address(deploy: Deploy, _: Origins) -> Findings:
    if deploy.host.lower().startswith(MAPPED):
        fix = f"write the IPv4 address: {deploy.host[7:]}"
        yield "host", Fault(f"'{deploy.host}' is an IPv4 address in IPv6's clothes (RFC 4291, section 2.5.5.2)", fix)
        return
    if deploy.host not in LOOPBACK and not is_address(deploy.host):
        yield "host", Fault(f"'{deploy.host}' is not an IPv4 or IPv6 address", "use one, such as 127.0.0.1")


@rule(
    *("host", "port", "socket", "expose", "tls", "nginx.trusted_proxies"),
    because="On any address but loopback, clients reach the service past nginx: no TLS, no limits, forged addresses.",
)
def exposed_on_purpose(deploy: Deploy, _: Origins) -> Findings:
    if not _reachable_past_nginx(deploy):
        if deploy.expose:
            yield "expose", Fault("has no effect: only nginx reaches the listener", "remove it")
        return
    if not deploy.expose:
        fix = "use 127.0.0.1 or ::1, or add `expose: true`"
        yield "host", Fault(f"'{deploy.host}' lets clients past nginx, its TLS and its limits", fix)
    elif deploy.tls == "off" and not deploy.nginx.trusted_proxies:
        fix = "set tls, or name the proxy that encrypts in nginx.trusted_proxies"
        yield "expose", Fault("opens the service to the network with no encryption anywhere", fix)


@rule(
    *("nginx.trusted_proxies", "nginx.health_from", "nginx.metrics_from"),
    because="nginx refuses what is no address, and reads 10.1.2.3/8 as the whole of 10.0.0.0/8.",
)
def addresses_are_networks(deploy: Deploy, _: Origins) -> Findings:
    for key, addresses in (
        ("nginx.trusted_proxies", deploy.nginx.trusted_proxies),
        ("nginx.health_from", deploy.nginx.health_from),
        ("nginx.metrics_from", deploy.nginx.metrics_from),
    ):
        for address in addresses:
            if address not in LOOPBACK and (fix := network_fix(address)):
                is_mapped = address.lower().startswith(MAPPED)
                what = "is IPv4 written as IPv6, and fits no client" if is_mapped else "is not an IP address or network"
                yield key, Fault(f"'{address}' {what}", fix)


@rule(
    "nginx.listen",
    because="nginx resolves a name only once, when it starts, and refuses an address that is given twice.",
)
def nginx_listens_on_addresses(deploy: Deploy, _: Origins) -> Findings:
    listen = deploy.nginx.listen
    if not listen:
        yield "nginx.listen", Fault("is empty, so no client could come", "leave it out, or name an address")
    for position, address in enumerate(listen):
        if fault := _unfit_to_listen_on(address):
            yield "nginx.listen", fault
        elif same_address(address, listen[:position]):
            yield "nginx.listen", Fault(f"'{address}' is given twice", "keep one")


def nginx_ports(deploy: Deploy) -> tuple[int, ...]:
    """Where nginx waits for clients: without TLS, and with it."""
    return (deploy.nginx.http_port,) if deploy.tls == "off" else (deploy.nginx.http_port, deploy.nginx.https_port)


def clients_port(deploy: Deploy) -> int:
    """Where clients come: to nginx, or to the load balancer in front of it, which has the usual ports."""
    usual = 80 if deploy.tls == "off" else 443
    return usual if deploy.nginx.trusted_proxies else nginx_ports(deploy)[-1]


def https_place(deploy: Deploy) -> str:
    """The domain, with a port where clients need one; with TLS."""
    return f"{main_domain(deploy)}:{clients_port(deploy)}".removesuffix(":443")


def prefix(deploy: Deploy) -> str:
    """What stands before each path of its own: `/shop`, or nothing."""
    return deploy.nginx.path.rstrip("/")


def clients_path(deploy: Deploy) -> str:
    """The path that clients begin with."""
    return f"{prefix(deploy)}/" if serves_app(deploy) else deploy.nginx.path


def url(deploy: Deploy) -> str:
    """What clients connect to."""
    scheme, path = "http" if serves_app(deploy) else "ws", clients_path(deploy)
    if deploy.tls != "off":
        return f"{scheme}s://{https_place(deploy)}{path}"
    return f"{scheme}://{main_domain(deploy)}:{clients_port(deploy)}".removesuffix(":80") + path


@rule(
    "nginx.path",
    because="A client takes `..` and `.` out of a path before it asks for it, so that nobody would come there.",
)
def path_can_be_asked_for(deploy: Deploy, _: Origins) -> Findings:
    if {".", ".."} & set(deploy.nginx.path.split("/")):
        yield "nginx.path", Fault(f"'{deploy.nginx.path}' has . or .. in it", "write it without")


# What only a `server { }` of ours has.
_OF_OUR_SITE = (
    *("tls", "certificate.", "letsencrypt.", "nginx.default_server", "nginx.listen", "nginx.http_port"),
    *("nginx.https_port", "nginx.proxy_protocol", "nginx.trusted_proxies"),
)


def is_of_our_site(key: str) -> bool:
    """Whether a setting means nothing where the site is the operator's own."""
    return key in _OF_OUR_SITE or f"{key.partition('.')[0]}." in _OF_OUR_SITE


@rule(
    *("nginx.include", *(setting.key for setting in settings_of(Deploy) if is_of_our_site(setting.key))),
    because="Your own `server { }` says where it listens, which certificate it has and whom it believes; what was said "
    "here would change nothing.",
)
def site_of_ones_own_says_it_itself(deploy: Deploy, origins: Origins) -> Findings:
    if deploy.nginx.include:
        values = values_of(deploy)
        for setting in settings_of(Deploy):
            if is_of_our_site(setting.key) and setting.key in origins and values[setting.key] != setting.default:
                what = "has no effect with nginx.include: the site is your own"
                yield setting.key, Fault(what, "remove it, and write it into your site")


# What is in /etc/nginx, of Debian's packages.
_OF_NGINX = "koi-utf koi-win modules-available modules-enabled sites-available sites-enabled snippets win-utf".split()


@rule(
    *("nginx.include", "name"),
    because="Your site includes all files of /etc/nginx/<name>, which must be none of nginx's own directories.",
)
def included_directory_is_its_own(deploy: Deploy, _: Origins) -> Findings:
    if deploy.nginx.include and deploy.name in _OF_NGINX:
        yield "name", Fault(f"/etc/nginx/{deploy.name} is nginx's own", "give the deployment another name")


@rule(
    *("nginx.http_port", "nginx.https_port", "nginx.listen", "tls", "host", "port", "socket"),
    because="Two programs cannot listen on one port of an address, and one port has TLS or has it not.",
)
def nginx_has_ports_of_its_own(deploy: Deploy, _: Origins) -> Findings:
    keys = dict(zip(("nginx.http_port", "nginx.https_port"), nginx_ports(deploy), strict=False))
    if deploy.tls == "off" and deploy.nginx.https_port != Nginx().https_port:
        yield "nginx.https_port", Fault("has no effect: tls is off", "remove it, or set tls")
    if len(set(keys.values())) < len(keys):
        yield "nginx.https_port", Fault(f"{deploy.nginx.https_port} is nginx.http_port too", "use two ports")
    meets = any(answers_at(host, deploy.host) or answers_at(deploy.host, host) for host in deploy.nginx.listen)
    for key, port in keys.items() if meets else ():
        if port == deploy.port:
            yield key, Fault(f"{port} is the port of the service", "use another one for nginx, or for the service")


@rule(
    *("nginx.http_port", "tls"),
    because="Let's Encrypt asks for its proof on port 80 of the domain and on no other (RFC 8555, section 8.3).",
    warns=True,
)
def lets_encrypt_comes_to_port_80(deploy: Deploy, _: Origins) -> Findings:
    if deploy.tls == "letsencrypt" and deploy.nginx.http_port != 80:
        what = f"{deploy.nginx.http_port} gets no request from Let's Encrypt, unless something leads port 80 there"
        yield "nginx.http_port", Fault(what, "leave it at 80, or use tls: files")


@rule(
    *("nginx.proxy_protocol", "nginx.trusted_proxies"),
    because="Only a load balancer begins with the PROXY protocol. If none is believed, all clients have its address, "
    "and share the limits of one.",
)
def proxies_speak_the_proxy_protocol(deploy: Deploy, _: Origins) -> Findings:
    if deploy.nginx.proxy_protocol and not deploy.nginx.trusted_proxies:
        fix = "name the load balancer in nginx.trusted_proxies"
        yield "nginx.proxy_protocol", Fault("is believed from nobody", fix)


def answers_at(listener: str, address: str) -> bool:
    """Whether what listens on an address of this host, or on all, is reached at another of its addresses."""
    addresses = LOOPBACK if address == "localhost" else (address,)
    on_all_of_ipv4 = listener == "0.0.0.0" and any(":" not in each for each in addresses)
    return listener == "::" or on_all_of_ipv4 or same_address(listener, addresses)


def _unfit_to_listen_on(address: str) -> Fault | None:
    if address in EVERY:
        return None
    from ipaddress import ip_address

    if not is_address(address):
        return Fault(f"'{address}' is not an IPv4 or IPv6 address", "use one, such as 203.0.113.5")
    if address.lower().startswith(MAPPED):
        return Fault(f"'{address}' is IPv4 written as IPv6", f"write the IPv4 address: {address[len(MAPPED) :]}")
    parsed = ip_address(address)
    if parsed.is_multicast or address == "255.255.255.255" or (parsed.version == 6 and parsed.is_link_local):
        return Fault(f"'{address}' is an address that nginx cannot listen on", "use one of this host")
    return None


@rule(
    "origins",
    because="Browsers send `null` for every page without an origin, and `file://` or `null` for every local one: "
    "anyone who can make a user open such a page can make it connect.",
    warns=True,
)
def origins_tell_pages_apart(deploy: Deploy, _: Origins) -> Findings:
    meant = {"null": "every sandboxed frame and local file", "file://": "every local file"}
    for origin in (each for each in deploy.origins if each in meant):
        what = f"'{origin}' is {meant[origin]}, wherever it comes from"
        yield "origins", Fault(what, "let clients show tokens (auth: token)")


@rule("nginx.trusted_proxies", because="A trusted proxy decides, by X-Forwarded-For, which client a limit counts.")
def proxies_are_few(deploy: Deploy, _: Origins) -> Findings:
    proxies = [address for address in deploy.nginx.trusted_proxies if not network_fix(address)]
    for family, public in (("IPv4", "0.0.0.0/0"), ("IPv6", "2000::/3")):
        if proxies and (covered := share(proxies, public)) > LARGEST_SHARE_OF_PROXIES:
            fix = "name the addresses of the load balancer"
            what = f"covers {covered:.0%} of all {family} addresses, so strangers choose the address that they count by"
            yield "nginx.trusted_proxies", Fault(what, fix)


def _reachable_past_nginx(deploy: Deploy) -> bool:
    if deploy.port == "none" or deploy.host in LOOPBACK or not is_address(deploy.host):
        return False
    if deploy.host.lower().startswith(MAPPED):
        return False  # refused for what it is
    from ipaddress import ip_address

    return not ip_address(deploy.host).is_loopback
