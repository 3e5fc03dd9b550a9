"""What must hold between settings, beyond the type and range of each: one function for each rule, with its reason.

A rule answers with the key to change and the fault; `wsbundle explain` prints them. Where one of its `keys` is wrong in
itself, it is asked with values that stand for all that may have been meant, and what it says of each counts. What must
hold between the rendered files stands in `generator.rendering.agreement` in the same way. Rules about addresses that
are listened on stand in `generator.config.listening`, about the engine in `generator.config.engine_rules`, about an
application of one's own in `generator.config.app_rules`.
"""

import re
from collections.abc import Iterable
from posixpath import normpath

from generator.config import app_rules, engine_rules, listening
from generator.config.addresses import is_address
from generator.config.rule import RULES, Findings, Origins, rule
from generator.config.schema import Deploy, LetsEncrypt, bus, domains, keys_file, socket
from generator.paths import HIDDEN_PLACES, UNITS, Paths
from generator.quoting import Unquotable, env
from service.declaration import Fault, settings_of, values_of
from service.settings import Settings

__all__ = ["ELSEWHERE", "PLACEHOLDER", "RULES"]

# Once they are imported, their rules are among all others; see the end of this module for their order.
ELSEWHERE = (app_rules, listening, engine_rules)

# Reserved by RFC 2606, RFC 6761 and RFC 6762, or never delegated: no certificate authority vouches for a name below.
_EXAMPLES = ("example", "example.com", "example.net", "example.org", "invalid")
_MAY_BE_PLACEHOLDERS = ("name", "user", "socket", "certificate.file", "certificate.key")
_NOT_PUBLIC = (*_EXAMPLES, "internal", "local", "localhost", "test")
# What templates and guides leave to be filled in; as a whole word, since companies are called YourHosting.
_ENDS_IN_A_NUMBER = r"(^|\.)([0-9]+|0x[0-9a-f]*)$"
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

# They change what Python, gunicorn, uvicorn, systemd or the linker do, behind every rendered file's back.
_MEANT_FOR_OTHERS = ("GUNICORN_", "LD_", "LISTEN_", "NOTIFY_", "PYTHON", "UVICORN_", "WATCHDOG_")
_MEANT_FOR_OTHERS_EXACTLY = """
    HOME IFS PATH RUNTIME_DIRECTORY SHELL USER WEBSOCKET_APP_DIRECTORY WEBSOCKET_CODE WEBSOCKET_ENV_FILE
    WEBSOCKET_BOOT_ID WEBSOCKET_ROOT_PATH
    WEBSOCKET_LIFELINE_FD WEBSOCKET_LISTEN_FDS WEBSOCKET_PAGE WEB_CONCURRENCY XDG_RUNTIME_DIR
""".split()

# Source: "Rate Limits" in Let's Encrypt's documentation.
LETS_ENCRYPTS_NAMES = 100
# How long the service waits for the last client's answer to its close frame: `service.core.bounds.CLOSE_GRACE_S`.
CLOSE_GRACE_S = 3
# What the service writes around a message, at most: two addresses and a few words, and what a place in a queue costs.
ENVELOPE_SIZE = 2048
# The longest token that the service looks at: `service.tokens.MAX_TOKEN_LENGTH`.
LONGEST_TOKEN = 4096
# What a message in a mailbox counts beside its body: `service.mailbox.ledger.OVERHEAD`.
MAILBOX_OVERHEAD = 64


@rule("domain", because="A forgotten placeholder is noticed only when the first client cannot connect.")
def domain_is_real(deploy: Deploy, _: Origins) -> Findings:
    for domain in domains(deploy):
        if re.search(PLACEHOLDER, domain):
            yield "domain", Fault(f"'{domain}' is a placeholder", "write the host name that clients will use")


@rule(
    "domain",
    because="Clients read a name whose last part is a number as an IPv4 address, and `192.168.1` as 192.168.0.1 (URL "
    "Standard, section 3.5); most refuse what is not one.",
)
def domain_is_a_name_or_an_address(deploy: Deploy, _: Origins) -> Findings:
    for domain in domains(deploy):
        if re.search(_ENDS_IN_A_NUMBER, domain) and not is_address(domain):
            fix = "write the host name that clients will use, or all four parts of the address"
            yield "domain", Fault(f"'{domain}' ends in a number, and is not an IPv4 address", fix)


@rule("domain", because="nginx ignores a name that a site has already, and says so at every start.")
def domains_differ(deploy: Deploy, _: Origins) -> Findings:
    yield from _given_twice("domain", domains(deploy))


@rule("hosts", because="`wsbundle deploy` would install there twice.")
def hosts_differ(deploy: Deploy, _: Origins) -> Findings:
    yield from _given_twice("hosts", deploy.hosts)


def _given_twice(key: str, values: tuple[str, ...]) -> Findings:
    for value in dict.fromkeys(each for each in values if values.count(each) > 1):
        yield key, Fault(f"'{value}' is given twice", "keep one")


@rule(
    *("domain", "tls", "letsencrypt.server"),
    because="A certificate of Let's Encrypt has at most 100 names, and five failures an hour lock the account out.",
)
def domains_fit_a_certificate(deploy: Deploy, _: Origins) -> Findings:
    if _asks_lets_encrypt(deploy) and len(domains(deploy)) > LETS_ENCRYPTS_NAMES:
        fix = f"use at most {LETS_ENCRYPTS_NAMES}, or two deployments, or tls: files"
        yield "domain", Fault(f"has {len(domains(deploy))} names, too many for one certificate", fix)


@rule(*_MAY_BE_PLACEHOLDERS, because="A placeholder names nothing on this host.")
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
    for domain in domains(deploy):
        if is_address(domain) or "." not in domain or _is_below(domain, _NOT_PUBLIC):
            fix = "write a public host name, or use tls: files"
            yield "domain", Fault(f"Let's Encrypt issues no certificate for '{domain}'", fix)


@rule(
    *("domain", "tls", "letsencrypt.server"),
    because="example.com and its like never resolve to your host (RFC 2606); rendering to look at the files is fine.",
    warns=True,
)
def domain_is_no_example(deploy: Deploy, _: Origins) -> Findings:
    for domain in () if _asks_lets_encrypt(deploy) else domains(deploy):
        if _is_below(domain, _EXAMPLES):
            fix = "write your own before you install"
            yield "domain", Fault(f"'{domain}' is reserved for examples, so no client will find it", fix)


@rule(
    "name",
    because="Unit, site, user and directories carry the name; under one that another package uses they would replace "
    "its.",
)
def name_is_free(deploy: Deploy, _: Origins) -> Findings:
    if deploy.name in _TAKEN_NAMES or _is_systemds(deploy.name):
        fix = "use another, such as queue-websocket"
        yield "name", Fault(f"'{deploy.name}' is taken: other packages have files of that name", fix)


@rule("replaces", "name", because="A file cannot make way for another one at its own place.")
def what_is_replaced_has_another_name(deploy: Deploy, _: Origins) -> Findings:
    paths = Paths(deploy.name)
    ours = {f"/{path}" for path in (paths.service, paths.socket, paths.nginx_socket, paths.supervisor, paths.site_link)}
    for path in deploy.replaces:
        if path in ours:
            yield (
                "replaces",
                Fault(f"'{path}' is where this deployment has its own", "give the deployment another name"),
            )


@rule("replaces", because="It is put away once; what stands there a second time would not be found.")
def replaced_files_differ(deploy: Deploy, _: Origins) -> Findings:
    yield from _given_twice("replaces", deploy.replaces)


@rule("replaces", because="Without nginx no client comes in, and without ssh nobody who could bring it back.")
def the_system_is_not_replaced(deploy: Deploy, _: Origins) -> Findings:
    for path in deploy.replaces:
        if path.startswith(f"/{UNITS}") and path.partition(f"/{UNITS}")[2].partition(".")[0] in _TAKEN_NAMES:
            yield "replaces", Fault(f"'{path}' is of the system", "name what was set up by hand")


@rule("name", "user", because="A deployment without `user` gets one of its own, with its name.")
def name_is_not_a_users(deploy: Deploy, _: Origins) -> Findings:
    if deploy.user is None and deploy.name in _TAKEN_USERS:
        fix = "use another name, or give the deployment a user of another name"
        yield "name", Fault(f"'{deploy.name}' is a user of the system", fix)


@rule("user", because="An attacker who takes over the service is that user, and has all that the user owns.")
def user_is_its_own(deploy: Deploy, _: Origins) -> Findings:
    if deploy.user is not None and (deploy.user in (*_TAKEN_NAMES, *_TAKEN_USERS) or _is_systemds(deploy.user)):
        fix = "leave user out: the deployment gets one of its own"
        yield "user", Fault(f"'{deploy.user}' owns more than this service", fix)


@rule(
    *("bus", "name"),
    because="The file system is read-only to the service; below /run/<name> the workers get a directory of their own.",
)
def bus_is_in_its_directory(deploy: Deploy, _: Origins) -> Findings:
    directory, _slash, last = (deploy.bus or "").rpartition("/")
    if deploy.bus and (directory != f"/run/{deploy.name}" or last in ("", ".", "..")):
        fix = f"leave it out: it is /{Paths(deploy.name).bus} then"
        yield "bus", Fault(f"'{deploy.bus}' is not a directory of the workers' own in /run/{deploy.name}", fix)


@rule(
    *("socket", "bus", "keys", "name", "certificate.file", "certificate.key"),
    because="Two things on one path replace each other, or keep the service from starting.",
)
def paths_differ(deploy: Deploy, origins: Origins) -> Findings:
    given = {"socket": socket(deploy), "certificate.file": deploy.certificate.file}
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
    "keys",
    because="The service has a user of its own, and under systemd no home directories and a /tmp of its own.",
)
def keys_can_be_read(deploy: Deploy, _: Origins) -> Findings:
    hidden = next((place for place in HIDDEN_PLACES if (deploy.keys or "").startswith(place)), None)
    if hidden:
        fix = "leave it out: it is /etc/NAME/keys.json then"
        yield "keys", Fault(f"'{deploy.keys}' is in {hidden}, which the service cannot see", fix)


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
    because="nginx does not start without the files that a site names, and then no site of the host is served.",
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
    because="Naming a certificate authority asks for encryption, and only tls: letsencrypt gets a certificate from it.",
)
def authority_is_asked(deploy: Deploy, _: Origins) -> Findings:
    asked, default = deploy.letsencrypt, LetsEncrypt()
    given = {"letsencrypt.email": asked.email != default.email, "letsencrypt.server": asked.server != default.server}
    for key, is_given in given.items():
        if deploy.tls != "letsencrypt" and is_given:
            yield key, Fault(f"has no effect: tls is {deploy.tls}", "write tls: letsencrypt, or remove it")


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
    because="The last client is sent away at the end of the window, and then has 3 s to answer; a client that is "
    "still connected when drain.timeout ends is cut off, and sees 1006, as after a failure.",
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
    *("drain.keep", "server", "manager", "workers"),
    because="A connection outlives a process only if somebody holds it until the next one is there, and that one knows "
    "how far it had come. At a restart systemd holds it, and supervisor does not; at a reload the next worker does. "
    "Of the servers, uvicorn alone, as it is run here, can go on with a WebSocket that another process has begun.",
)
def connections_can_be_kept(deploy: Deploy, origins: Origins) -> Findings:
    if deploy.drain.keep and "drain.keep" in origins:
        if deploy.server != "uvicorn":
            yield "drain.keep", Fault(f"has no effect: server is {deploy.server}", "use server: uvicorn, or remove it")
        elif deploy.manager != "systemd" and deploy.workers == 1:
            fix = "use manager: systemd, or several workers, which a reload replaces, or remove it"
            yield "drain.keep", Fault(f"has no effect: manager is {deploy.manager}", fix)


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
    *("limits.message_size", "auth"),
    because="A client of nc.v1 shows its token in `hello`, and is closed with 1009 if that is too long a message.",
    warns=True,
)
def message_holds_a_token(deploy: Deploy, _: Origins) -> Findings:
    size, needed = deploy.limits.message_size, LONGEST_TOKEN + ENVELOPE_SIZE
    if deploy.auth == "token" and size < needed:
        what = f"{size} may have no room for a token, which can have {LONGEST_TOKEN} characters"
        yield "limits.message_size", Fault(what, f"use {needed} or more, or issue short tokens only")


@rule(
    *("mailbox.keep", "auth"),
    because="Without tokens whoever registers an address first would read what was kept for another.",
)
def mailbox_has_an_owner(deploy: Deploy, _: Origins) -> Findings:
    if deploy.mailbox.keep != "none" and deploy.auth != "token":
        fix = "write auth: token, or leave mailbox.keep out"
        yield "mailbox.keep", Fault(f"'{deploy.mailbox.keep}' needs tokens, and auth is {deploy.auth}", fix)


@rule(
    *("mailbox.keep", "engine.url"),
    because="What is kept on the disk of one host is not found by a client that comes back to another.",
)
def mailbox_is_where_clients_come(deploy: Deploy, _: Origins) -> Findings:
    keep, url = deploy.mailbox.keep, deploy.engine.url
    if keep == "disk" and url is not None:
        what = "'disk' keeps messages on one host, and engine.url joins several"
        yield "mailbox.keep", Fault(what, "use engine, or leave engine.url out")
    if keep == "engine" and url is None:
        yield "mailbox.keep", Fault("'engine' needs one, and engine.url is not set", "set engine.url, or use disk")


@rule(
    *("mailbox.keep", "mailbox.bytes", "mailbox.total", "limits.message_size"),
    because="A message that fits into no mailbox is refused as if the mailbox were full, for ever.",
)
def mailbox_holds_a_message(deploy: Deploy, _: Origins) -> Findings:
    kept, needed = deploy.mailbox, deploy.limits.message_size + MAILBOX_OVERHEAD
    if kept.keep == "none":
        return
    if kept.bytes < needed:
        what = f"{kept.bytes} has no room for one message (limits.message_size is {deploy.limits.message_size})"
        yield "mailbox.bytes", Fault(what, f"use {needed} or more, or lower limits.message_size")
    elif kept.total < kept.bytes:
        what = f"{kept.total} has no room for one mailbox (mailbox.bytes is {kept.bytes})"
        yield "mailbox.total", Fault(what, f"use {kept.bytes} or more, or lower mailbox.bytes")


@rule(
    *("mailbox.directory", "name"),
    because="The file system is read-only to the service; below /var/lib/<name> it has a directory of its own, which "
    "stays when the deployment is removed.",
)
def mailbox_is_in_its_directory(deploy: Deploy, _: Origins) -> Findings:
    path, home = deploy.mailbox.directory, f"/var/lib/{deploy.name}"
    if path and (normpath(path) != path or not path.startswith(f"{home}/")):
        fix = f"leave it out: it is /{Paths(deploy.name).mailbox} then"
        yield "mailbox.directory", Fault(f"'{path}' is not a directory below {home}", fix)


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
    ours = {setting.extra["env"]: setting.key for setting in settings_of(Settings)} if deploy.env else {}
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
            yield key, Fault(f"cannot be written to .env: {error.what}", error.fix)


def _asks_lets_encrypt(deploy: Deploy) -> bool:
    """Not where an authority of the operator's own is asked: that one may know any name."""
    host = deploy.letsencrypt.server.removeprefix("https://").partition("/")[0]
    return deploy.tls == "letsencrypt" and _is_below(host, ("letsencrypt.org",))


def _is_systemds(name: str) -> bool:
    return name.startswith("systemd-")


def _is_below(domain: str, parents: tuple[str, ...]) -> bool:
    return any(domain == parent or domain.endswith(f".{parent}") for parent in parents)


# Whichever module was imported first: messages, and the tables of the documentation, are in this order.
_PLACES = {module.__name__: place for place, module in enumerate(ELSEWHERE)}
RULES.sort(key=lambda each: _PLACES.get(each.check.__module__, len(_PLACES)))
