"""What must hold between settings, beyond the type and range of each: one function for each rule, with its reason.

A rule is asked when all its `keys` are sound, and answers with the key to change and the fault; `wsbundle explain`
prints them. What must hold between the rendered files stands in `generator.rendering.agreement` in the same way.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from posixpath import normpath
from typing import Any, TypeAlias

import msgspec

from generator.config.document import Origin
from generator.config.schema import Deploy, LetsEncrypt, bus, keys_file
from generator.paths import Paths
from generator.quoting import Unquotable, env
from service.declaration import Fault, settings_of, values_of
from service.settings import Settings

Origins: TypeAlias = Mapping[str, Origin]
Findings: TypeAlias = Iterator[tuple[str, Fault]]
Check: TypeAlias = Callable[[Deploy, Origins], Findings]

LOOPBACK = ("127.0.0.1", "::1")
_MAPPED = "::ffff:"  # Pythons differ on whether such an address is loopback

# Reserved by RFC 2606, RFC 6761 and RFC 6762, or never delegated: no certificate authority vouches for a name below.
_EXAMPLES = ("example", "example.com", "example.net", "example.org", "invalid")
_MAY_BE_PLACEHOLDERS = ("name", "user", "socket", "certificate.file", "certificate.key")
_NOT_PUBLIC = (*_EXAMPLES, "internal", "local", "localhost", "test")
# What templates and guides leave to be filled in; as a whole word, since companies are called YourHosting.
PLACEHOLDER = r"(?<![a-z0-9-])(?:your-?(?:domain|host)|changeme)(?![a-z0-9-])|YOUR_\w+|YOUR/PATH|/path/to"

# Other packages' files stand under these names in /etc, /etc/systemd/system, /etc/nginx or /var/lib.
_TAKEN_NAMES = """
    apparmor apt certbot credentials cron dbus default docker dpkg emergency fail2ban fstab getty group hosts
    letsencrypt logrotate machine-id mysql networking nginx passwd postfix postgresql private profile rc-local redis
    rescue root rsyslog security shadow skel snap ssh sshd ssl sudo supervisor supervisord sysctl syslog systemd udev
    ufw user www-data
""".split()

# Debian's own accounts and groups, besides, and those of well-known services. A group counts as much as an account: a
# user that is made with its name becomes its member, and a member of docker or disk is as good as root.
_TAKEN_USERS = """
    _apt adm audio backup bin cdrom crontab daemon dialout dip disk fax floppy games gnats input irc kmem kvm libvirt
    list lp lxd mail man messagebus netdev news nobody nogroup operator plugdev polkitd proxy render sasl sgx src staff
    sync sys tape tss tty users utmp uucp uuidd video voice
""".split()

# Hidden by ProtectHome= and PrivateTmp= of the unit, and elsewhere no place for what nobody else may read or replace.
_HIDDEN_PLACES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")

# They change what Python, gunicorn, uvicorn, systemd or the linker do, behind every rendered file's back.
_MEANT_FOR_OTHERS = ("GUNICORN_", "LD_", "LISTEN_", "NOTIFY_", "PYTHON", "UVICORN_", "WATCHDOG_")
_MEANT_FOR_OTHERS_EXACTLY = """
    HOME IFS PATH RUNTIME_DIRECTORY SHELL USER WEBSOCKET_CODE WEBSOCKET_ENV_FILE WEBSOCKET_LIFELINE_FD
    WEBSOCKET_LISTEN_FDS WEBSOCKET_PAGE WEB_CONCURRENCY XDG_RUNTIME_DIR
""".split()


# How long the service waits for the last client's answer to its close frame: `service.links.link.CLOSE_GRACE_S`.
CLOSE_GRACE_S = 3
# What the service writes around a message, at most: two addresses and a few words, and what a place in a queue costs.
ENVELOPE_SIZE = 2048
# Of the public addresses of a family: more than that is no load balancer of anybody.
LARGEST_SHARE_OF_PROXIES = 1 / 16


class Rule(msgspec.Struct, frozen=True):
    """What must hold; a finding is an error, or a warning where the deployment runs all the same."""

    name: str
    keys: tuple[str, ...]
    reason: str
    check: Check
    warns: bool = False


RULES: list[Rule] = []


def rule(*keys: str, because: str, warns: bool = False) -> Callable[[Check], Check]:
    """Make a rule of a function: `drain_fits` is the rule drain-fits."""

    def entered(check: Check) -> Check:
        RULES.append(Rule(check.__name__.replace("_", "-"), keys, because, check, warns))
        return check

    return entered


@rule("domain", because="A placeholder that is forgotten is found by the first client that cannot connect.")
def domain_is_real(deploy: Deploy, _: Origins) -> Findings:
    if re.search(PLACEHOLDER, deploy.domain):
        yield "domain", Fault(f"'{deploy.domain}' is a placeholder", "write the host name that clients will use")


@rule(*_MAY_BE_PLACEHOLDERS, because="What is left to fill in names nothing on this host.")
def nothing_is_a_placeholder(deploy: Deploy, _: Origins) -> Findings:
    values = values_of(deploy)
    for key in _MAY_BE_PLACEHOLDERS:
        if re.search(PLACEHOLDER, values[key] or ""):
            yield key, Fault(f"'{values[key]}' is a placeholder", "write your own")


@rule(
    *("domain", "tls", "letsencrypt.server"),
    because="Let's Encrypt proves control of a public DNS name; for any other the first request fails, and five "
    "failures an hour lock the account out.",
)
def domain_is_public(deploy: Deploy, _: Origins) -> Findings:
    if not _asks_lets_encrypt(deploy):
        return
    if _is_address(deploy.domain) or "." not in deploy.domain or _is_below(deploy.domain, _NOT_PUBLIC):
        fix = "write a public host name, or use tls: files"
        yield "domain", Fault(f"Let's Encrypt issues no certificate for '{deploy.domain}'", fix)


@rule(
    *("domain", "tls", "letsencrypt.server"),
    because="example.com and its like never resolve to your host (RFC 2606); rendering to look at the files is fine.",
    warns=True,
)
def domain_is_no_example(deploy: Deploy, _: Origins) -> Findings:
    if not _asks_lets_encrypt(deploy) and _is_below(deploy.domain, _EXAMPLES):
        fix = "write your own before you install"
        yield "domain", Fault(f"'{deploy.domain}' is reserved for examples, so no client will find it", fix)


@rule(
    "name",
    because="Unit, site, user and directories carry the name; under one that another package uses they would replace "
    "its.",
)
def name_is_free(deploy: Deploy, _: Origins) -> Findings:
    if deploy.name in _TAKEN_NAMES or _is_systemds(deploy.name):
        fix = "use another, such as queue-websocket"
        yield "name", Fault(f"'{deploy.name}' is taken: other packages have files of that name", fix)


@rule("user", "name", because="Whoever breaks into the service is that user, and has all that the user owns.")
def user_is_its_own(deploy: Deploy, _: Origins) -> Findings:
    if deploy.user is None and deploy.name in _TAKEN_USERS:
        fix = "use another name, or give the deployment a user of another name"
        yield "name", Fault(f"'{deploy.name}' is a user of the system", fix)
    elif deploy.user is not None and (deploy.user in (*_TAKEN_NAMES, *_TAKEN_USERS) or _is_systemds(deploy.user)):
        fix = "leave user out: the deployment gets one of its own"
        yield "user", Fault(f"'{deploy.user}' owns more than this service", fix)


@rule(
    *("socket", "host", "port"),
    because="nginx, the service and the health check must mean the same listener; two in one file leave open which.",
)
def one_listener(deploy: Deploy, origins: Origins) -> Findings:
    if deploy.socket is None or "socket" not in origins:
        return
    given = list(origins)
    for key in ("host", "port"):
        # An overlay that says `socket` replaces the base file's host and port; one file that says both is unclear.
        if key in origins and origins[key].source == origins["socket"].source:
            yield "socket", Fault(f"is given beside {key}", f"keep one: remove socket, or {key}")
        elif key in origins and given.index(key) > given.index("socket"):
            yield key, Fault(f"has no effect: {origins['socket']} gives a socket", "write `socket: null` beside it")


@rule(
    *("socket", "name"),
    because="/run/<name> is made at every boot with the rights that let nginx, and nobody else, connect.",
)
def socket_is_in_its_directory(deploy: Deploy, _: Origins) -> Findings:
    if deploy.socket is not None:
        directory, _slash, file = deploy.socket.rpartition("/")
        if directory != f"/run/{deploy.name}" or file in ("", ".", ".."):
            fix = f"use a file in /run/{deploy.name}, such as /run/{deploy.name}/ws.sock"
            yield "socket", Fault(f"'{deploy.socket}' is not in the deployment's own directory", fix)


@rule(
    *("bus", "name"),
    because="The file system is read-only to the service; below /run/<name> the workers get a directory of their own.",
)
def bus_is_in_its_directory(deploy: Deploy, _: Origins) -> Findings:
    directory, _slash, last = (deploy.bus or "").rpartition("/")
    if deploy.bus and (directory != f"/run/{deploy.name}" or last in ("", ".", "..")):
        fix = f"leave it out: it is /{Paths(deploy.name).bus} then"
        yield "bus", Fault(f"'{deploy.bus}' is no place for the workers alone in /run/{deploy.name}", fix)


@rule(
    *("socket", "bus", "keys", "name", "certificate.file", "certificate.key"),
    because="Two things on one path replace each other, or keep the service from starting.",
)
def paths_differ(deploy: Deploy, origins: Origins) -> Findings:
    given = {"socket": deploy.socket, "certificate.file": deploy.certificate.file}
    given |= {"certificate.key": deploy.certificate.key, "bus": bus(deploy), "keys": keys_file(deploy)}
    paths = Paths(deploy.name)
    taken = {f"/{path}": "a rendered file" for path in (paths.env, paths.gunicorn)}
    for key in sorted(filter(given.get, given), key=origins.__contains__):  # those that were left out come first
        path = re.sub("/+", "/", normpath(str(given[key])))
        by = taken.setdefault(path, key)
        if by != key and {by, key} != {"certificate.file", "certificate.key"}:  # one file may hold both
            yield key, Fault(f"'{given[key]}' is the path of {by} as well", "use another")
        elif key not in ("socket", "bus") and (above := _parent_in(taken, path)):  # these two have one directory
            yield key, Fault(f"'{given[key]}' is below the path of {taken[above]}", "use another")
        elif key not in ("socket", "bus") and (below := [x for x in taken if _parent_in([path], x)]):
            yield key, Fault(f"'{given[key]}' is a directory: {taken[below[0]]} is in it", "use another")


def _parent_in(paths: Iterable[str], path: str) -> str | None:
    return next((each for each in paths if path.startswith(f"{each}/")), None)


@rule(
    *("keys", "name"),
    because="The service has a user of its own, and under systemd no home directories and a /tmp of its own.",
)
def keys_can_be_read(deploy: Deploy, _: Origins) -> Findings:
    hidden = next((place for place in _HIDDEN_PLACES if (deploy.keys or "").startswith(place)), None)
    if hidden:
        fix = f"use /{Paths(deploy.name).keys}, which is meant when keys is left out"
        yield "keys", Fault(f"'{deploy.keys}' is in {hidden}, which the service cannot see", fix)


@rule("host", "socket", because="systemd binds addresses; it looks no name up.")
def host_is_an_address(deploy: Deploy, _: Origins) -> Findings:
    if deploy.host.lower().startswith(_MAPPED):
        fix = f"write the IPv4 address: {deploy.host[7:]}"
        yield "host", Fault(f"'{deploy.host}' is an IPv4 address in IPv6's clothes (RFC 4291, section 2.5.5.2)", fix)
        return
    if deploy.host not in LOOPBACK and not _is_address(deploy.host):
        yield "host", Fault(f"'{deploy.host}' is no IPv4 or IPv6 address", "use one, such as 127.0.0.1")


@rule(
    *("host", "socket", "expose", "tls", "nginx.trusted_proxies"),
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
    *("ping.timeout", "ping.interval"),
    because="A peer that may answer later than the next ping is due is never given up on time.",
)
def ping_timeout_within_interval(deploy: Deploy, _: Origins) -> Findings:
    ping = deploy.ping
    if ping.timeout > ping.interval:
        fix = f"use at most {ping.interval:g}, or raise ping.interval"
        yield "ping.timeout", Fault(f"{ping.timeout:g} exceeds ping.interval ({ping.interval:g})", fix)


@rule(
    *("ping.interval", "nginx.idle_limit"),
    because="A proxy that sees no traffic for its idle limit cuts the connection; pings are the traffic.",
)
def ping_before_idle_limit(deploy: Deploy, _: Origins) -> Findings:
    limit = deploy.nginx.idle_limit
    if limit is not None and deploy.ping.interval >= limit:
        fix = f"use less than {limit}, such as {max(1, limit * 2 // 5)}"
        yield "ping.interval", Fault(f"{deploy.ping.interval:g} is not below nginx.idle_limit ({limit})", fix)


@rule(
    *("ping.interval", "nginx.idle_limit", "nginx.trusted_proxies"),
    because="Load balancers cut silent connections, most of them after 60 s; a ping at 60 s races the cut.",
    warns=True,
)
def ping_before_usual_idle_limit(deploy: Deploy, _: Origins) -> Findings:
    if deploy.nginx.trusted_proxies and deploy.nginx.idle_limit is None and deploy.ping.interval >= 60:
        fix = "use 25, or set nginx.idle_limit to what the proxy allows"
        yield "ping.interval", Fault(f"{deploy.ping.interval:g}: most proxies cut a silent connection at 60 s", fix)


@rule(
    *("tls", "certificate.file", "certificate.key"),
    because="nginx does not start without the files it is told to serve, and with it every other site of the host.",
)
def certificate_is_named(deploy: Deploy, _: Origins) -> Findings:
    named = {"certificate.file": deploy.certificate.file, "certificate.key": deploy.certificate.key}
    for key, path in named.items():
        if deploy.tls == "files" and path is None:
            yield key, Fault("is missing, and tls is files", f"write `{key.rpartition('.')[2]}:` below `certificate:`")
        elif deploy.tls != "files" and path is not None:
            yield key, Fault(f"has no effect: tls is {deploy.tls}", "write tls: files, or remove it")


@rule(
    *("tls", "letsencrypt.email", "letsencrypt.server"),
    because="Whoever names a certificate authority wants encryption, which only tls: letsencrypt gets from there.",
)
def authority_is_asked(deploy: Deploy, _: Origins) -> Findings:
    asked, default = deploy.letsencrypt, LetsEncrypt()
    given = {"letsencrypt.email": asked.email != default.email, "letsencrypt.server": asked.server != default.server}
    for key, is_given in given.items():
        if deploy.tls != "letsencrypt" and is_given:
            yield key, Fault(f"has no effect: tls is {deploy.tls}", "write tls: letsencrypt, or remove it")


@rule(
    *("nginx.trusted_proxies", "nginx.health_from"),
    because="nginx refuses what is no address, and reads 10.1.2.3/8 as the whole of 10.0.0.0/8.",
)
def addresses_are_networks(deploy: Deploy, _: Origins) -> Findings:
    for key, addresses in (
        ("nginx.trusted_proxies", deploy.nginx.trusted_proxies),
        ("nginx.health_from", deploy.nginx.health_from),
    ):
        for address in addresses:
            if address not in LOOPBACK and (fix := _network_fix(address)):
                is_mapped = address.lower().startswith(_MAPPED)
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
        elif _same_address(address, listen[:position]):
            yield "nginx.listen", Fault(f"'{address}' is given twice", "keep one")


def _unfit_to_listen_on(address: str) -> Fault | None:
    from ipaddress import ip_address

    if not _is_address(address):
        return Fault(f"'{address}' is not an IPv4 or IPv6 address", "use one, such as 203.0.113.5")
    if address.lower().startswith(_MAPPED):
        return Fault(f"'{address}' is IPv4 written as IPv6", f"write the IPv4 address: {address[len(_MAPPED) :]}")
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


@rule("nginx.trusted_proxies", because="Whoever is trusted with X-Forwarded-For decides which client a limit counts.")
def proxies_are_few(deploy: Deploy, _: Origins) -> Findings:
    proxies = [address for address in deploy.nginx.trusted_proxies if not _network_fix(address)]
    for family, public in (("IPv4", "0.0.0.0/0"), ("IPv6", "2000::/3")):
        if (share := _share(proxies, public)) > LARGEST_SHARE_OF_PROXIES:
            fix = "name the addresses of the load balancer"
            what = f"covers {share:.0%} of all {family} addresses, so strangers choose the address that they count by"
            yield "nginx.trusted_proxies", Fault(what, fix)


def _share(networks: list[str], public: str) -> float:
    """How much of the public addresses of a family these cover, from 0 to 1."""
    from ipaddress import collapse_addresses, ip_network

    whole = ip_network(public)
    alike: list[Any] = [each for each in map(ip_network, networks) if each.version == whole.version]
    within = [each for each in collapse_addresses(alike) if each.overlaps(whole)]
    return float(sum(min(each.num_addresses, whole.num_addresses) for each in within) / whole.num_addresses)


@rule(
    *("limits.connections", "limits.connections_per_address"),
    because="A share above the whole never takes effect, so one address could hold every connection.",
)
def address_share(deploy: Deploy, _: Origins) -> Findings:
    limits = deploy.limits
    if limits.connections_per_address > limits.connections:
        fix = f"use at most {limits.connections}"
        what = f"{limits.connections_per_address} exceeds limits.connections ({limits.connections})"
        yield "limits.connections_per_address", Fault(what, fix)


@rule(
    *("drain.window", "drain.timeout"),
    because="The last client is sent away at the end of the window, and then has 3 s to answer; whoever is not gone "
    "when drain.timeout ends is cut off, sees 1006, and takes it for a fault.",
)
def drain_fits(deploy: Deploy, _: Origins) -> Findings:
    drain, grace = deploy.drain, CLOSE_GRACE_S
    needed = drain.window + grace
    if drain.timeout < needed:
        fix = f"raise drain.timeout to {needed} or more"
        if drain.timeout >= grace:
            fix = f"use at most {drain.timeout - grace}, or {fix}"
        what = f"{drain.window} leaves less than {grace} s of drain.timeout ({drain.timeout}) for the last clients"
        yield "drain.window", Fault(what, fix)


@rule(
    *("limits.bytes_per_second", "limits.message_size"),
    because="The longest message that is allowed would silence its sender for longer than a second, each time.",
)
def message_within_a_second(deploy: Deploy, _: Origins) -> Findings:
    limits = deploy.limits
    if limits.bytes_per_second < limits.message_size:
        what = f"{limits.bytes_per_second} is below limits.message_size ({limits.message_size})"
        yield "limits.bytes_per_second", Fault(what, f"use {limits.message_size} or more, or lower limits.message_size")


@rule(
    *("limits.queue", "limits.message_size"),
    because="What does not fit into the queue is never delivered: its recipient is closed with 4101 instead.",
)
def queue_holds_a_message(deploy: Deploy, _: Origins) -> Findings:
    limits = deploy.limits
    needed = limits.message_size + ENVELOPE_SIZE
    if limits.queue < needed:
        what = f"{limits.queue} has no room for one message (limits.message_size is {limits.message_size})"
        yield "limits.queue", Fault(what, f"use {needed} or more, or lower limits.message_size")


@rule(
    *("limits.handshake_burst", "limits.connections_per_address"),
    because="After a restart all clients behind one address come back at once; beyond rate and burst nginx answers "
    "429.",
    warns=True,
)
def burst_carries_an_office(deploy: Deploy, _: Origins) -> Findings:
    limits = deploy.limits
    if limits.handshake_burst < limits.connections_per_address:
        what = f"{limits.handshake_burst} is below limits.connections_per_address ({limits.connections_per_address})"
        yield "limits.handshake_burst", Fault(what, f"use {limits.connections_per_address} or more")


@rule(
    "env",
    because="Two sources for one setting disagree one day; and variables such as WEB_CONCURRENCY change the number of "
    "processes behind every rendered file's back.",
)
def env_is_the_operators(deploy: Deploy, _: Origins) -> Findings:
    ours = {setting.extra["env"]: setting.key for setting in settings_of(Settings)}
    for variable in deploy.env:
        if variable in ours:
            yield f"env.{variable}", Fault("is rendered from a setting", f"set `{ours[variable]}` instead")
        elif variable.startswith(_MEANT_FOR_OTHERS) or variable in _MEANT_FOR_OTHERS_EXACTLY:
            yield f"env.{variable}", Fault("would change how the service is run", "remove it, or use another name")


@rule(
    *("env", "welcome"),
    because="systemd, the shell and dotenv read .env by different rules; a value must mean the same to all three.",
)
def values_fit_the_env_file(deploy: Deploy, _: Origins) -> Findings:
    for key, value in {"welcome": deploy.welcome, **{f"env.{name}": text for name, text in deploy.env.items()}}.items():
        try:
            env(value)
        except Unquotable as error:
            yield key, Fault(f"cannot stand in .env: {error.what}", error.fix)


def _asks_lets_encrypt(deploy: Deploy) -> bool:
    """Not where an authority of the operator's own is asked: that one may know any name."""
    host = deploy.letsencrypt.server.removeprefix("https://").partition("/")[0]
    return deploy.tls == "letsencrypt" and _is_below(host, ("letsencrypt.org",))


def _is_systemds(name: str) -> bool:
    return name.startswith("systemd-")


def _is_below(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == parent or domain.endswith(f".{parent}") for parent in parents)


def _is_address(text: str) -> bool:
    from ipaddress import ip_address  # only an unusual configuration pays for it

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _same_address(address: str, others: tuple[str, ...]) -> bool:
    from ipaddress import ip_address

    return any(_is_address(other) and ip_address(other) == ip_address(address) for other in others)


def _reachable_past_nginx(deploy: Deploy) -> bool:
    if deploy.socket is not None or deploy.host in LOOPBACK or not _is_address(deploy.host):
        return False
    if deploy.host.lower().startswith(_MAPPED):
        return False  # refused for what it is
    from ipaddress import ip_address

    return not ip_address(deploy.host).is_loopback


def _network_fix(address: str) -> str:
    from ipaddress import ip_address, ip_network

    base, slash, bits = address.partition("/")
    if base.lower().startswith(_MAPPED):  # nginx compares clients of IPv4 with networks of IPv4 only
        shorter = f"/{int(bits) - 96}" if bits.isdecimal() and 96 <= int(bits) < 128 else ""
        return f"write {base[len(_MAPPED) :]}{shorter}" if "." in base else "write the IPv4 network"
    try:
        network = ip_network(address, strict=False)
    except ValueError:
        return "write one such as 10.0.0.0/8"
    exact = network.network_address == ip_address(base) and (not slash or bits == str(network.prefixlen))
    return "" if exact else f"write {network}"
