"""From a checked deployment to its bundle: pure, and the same bytes for the same deploy.yaml on every machine.

Templates know only the names in `NAMES`. Which settings each of them asks for is noted when it matters, so that a line
of a rendered file leads back to deploy.yaml. Raises `generator.quoting.Unquotable` for a value that a file cannot
carry.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.bccache import Bucket

from generator import program
from generator.config import engine as places
from generator.config.engine import Place
from generator.config.listening import clients_port, https_place, prefix
from generator.config.schema import (
    Deploy,
    bus,
    domains,
    is_for_apps,
    keys_file,
    mailbox,
    main_domain,
    serves_app,
    socket,
)
from generator.paths import Paths
from generator.quoting import FILTERS, Quoted
from generator.rendering.alerts import alerts
from generator.rendering.bundle import Bundle, File
from generator.rendering.dashboard import dashboard
from service import settings as service
from service.declaration import settings_of
from service.settings import Settings, to_environ

TEMPLATES = Path(program.ROOT, "templates")

# systemd's start limit triggers only if the starts it counts fit into its interval.
RESTART_DELAY_S = 2
START_LIMIT_BURST = 10
START_LIMIT_INTERVAL_S = 60
WATCHDOG_S = 20
# Between each stop timeout and the next: what stops a program must outlive what the program itself waits for.
STOP_MARGIN_S = 5
# Between the moment the service gives up a silent client and the moment nginx would.
PROXY_MARGIN_S = 15
UPLOAD_PAUSE_S = 60
# How long WebSockets live on after nginx was reloaded.
WORKER_SHUTDOWN_S = 300
# Files that a server process holds besides its connections; two of them for each of up to 127 others, which there are
# while 64 workers are replaced.
SPARE_FILES = 512
# Connections that wait for the service. The kernel caps them at net.core.somaxconn (4096), and refuses more on a Unix
# socket, where on TCP it lets the client try again.
BACKLOG = 2048
NGINX_BACKLOG = 4096
# Two for each set of `service.process.descriptor_store`, which takes 20,000 connections: what several processes, one
# after another, may leave if none of them comes to serve. The number alone costs nothing.
STORED_DESCRIPTORS = 512
# What an engine needs beside its mail: buffers, and what it knows of who is subscribed.
ENGINE_BESIDE_MAIL = 128 * 1024**2
DEBIANS_WORKER_CONNECTIONS = 768
NGINX_STREAMS = 128


class Variable(msgspec.Struct, frozen=True):
    """One line of .env, and the keys in deploy.yaml behind it."""

    keys: tuple[str, ...]
    variable: str
    value: str
    meaning: str


def render(deploy: Deploy) -> Bundle:
    """Every file of the deployment, also of the server and the manager that were not chosen."""
    names = names_of(deploy)
    files = [
        msgspec.structs.replace(file, path=path_of(file.path, deploy), text=_template(file.template).render(names))
        for file in _files(deploy)
    ]
    paths = Paths(deploy.name)
    files.append(File(path=paths.site_link, link=f"../sites-available/{deploy.name}"))
    if not serves_app(deploy):
        files.append(File(path=paths.dashboard, text=dashboard(deploy), installed=False))
    return Bundle(deploy.name, tuple(sorted(files, key=lambda file: file.path)), deploy.replaces)


def names_of(deploy: Deploy) -> dict[str, Any]:
    """The value of every name that templates use."""
    names = {name: value(deploy) for name, value in (NAMES | _LINES).items()}
    return names | {_LOCATIONS: Quoted(_template(Paths("NAME").locations).render(names).rstrip("\n"))}


def path_of(template: str, deploy: Deploy) -> str:
    """Where the file of a template stands on the host, without the leading slash."""
    return template.replace("NAME", deploy.name)


def _files(deploy: Deploy) -> Iterator[File]:
    systemd, supervisor = deploy.manager == "systemd", deploy.manager == "supervisor"

    def file(path: str, template: str = "", **said: Any) -> File:
        return File(path=path, template=template or path, **said)

    paths = Paths("NAME")
    yield file(paths.env, mode=0o640, group=service_user(deploy))
    if not serves_app(deploy):
        yield file(paths.gunicorn, installed=deploy.server == "gunicorn")
    yield file(paths.certbot_hook, mode=0o755, installed=deploy.tls == "letsencrypt")
    yield file(paths.logrotate, installed=supervisor)
    yield file(paths.main_context)
    yield file(paths.site)
    if deploy.nginx.include:
        yield file(paths.locations)
    yield file(paths.supervisor, installed=supervisor)
    yield file(paths.service, installed=systemd)
    yield file(paths.socket, installed=systemd)
    if _has_port(deploy):
        yield file(paths.nginx_socket, installed=systemd)
    yield file(paths.beside_nginx)
    yield file(paths.beside_supervisor, installed=supervisor)
    yield file(paths.sysusers)
    if not serves_app(deploy):  # which has figures of its own, if any
        yield file(paths.alerts, installed=False)
        yield file(paths.scraping, installed=False)
    if deploy.engine.serve:
        yield file(paths.engine)
        yield file(paths.engine_users)
        # Which of them a host has is found out there: `generator.host.engine`.
        yield file(paths.beside_valkey, installed=False)
        yield file(paths.beside_redis, paths.beside_valkey, installed=False)
    yield file(paths.tmpfiles)


def service_user(deploy: Deploy) -> str:
    return deploy.user or deploy.name


def service_settings(deploy: Deploy) -> Deploy:
    """What the service is told: nothing that only a generator can work out is left open."""
    ours = engine_settings(deploy)
    changed = {name: getattr(ours, name) for name in ("name", "password_file", "cert", "key")}
    engine = msgspec.structs.replace(deploy.engine, **changed)
    paths = {"socket": socket(deploy), "bus": bus(deploy), "keys": keys_file(deploy), "mailbox": mailbox(deploy)}
    return msgspec.structs.replace(deploy, engine=engine, **paths)


def engine_settings(deploy: Deploy) -> service.Engine:
    """What the service is told of the engine."""
    given = {name: getattr(deploy.engine, name) for name in service.Engine.__struct_fields__}
    given |= {"name": engine_name(deploy), "password_file": places.password_file(deploy)}
    if deploy.engine.serve:  # they are the engine's own, which asks for no certificate
        given |= {"cert": None, "key": None}
    return service.Engine(**given)


def settings_in_env(deploy: Deploy) -> dict[str, str]:
    """The variables that the service gets, but for those of `env`: none that would mean nothing to it."""
    values = to_environ(service_settings(deploy))

    def means_something(key: str) -> bool:
        if serves_app(deploy):
            return is_for_apps(key)
        return not key.startswith("app.") and (deploy.engine.url is not None or not key.startswith("engine."))

    told = [setting.extra["env"] for setting in settings_of(Settings) if means_something(setting.key)]
    where = {"WEBSOCKET_APP_DIRECTORY": _code(deploy)} if serves_app(deploy) else {}
    where |= {"WEBSOCKET_ROOT_PATH": prefix(deploy)} if _serves_app_below(deploy) else {}
    return {variable: values[variable] for variable in told} | where


def _code(deploy: Deploy) -> str:
    """The directory that an application is imported from, and run in."""
    return f"/{Paths(deploy.name).app}"


def engine_name(deploy: Deploy) -> str:
    """What all hosts of a notification center are called together."""
    return deploy.engine.name or deploy.name


def keeps_mail_in_engine(deploy: Deploy) -> bool:
    """Whether mailboxes are where the hosts meet."""
    return deploy.mailbox.keep == "engine"


def engine_memory(deploy: Deploy) -> int:
    """What an engine that is served may take, in bytes, or 0 for no bound: full mailboxes, and what orders them."""
    return 2 * deploy.mailbox.total + ENGINE_BESIDE_MAIL if keeps_mail_in_engine(deploy) else 0


def engine_families(deploy: Deploy) -> str:
    """The families of the addresses that the service reaches the engine by. Source: address_families(7)."""
    return " ".join(sorted({"AF_INET6" if ":" in address else "AF_INET" for address in places.addresses(deploy)}))


class Static(msgspec.Struct, frozen=True):
    """Files that nginx serves: the path of their URLs, and their directory, both with a slash at the end."""

    url: str
    directory: str


def _static(deploy: Deploy) -> list[Static]:
    files = sorted(deploy.app.static.items())
    return [Static(f"{prefix(deploy)}{url}", f"{_code(deploy)}/{path.rstrip('/')}/") for url, path in files]


def health_path(deploy: Deploy) -> str | None:
    """What a load balancer may ask for; nothing where an application does not say."""
    health = deploy.app.health if serves_app(deploy) else "/health"
    return None if health is None else f"{prefix(deploy)}{health}"


def _health_passed(deploy: Deploy) -> str | None:
    """What the service gets of it: an application knows what it is below, the notification center does not."""
    return health_path(deploy) if serves_app(deploy) else "/health"


def _serves_app_below(deploy: Deploy) -> bool:
    """Whether an application lives below a path of its site."""
    return serves_app(deploy) and prefix(deploy) != ""


def _may_be_behind_tls(deploy: Deploy) -> bool:
    """Whether a proxy in front of nginx may say to an application by what its clients have come."""
    is_proxied = bool(deploy.nginx.trusted_proxies) and not deploy.nginx.proxy_protocol
    return serves_app(deploy) and (is_proxied or deploy.nginx.include)


def _identifier(deploy: Deploy) -> str:
    """How the names begin that a site gives to zones and variables of nginx."""
    return deploy.name.replace("-", "_")


def _client_scheme(deploy: Deploy) -> str:
    """The variable of nginx with that by which a client has come."""
    return f"{_identifier(deploy)}_scheme" if _may_be_behind_tls(deploy) else "scheme"


def _publishes(deploy: Deploy) -> bool:
    """Whether messages can be sent by HTTP. The library of the standalone server reads no request that has a body."""
    return deploy.server != "standalone" and not serves_app(deploy)


def _network(deploy: Deploy) -> str:
    """What an application may connect to, as `IPAddressAllow=` takes it. Source: systemd.resource-control(5)."""
    return " ".join(deploy.needs.network)


def graceful_timeout(deploy: Deploy) -> int:
    """What gunicorn waits for its workers, in seconds."""
    return deploy.drain.timeout + STOP_MARGIN_S


def stop_timeout(deploy: Deploy) -> int:
    """What systemd and supervisor wait for the service, in seconds."""
    return graceful_timeout(deploy) + STOP_MARGIN_S


def start_timeout(deploy: Deploy) -> int:
    """What systemd waits for an application to begin to serve, in seconds: its workers are watched by our manager."""
    return deploy.app.start + STOP_MARGIN_S


def proxy_read_timeout(deploy: Deploy) -> int:
    """How long nginx bears silence, in seconds."""
    return ceil(deploy.ping.interval + deploy.ping.timeout + PROXY_MARGIN_S)


def _watchdog(deploy: Deploy) -> int:
    """Of an application with several workers it watches our own process, which watches them."""
    return service.APP_WATCHDOG_S if serves_app(deploy) and not replaces_workers(deploy) else WATCHDOG_S


def replaces_workers(deploy: Deploy) -> bool:
    """Whether the service is several workers of our own manager, which replaces them one after another on demand."""
    return deploy.server != "gunicorn" and deploy.workers != 1


def keeps_clients(deploy: Deploy) -> bool:
    """Whether clients stay connected when the service restarts."""
    can = deploy.server == "uvicorn" and deploy.manager == "systemd" and not serves_app(deploy)
    return can and deploy.drain.keep


def open_files(deploy: Deploy) -> int:
    """How many files each worker may open: one for each connection, two where it is handed over, and room for more."""
    return deploy.limits.connections * (2 if keeps_clients(deploy) else 1) + SPARE_FILES


def open_files_under_supervisor(deploy: Deploy) -> int:
    """The same of a program of supervisor, which hands none over."""
    return deploy.limits.connections + SPARE_FILES


def nginx_connections(deploy: Deploy) -> int:
    """What `worker_connections` times `worker_processes` of nginx must reach: two for each WebSocket, and a quarter."""
    return ceil(2 * deploy.limits.connections * 1.25)


def worker_rlimit_nofile(deploy: Deploy) -> int:
    """The files that a worker of nginx may open: two for each connection that it takes."""
    return 2 * max(nginx_connections(deploy), DEBIANS_WORKER_CONNECTIONS)


def worker_shutdown_timeout(deploy: Deploy) -> int:
    """How long old workers of nginx live on after a reload, in seconds."""
    return max(WORKER_SHUTDOWN_S, stop_timeout(deploy))


def has_http2(deploy: Deploy) -> bool:
    """Whether our site offers HTTP/2: browsers use it over TLS alone, and the notification center gains nothing."""
    return serves_app(deploy) and deploy.tls != "off" and not deploy.nginx.include


def http2_streams(deploy: Deploy) -> int:
    """How many requests one connection may have under way: half of what an address may, up to nginx's own default."""
    return min(NGINX_STREAMS, ceil(deploy.limits.connections_per_address / 2))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _has_port(deploy: Deploy) -> bool:
    """Whether programs of the host reach the service past nginx."""
    return deploy.port != "none"


def _listens_on(deploy: Deploy) -> str:
    """Where systemd listens for whoever that is."""
    return _address(deploy.host, deploy.port) if deploy.port != "none" else socket(deploy)


def local_address(deploy: Deploy) -> str:
    """Where a program of this host reaches the service: at its port, or if it has none, as root at its socket."""
    if deploy.port == "none":
        return f"unix:{socket(deploy)}"
    return _address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(deploy.host, deploy.host), deploy.port)


def _listens(deploy: Deploy, port: int) -> list[str]:
    """As nginx's `listen` takes it; every address of IPv4 is written as the port alone."""
    return [str(port) if host == "0.0.0.0" else _address(host, port) for host in deploy.nginx.listen]


def _is_scraped_through_nginx(deploy: Deploy) -> bool:
    return bool(deploy.nginx.metrics_from) or not _has_port(deploy)


def _scrape_target(deploy: Deploy) -> str:
    """Where a Prometheus finds /metrics."""
    if _is_scraped_through_nginx(deploy):
        return f"{main_domain(deploy)}:{clients_port(deploy)}"
    return local_address(deploy)


def _bind(deploy: Deploy) -> list[str]:
    """As gunicorn takes them."""
    port = [_address(deploy.host, deploy.port)] if deploy.port != "none" else []
    return [f"unix:{socket(deploy)}", *port]


def _is_an_interface(host: str) -> bool:
    return host not in ("0.0.0.0", "::", "::1") and not host.startswith("127.")


def _nginx_needs_an_address(deploy: Deploy) -> bool:
    """Whether nginx binds one alone; where it has every address of that kind, it binds no other."""
    hosts = deploy.nginx.listen
    alone = (host for host in hosts if ("::" if ":" in host else "0.0.0.0") not in hosts)
    return not deploy.nginx.include and any(map(_is_an_interface, alone))


def _server_names_hash_bucket_size(deploy: Deploy) -> int | None:
    """What nginx needs for its longest domain, from 47 characters on; its default is one cache line, 64 bytes.

    Source: NGX_HASH_ELT_SIZE and ngx_hash_init in ngx_hash.c: two pointers, and a length of two bytes with the name,
    filled up to whole pointers.
    """
    needed = 8 + 8 + -(-(max(map(len, domains(deploy))) + 2) // 8) * 8
    if needed <= 64 or deploy.nginx.include:  # a site of the operator's own has its name already
        return None
    return next((size for size in (128, 256, 512) if size >= needed), None)


def _certificate(deploy: Deploy) -> str | None:
    return f"/{Paths(deploy.name).tls}/fullchain.pem" if deploy.tls == "letsencrypt" else deploy.certificate.file


def _certificate_key(deploy: Deploy) -> str | None:
    return f"/{Paths(deploy.name).tls}/privkey.pem" if deploy.tls == "letsencrypt" else deploy.certificate.key


def _engine(deploy: Deploy) -> Place:
    return places.engine(deploy) or Place()


def _settings(deploy: Deploy) -> list[Variable]:
    values = settings_in_env(deploy)
    return [
        Variable(_keys_of(setting.key), setting.extra["env"], values[setting.extra["env"]], _meaning(setting))
        for setting in settings_of(Settings)
        if setting.extra["env"] in values
    ]


def _keys_of(key: str) -> tuple[str, ...]:
    return (key, "name") if key in ("socket", "bus", "keys", "engine.name", "mailbox.directory") else (key,)


def _meaning(setting: Any) -> str:
    """The first clause of a description, with the unit."""
    clause = setting.description.split(". ")[0].split(";")[0].rstrip(".")
    return f"{clause} ({setting.extra['unit']})" if "unit" in setting.extra else clause


def _variables(deploy: Deploy) -> list[Variable]:
    return [Variable((f"env.{name}",), name, value, "") for name, value in sorted(deploy.env.items())]


NAMES: dict[str, Callable[[Deploy], Any]] = {
    "name": lambda d: d.name,
    "domain": main_domain,
    "domains": domains,
    "server": lambda d: d.server,
    "manager": lambda d: d.manager,
    "tls": lambda d: d.tls,
    "user": service_user,
    "home": lambda d: f"/var/lib/{d.name}",
    # In nginx a name of a variable has no hyphen; deployments have no underscore, so no two can meet.
    "identifier": _identifier,
    "workers": lambda d: d.workers,
    "runtime_directory": lambda d: bus(d).removeprefix("/run/"),
    "replaces_workers": replaces_workers,
    "keeps_clients": keeps_clients,
    "stored_descriptors": lambda d: STORED_DESCRIPTORS,
    "socket": socket,
    "listens_on": _listens_on,
    "has_port": _has_port,
    "has_no_port": lambda d: not _has_port(d),
    "listens_on_an_interface": lambda d: _has_port(d) and _is_an_interface(d.host),
    "nginx_needs_an_address": _nginx_needs_an_address,
    "bind": _bind,
    "backlog": lambda d: BACKLOG,
    "nginx_backlog": lambda d: NGINX_BACKLOG,
    "connections": lambda d: d.limits.connections,
    "open_files": open_files,
    "open_files_under_supervisor": open_files_under_supervisor,
    "nginx_connections": nginx_connections,
    "worker_rlimit_nofile": worker_rlimit_nofile,
    "connections_per_address": lambda d: d.limits.connections_per_address,
    "handshakes_per_second": lambda d: d.limits.handshakes_per_second,
    "header_timeout": lambda d: d.limits.header_timeout,
    "upload_timeout": lambda d: max(UPLOAD_PAUSE_S, d.limits.header_timeout),
    "message_size": lambda d: d.limits.message_size,
    "messages_per_second": lambda d: d.limits.messages_per_second,
    "publishes": _publishes,
    "publishes_at_top": lambda d: _publishes(d) and prefix(d) == "",
    "publishes_below": lambda d: _publishes(d) and prefix(d) != "",
    "handshake_burst": lambda d: d.limits.handshake_burst,
    "proxy_read_timeout": proxy_read_timeout,
    "graceful_timeout": graceful_timeout,
    "stop_timeout": stop_timeout,
    "worker_shutdown_timeout": worker_shutdown_timeout,
    "restart_delay": lambda d: RESTART_DELAY_S,
    "start_limit_burst": lambda d: START_LIMIT_BURST,
    "start_limit_interval": lambda d: START_LIMIT_INTERVAL_S,
    "watchdog": _watchdog,
    "start_timeout": start_timeout,
    "log_level": lambda d: d.log.level,
    "encrypted": lambda d: d.tls != "off",
    "certificate": _certificate,
    "certificate_key": _certificate_key,
    "default_server": lambda d: d.nginx.default_server,
    "tls_default_server": lambda d: d.nginx.default_server and d.tls != "off",
    "http_listens": lambda d: [] if d.nginx.proxy_protocol else _listens(d, d.nginx.http_port),
    "http_listens_for_proxies": lambda d: _listens(d, d.nginx.http_port) if d.nginx.proxy_protocol else [],
    "https_listens": lambda d: [] if d.nginx.proxy_protocol else _listens(d, d.nginx.https_port),
    "https_listens_for_proxies": lambda d: _listens(d, d.nginx.https_port) if d.nginx.proxy_protocol else [],
    "https_place": https_place,
    "real_ip_header": lambda d: "proxy_protocol" if d.nginx.proxy_protocol else "X-Forwarded-For",
    "trusted_proxies": lambda d: d.nginx.trusted_proxies,
    "default_server_trusts": lambda d: d.nginx.default_server and bool(d.nginx.trusted_proxies),
    "scheme_of_clients": lambda d: "http" if d.tls == "off" else "https",
    "may_be_behind_tls": _may_be_behind_tls,
    "client_scheme": _client_scheme,
    "redirect_trusts": lambda d: d.tls != "off" and bool(d.nginx.trusted_proxies),
    "health_from": lambda d: d.nginx.health_from,
    "alerts": alerts,
    "rule_group": lambda d: f"wsbundle-{d.name}",
    "scrape_target": _scrape_target,
    "is_one_of_several": lambda d: d.engine.url is not None,
    "scrape_path": lambda d: f"{prefix(d) if _is_scraped_through_nginx(d) else ''}/metrics",
    "scrape_scheme": lambda d: "https" if _is_scraped_through_nginx(d) and d.tls != "off" else "http",
    "metrics_from": lambda d: d.nginx.metrics_from,
    "shows_metrics": lambda d: bool(d.nginx.metrics_from),
    "server_names_hash_bucket_size": _server_names_hash_bucket_size,
    "serves_app": serves_app,
    "serves_center": lambda d: not serves_app(d),
    "what": lambda d: "ASGI application" if serves_app(d) else "WebSocket service",
    "code": _code,
    "body_size": lambda d: d.app.body_size,
    "serves_app_at_top": lambda d: serves_app(d) and prefix(d) == "",
    "serves_app_below": _serves_app_below,
    "path": lambda d: d.nginx.path,
    "prefix": prefix,
    "metrics_path": lambda d: f"{prefix(d)}/metrics",
    "publish_path": lambda d: f"{prefix(d)}/publish/",
    "is_included": lambda d: d.nginx.include,
    "has_site": lambda d: not d.nginx.include,
    "has_site_without_tls": lambda d: not d.nginx.include and d.tls == "off",
    "has_http2": has_http2,
    "http2_streams": http2_streams,
    "has_rest": lambda d: not d.nginx.include and (not serves_app(d) or prefix(d) != ""),
    "rest": lambda d: "Nothing is here" if serves_app(d) else "WebSocket endpoint only",
    "health_path": health_path,
    "health_passed": _health_passed,
    "default_server_has_health": lambda d: d.nginx.default_server and health_path(d) is not None,
    "redirect_has_health": lambda d: d.tls != "off" and health_path(d) is not None,
    "static": _static,
    "network": _network,
    "network_is_any": lambda d: "any" in d.needs.network,
    "writable": lambda d: d.needs.write,
    "devices": lambda d: d.needs.devices,
    "runs_what_it_writes": lambda d: d.needs.exec,
    "makes_machine_code": lambda d: d.needs.jit,
    "reads_host_metrics": lambda d: d.needs.host_metrics,
    "changes_owners": lambda d: d.needs.chown,
    "engine_addresses": lambda d: " ".join(places.addresses(d)),
    "engine_families": engine_families,
    "engine_name": engine_name,
    "engine_user": lambda d: d.engine.user,
    "engine_host": lambda d: _engine(d).host,
    "engine_port": lambda d: _engine(d).port,
    "engine_socket": lambda d: _engine(d).path,
    "engine_encrypted": lambda d: _engine(d).encrypted,
    "engine_cert": lambda d: d.engine.cert,
    "engine_key": lambda d: d.engine.key,
    "tells_boot": lambda d: d.mailbox.keep == "disk" or d.engine.url is not None,
    "engine_keeps_mail": keeps_mail_in_engine,
    "engine_syncs_each_write": lambda d: keeps_mail_in_engine(d) and d.mailbox.sync == "turn",
    "engine_memory": engine_memory,
}
# The text of one template is a value in another: the locations of our own site, or what the operator's includes.
_LOCATIONS = "locations"
# What templates loop over; each line of it has its own keys.
_LINES: dict[str, Callable[[Deploy], list[Variable]]] = {"settings": _settings, "variables": _variables}


class UnquotedValue(TypeError):
    """A template prints a value that passed through no filter: a fault of the template, never of deploy.yaml."""

    def __init__(self, value: object) -> None:
        super().__init__(f"{value!r} passed through no filter of generator.quoting")


def _only_quoted(value: object) -> Quoted:
    if isinstance(value, Quoted):
        return value
    if isinstance(value, jinja2.Undefined):
        str(value)
    raise UnquotedValue(value)


class CompiledTemplates(jinja2.FileSystemBytecodeCache):
    """Compiled templates beside Python's compiled modules: compiling costs ten times as much as rendering.

    Whoever can write there can change the generator itself. Where nobody can, every run compiles.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), "template-%s.cache")
        # The outcome also follows from Jinja's own compiler and from the options below.
        self._compiler = str([Path(file).stat().st_mtime_ns for file in (__file__, nodes.__file__)])

    def get_source_checksum(self, source: str) -> str:
        return super().get_source_checksum(self._compiler + source)

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:  # as for root in somebody else's checkout
            return
        with suppress(OSError):
            Path(self.directory).mkdir(exist_ok=True)
            super().dump_bytecode(bucket)


def environment(loader: jinja2.BaseLoader, cache: jinja2.BytecodeCache | None = None) -> jinja2.Environment:
    """Jinja as templates see it: a misspelt name, an unknown filter and an unquoted value are errors."""
    jinja = jinja2.Environment(
        loader=loader,
        bytecode_cache=cache,
        undefined=jinja2.StrictUndefined,
        finalize=_only_quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    jinja.filters = dict(FILTERS)
    return jinja


_jinja = environment(jinja2.FileSystemLoader(TEMPLATES), CompiledTemplates(Path(__file__).parent / "__pycache__"))


def _template(path: str) -> jinja2.Template:
    return _jinja.get_template(path)


def keys_behind(deploy: Deploy, path: str, line: int) -> tuple[str, ...]:
    """The settings that a line of a rendered file comes from, by dotted key; none where the template says it all.

    `path` is that of a `File`, `line` counts from 1. Only a fault found by a file's reader asks for it, so it costs
    nothing before.
    """
    template = next(file.template for file in _files(deploy) if path_of(file.path, deploy) == path)
    return tuple(_keys_at(deploy, template, line))


def _keys_at(deploy: Deploy, path: str, line: int) -> dict[str, None]:
    template = _template(path)
    used = _names_by_line(path)
    keys: dict[str, None] = {}
    at = 1
    for chunk, template_line, variables in _chunks(template, names_of(deploy)):
        ends = at + chunk.count("\n")
        if _LOCATIONS in used[template_line] and at <= line <= ends:
            keys |= _keys_at(deploy, Paths("NAME").locations, line - at + 1) if isinstance(chunk, Quoted) else {}
        elif at == line and isinstance(chunk, Quoted):
            for name in used[template_line]:
                keys |= {} if name in _LINES else asked_for(NAMES[name], deploy)
            keys |= dict.fromkeys(key for variable in variables for key in variable.keys)
        at = ends
    return keys


class _Asked:
    """A deployment, or a section of it, that notes by dotted key which settings it is asked for."""

    def __init__(self, section: msgspec.Struct, noted: dict[str, None], prefix: str = "") -> None:
        self._section, self._noted, self._prefix = section, noted, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        if isinstance(value, msgspec.Struct):
            return _Asked(value, self._noted, f"{self._prefix}{name}.")
        self._noted[self._prefix + name] = None
        return value


def asked_for(value: Callable[[Deploy], Any], deploy: Deploy) -> dict[str, None]:
    """The settings that a name of `NAMES` depends on, in the order in which it asks for them: it can use no others."""
    noted: dict[str, None] = {}
    asked: Any = _Asked(deploy, noted)
    value(asked)
    return noted


def _chunks(template: jinja2.Template, names: dict[str, Any]) -> Iterator[tuple[str, int, list[Variable]]]:
    """What a template yields, each piece with its line in the template and the `Variable` of the loop around it."""
    rendering: Any = template.root_render_func(template.new_context(names))
    for chunk in rendering:
        frame = rendering.gi_frame
        variables = [local for local in frame.f_locals.values() if isinstance(local, Variable)]
        yield chunk, template.get_corresponding_lineno(frame.f_lineno), variables


def _names_by_line(template: str) -> dict[int, list[str]]:
    source = (TEMPLATES / template).read_text()
    tree = _jinja.parse(source)
    used: dict[int, list[str]] = {number: [] for number in range(1, source.count("\n") + 2)}
    for loop in tree.find_all(nodes.For):
        assert isinstance(loop.target, nodes.Name)
        assert isinstance(loop.iter, nodes.Name)
        item = loop.target.name
        for name in loop.find_all(nodes.Name):
            if name.name == item:
                name.name = loop.iter.name
    for name in tree.find_all(nodes.Name):
        used[name.lineno].append(name.name)
    return used
