"""What must hold between the rendered files: each agreement reads the files themselves, as their programs will.

`generator.config.rules` asks whether the settings make sense; this asks whether five files in five languages say the
same. It trusts neither the templates nor the arithmetic behind them, so a line that is changed in one of them and
forgotten in another is refused before anything is written.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from generator.config.rules import PLACEHOLDER
from generator.paths import Paths
from generator.rendering.bundle import Bundle

Disagreements: TypeAlias = Iterator[tuple[str, str]]

# A program that is stopped needs this long to end after the one inside it has, in seconds.
MARGIN_S = 5
# Files that a server process holds besides its connections: libraries, logs, listeners, and the other workers.
SPARE_FILES = 512
# What nginx may pass on to the service beside its WebSockets, below the path of those.
PUBLIC = ("= {}/health", "{}/publish/")
FOR_THE_LISTED = "= {}/metrics"


class Texts(msgspec.Struct, frozen=True):
    """The rendered files by what they are, as in `Paths`; one that the deployment does not have is empty."""

    env: str
    gunicorn: str
    locations: str
    main_context: str
    service: str
    site: str
    socket: str
    nginx_socket: str
    supervisor: str
    sysusers: str
    env_group: str

    @classmethod
    def of(cls, bundle: Bundle) -> "Texts":
        texts = {file.path: file.text for file in bundle.files}
        paths = Paths(bundle.name)
        (group,) = (file.group for file in bundle.files if file.path == paths.env)
        return cls(**{kind: texts.get(getattr(paths, kind), "") for kind in KINDS}, env_group=group)

    @property
    def serves_app(self) -> bool:
        """Whether an application of the operator's own is run, which has neither gunicorn nor workers that meet."""
        return _env(self, "WEBSOCKET_APP") != ""

    @property
    def nginx(self) -> str:
        """What nginx gets of the deployment; where its locations are for another's site, there is no other site."""
        return self.site + self.locations


Check: TypeAlias = Callable[[Texts], Disagreements]
KINDS = tuple(kind for kind in Texts.__struct_fields__ if kind != "env_group")


class Agreement(msgspec.Struct, frozen=True):
    """What must hold; `check` yields the file and what is wrong in it."""

    name: str
    reason: str
    check: Check


AGREEMENTS: list[Agreement] = []


def agreement(because: str) -> Callable[[Check], Check]:
    """Make an agreement of a function: `same_user` is the agreement same-user."""

    def entered(check: Check) -> Check:
        AGREEMENTS.append(Agreement(check.__name__.replace("_", "-"), because, check))
        return check

    return entered


def disagreements(bundle: Bundle) -> list[tuple[Agreement, str, str]]:
    """Every agreement that does not hold, with the path of the file at fault and what is wrong in it."""
    texts = Texts.of(bundle)
    paths = Paths(bundle.name)
    return [(entry, getattr(paths, kind), what) for entry in AGREEMENTS for kind, what in entry.check(texts)]


def _value(text: str, pattern: str) -> str:
    """What the one group of a pattern matches in a line of the text; nothing where no line does."""
    found = re.search(rf"^\s*{pattern}", text, re.MULTILINE)
    return found[1] if found else ""


def _number(text: str, pattern: str) -> float:
    """The same as a number; not a number, which agrees with none, where it is missing."""
    return float(_value(text, pattern + r"(\d+(?:\.\d+)?)") or "nan")


def _env(texts: Texts, variable: str) -> str:
    return _value(texts.env, rf"{variable}=['\"](.*)['\"]$")


def _env_number(texts: Texts, variable: str) -> float:
    return _number(texts.env, rf"{variable}=['\"]")


@agreement("nginx, systemd, gunicorn and the service mean the same listeners; one that differs is an outage.")
def same_listener(texts: Texts) -> Disagreements:
    host, port, socket = (_env(texts, f"WEBSOCKET_{name}") for name in ("HOST", "PORT", "SOCKET"))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    has_port = port != "none"
    listens = {
        "socket": (_value(texts.socket, r"ListenStream=(.*)$"), address if has_port else socket),
        "nginx_socket": (_value(texts.nginx_socket, r"ListenStream=(.*)$"), socket if has_port else ""),
        "gunicorn": (
            _value(texts.gunicorn, r"bind = \[(.*)\]$").replace("'", ""),
            f"unix:{socket}, {address}" if has_port else f"unix:{socket}",
        ),
        "site": (_value(texts.site, r"server (\S+?)(?: \S+)?;"), f"unix:{socket}"),
    }
    if texts.serves_app:
        del listens["gunicorn"]
    for kind, (said, meant) in listens.items():
        if said != meant:
            yield kind, f"listener is {said or 'missing'}, .env says {meant or 'none'}"
    started = _value(texts.service, r"Wants=(\S+)\.nginx\.socket$")
    if has_port and (not started or _value(texts.nginx_socket, r"Service=(\S+)\.service$") != started):
        yield "service", "and the listener of nginx do not start each other"


@agreement(
    "nginx cuts a connection that is silent for proxy_read_timeout; before a ping is answered, that is a live client."
)
def proxy_outlives_ping(texts: Texts) -> Disagreements:
    needed = _env_number(texts, "WEBSOCKET_PING_INTERVAL") + _env_number(texts, "WEBSOCKET_PING_TIMEOUT")
    given = _number(_of_websockets(texts)[1], "proxy_read_timeout ")
    if not given > needed:
        yield "site", f"proxy_read_timeout {given:g}s is not above ping interval and timeout together ({needed:g}s)"


@agreement("The service drains inside gunicorn's patience, gunicorn inside the manager's; the outer one shorter kills.")
def stops_in_order(texts: Texts) -> Disagreements:
    drain = _env_number(texts, "WEBSOCKET_DRAIN_TIMEOUT")
    graceful = drain + MARGIN_S if texts.serves_app else _number(texts.gunicorn, "graceful_timeout = ")
    if not graceful >= drain + MARGIN_S:
        yield "gunicorn", f"graceful_timeout {graceful:g} is not {MARGIN_S} s above the service's own drain ({drain:g})"
    for kind, word in (("service", "TimeoutStopSec="), ("supervisor", "stopwaitsecs=")):
        given = _number(getattr(texts, kind), word)
        if not given >= graceful + MARGIN_S:
            yield kind, f"{word}{given:g} is not {MARGIN_S} s above gunicorn's graceful_timeout ({graceful:g})"
    if not _number(texts.main_context, "worker_shutdown_timeout ") >= drain:
        yield "main_context", f"worker_shutdown_timeout is missing or below the service's own drain ({drain:g})"


@agreement("An application that systemd gives up before its own time is over is ended without a word on why.")
def start_is_waited_for(texts: Texts) -> Disagreements:
    needed = _env_number(texts, "WEBSOCKET_APP_START") + MARGIN_S
    if texts.serves_app and not (given := _number(texts.service, "TimeoutStartSec=")) >= needed:
        yield "service", f"TimeoutStartSec={given:g} is not {MARGIN_S} s above WEBSOCKET_APP_START"


@agreement("On SIGQUIT gunicorn's workers hang until they are killed: 30 s for each stop, and a failed unit.")
def stops_by_term(texts: Texts) -> Disagreements:
    for kind, pattern in (("service", r"KillSignal=(?:SIG)?(\S*)$"), ("supervisor", r"stopsignal=(\S*)$")):
        if (signal := _value(getattr(texts, kind), pattern)) not in ("TERM", "INT"):
            yield kind, f"stops by {signal or 'no signal of ours'}, not by TERM"


@agreement("Each connection is an open file, two in nginx; at the limit new clients are refused while all looks well.")
def files_for_connections(texts: Texts) -> Disagreements:
    connections = _env_number(texts, "WEBSOCKET_MAX_CONNECTIONS")
    for kind, pattern in (("service", "LimitNOFILE="), ("supervisor", "command=.*ulimit -n ")):
        text = getattr(texts, kind)
        needed = connections * (2 if "\nFileDescriptorStoreMax=" in text else 1) + SPARE_FILES
        given = _number(text, pattern)
        if not given >= needed:
            yield kind, f"allows {given:g} open files; {connections:g} connections need {needed:g}"
    if not _number(texts.main_context, "worker_rlimit_nofile ") >= 2 * connections:
        yield "main_context", f"worker_rlimit_nofile is below two files for each of {connections:g} connections"


@agreement("The user that is made, the one that runs and the one that may read .env are one.")
def same_user(texts: Texts) -> Disagreements:
    user = _value(texts.sysusers, r"u (\S+) ")
    for kind, pattern in (("service", r"User=(.*)$"), ("service", r"Group=(.*)$"), ("supervisor", r"user=(.*)$")):
        if (given := _value(getattr(texts, kind), pattern)) != user:
            yield kind, f"runs as {given or 'root'}, but the user that is made is {user or 'missing'}"
    if texts.env_group != user:
        yield "env", f"is for the group {texts.env_group} to read, but the user that is made is {user or 'missing'}"


@agreement("Two numbers of workers disagree one day, and a worker that is recycled closes all its WebSockets.")
def same_workers(texts: Texts) -> Disagreements:
    if texts.serves_app:
        return
    given = _value(texts.gunicorn, r"workers = (.*)$")
    if given.replace("len(os.sched_getaffinity(0))", "auto") != _env(texts, "WORKERS"):
        yield "gunicorn", f"workers is not {_env(texts, 'WORKERS')}, as .env says"
    if _number(texts.gunicorn, "max_requests = ") != 0:
        yield "gunicorn", "max_requests is not 0: a worker that is replaced closes all its WebSockets"


@agreement("Workers that cannot meet do not start; and in a directory that others can write to they refuse to meet.")
def bus_has_its_directory(texts: Texts) -> Disagreements:
    if texts.serves_app:
        return
    directory = f"/run/{_value(texts.service, r'RuntimeDirectory=(.*)$')}"
    if directory != (meant := _env(texts, "WEBSOCKET_BUS")):
        yield "service", f"RuntimeDirectory= makes {directory}, .env says {meant}"
    if _value(texts.service, r"RuntimeDirectoryMode=(.*)$") != "0700":
        yield "service", "RuntimeDirectoryMode= lets others to the workers' sockets"


@agreement(
    "What the unit does not let through is dropped without a word, so that every connection to the engine would time "
    "out; and what it lets through besides, whoever takes the service over can reach."
)
def unit_lets_the_engine_be_reached(texts: Texts) -> Disagreements:
    if texts.serves_app:
        return
    url, sentinels = _env(texts, "WEBSOCKET_ENGINE_URL"), _env(texts, "WEBSOCKET_ENGINE_SENTINELS").split()
    over_tcp = [] if url.startswith("unix:") else [url.partition("://")[2], *sentinels]
    wanted = {
        found[1]
        for place in over_tcp
        if (found := re.match(r"\[?([0-9.]+|[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*)(?:\]|:|$)", place))
    }
    allowed = set(_value(texts.service, r"IPAddressAllow=(.*)$").split())
    if lacking := sorted(wanted - allowed):
        yield "service", f"IPAddressAllow= lacks {', '.join(lacking)}, where .env has the engine"
    # With Sentinels also what they may name.
    if (unknown := sorted(allowed - wanted)) and not sentinels:
        yield "service", f"IPAddressAllow= has {', '.join(unknown)}, where no engine is"
    families = {"AF_INET6" if ":" in address else "AF_INET" for address in allowed}
    if set(_value(texts.service, r"RestrictAddressFamilies=(.*)$").split()) != {"AF_UNIX", *families}:
        yield "service", f"RestrictAddressFamilies= is not what {', '.join(sorted(allowed)) or 'no network'} needs"
    if (_value(texts.service, r"PrivateNetwork=(.*)$") == "yes") != (not allowed):
        yield "service", f"PrivateNetwork= is {'' if allowed else 'not '}yes"
    if _value(texts.service, r"IPAddressDeny=(.*)$") != "any":
        yield "service", "IPAddressDeny= is not any: the service reaches all of the network"


@agreement(
    "A unit that fails for ever must turn failed, which monitoring sees; a limit that cannot trigger never tells."
)
def start_limit_triggers(texts: Texts) -> Disagreements:
    delay, burst, interval = (
        _number(texts.service, word) for word in ("RestartSec=", "StartLimitBurst=", "StartLimitIntervalSec=")
    )
    if not delay * burst < interval:
        yield "service", f"{burst:g} starts, one each {delay:g} s, never fall into {interval:g} s"


@agreement("Limits and logs use the client's address; if the header is not overwritten, it is what the client claims.")
def client_address_is_true(texts: Texts) -> Disagreements:
    listed = FOR_THE_LISTED.format(_prefix(texts))
    for location, text in _locations(texts):
        forwarded = re.findall(r"proxy_set_header X-Forwarded-For (\S+);", text)
        # What is for the listed alone takes no field of theirs at all, so there is nothing to overwrite.
        expected = [] if location == listed and "proxy_pass_request_headers off;" in text else ["$remote_addr"]
        if "proxy_pass " in text and forwarded != expected:
            yield "site", f"location {location} does not overwrite X-Forwarded-For with $remote_addr"
    for kind in ("socket", "nginx_socket"):
        text = getattr(texts, kind)
        if "ListenStream=/" in text and _value(text, r"SocketMode=(.*)$") != "0660":
            yield kind, "lets others than nginx connect, and they would be believed"
    if not texts.serves_app and _value(texts.gunicorn, r"forwarded_allow_ips = '(.*)'") != "127.0.0.1,::1":
        yield "gunicorn", "believes X-Forwarded-For from others than proxies of this host"


@agreement(
    "What nginx lets through and the service does not, or the other way round, is refused by the one that nobody "
    "looks at."
)
def same_limits(texts: Texts) -> Disagreements:
    # Outside of all locations: one may give a body more time, where nginx keeps it until it is whole.
    of_a_site = tuple((" {4}", f"client_{part}_timeout ", "HEADER_TIMEOUT") for part in ("header", "body"))
    everywhere = ((r"\s*", r"limit_conn \w+ ", "MAX_CONNECTIONS_PER_ADDRESS"),)
    for indent, directive, variable in everywhere if texts.locations else of_a_site + everywhere:
        given = set(re.findall(rf"^{indent}{directive}(\d+)", texts.nginx, re.MULTILINE))
        if given != {meant := _env(texts, f"WEBSOCKET_{variable}")}:
            yield "site", f"{directive}is {', '.join(sorted(given)) or 'missing'}, .env says {meant}"
    publish = dict(_locations(texts)).get(f"{_prefix(texts)}/publish/")
    if publish is not None and _number(publish, "client_max_body_size ") != _env_number(
        texts, "WEBSOCKET_MAX_MESSAGE_SIZE"
    ):
        yield "site", f"client_max_body_size of /publish/ is not {_env(texts, 'WEBSOCKET_MAX_MESSAGE_SIZE')}"


@agreement("Metrics and readiness are for programs of this host; one location too many shows them to everybody.")
def only_the_public_is_reached(texts: Texts) -> Disagreements:
    if texts.serves_app:
        return
    main, prefix = _of_websockets(texts)[0], _prefix(texts)
    if not main.startswith("= "):
        yield "site", f"location {main or 'of WebSockets'} is not that of one path"
    public = (main, *(each.format(prefix) for each in PUBLIC))
    for location, text in _locations(texts):
        is_listed = location == FOR_THE_LISTED.format(prefix) and re.search(r"^\s*deny all;$", text, re.MULTILINE)
        if "proxy_pass " in text and location not in public and not is_listed:
            yield "site", f"location {location} is passed on to the service for everybody"


@agreement("An application that is not told what it is below answers 404 to all that it is asked for.")
def app_knows_its_path(texts: Texts) -> Disagreements:
    if texts.serves_app and _env(texts, "WEBSOCKET_ROOT_PATH") != (prefix := _prefix(texts)):
        yield "env", f"WEBSOCKET_ROOT_PATH is not '{prefix}', which nginx passes on"


def _locations(texts: Texts) -> list[tuple[str, str]]:
    """Each location and what stands in it; none holds another."""
    return re.findall(r"^\s*location ([^{]*?) {$(.*?)^\s*}$", texts.nginx, re.MULTILINE | re.DOTALL)


def _of_websockets(texts: Texts) -> tuple[str, str]:
    """The location at which WebSockets are opened, and what stands in it; empty where none passes an upgrade on."""
    return next((each for each in _locations(texts) if "proxy_set_header Upgrade " in each[1]), ("", ""))


def _prefix(texts: Texts) -> str:
    """What stands before each path of the service's own."""
    return _of_websockets(texts)[0].rpartition(" ")[2].rstrip("/")


@agreement("A zone or map of the same name in two sites stops nginx, and with it every site of the host.")
def names_are_ours(texts: Texts) -> Disagreements:
    identifier = _value(texts.site, r"upstream (\S+) {")
    pattern = r"""(?:zone=|log_format |shared:|map (?:"[^"]*"|[^"\s]+) \$)([A-Za-z0-9_]+)"""
    for name in re.findall(pattern, texts.nginx):
        if not identifier or not name.startswith(identifier):
            yield "site", f"{name} does not carry the deployment's name: a second deployment would collide with it"


@agreement("A placeholder that is left is noticed only by the first client.")
def nothing_left_to_fill_in(texts: Texts) -> Disagreements:
    for kind in KINDS:
        text = "" if kind == "env" else getattr(texts, kind)  # .env holds the operator's own words
        if found := re.search(rf"{PLACEHOLDER}|\{{\{{|%\}}", text):
            yield kind, f"still says {found[0]}"
