"""What deploy.yaml may say: the service's settings, and beside them what only a deployment needs.

Each setting is declared once, here or in `service.settings`; checking, deploy.schema.json, docs/settings.md and the
commented deploy.yaml derive from it. What must hold between settings stands in `generator.config.rules`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from generator.paths import Paths
from service import settings as service

# Written out in the sample deploy.yaml, in this order; all the rest stands there commented, at its default.
ESSENTIAL = ("domain", "name", "host", "port", "workers", "ping", "server", "manager")

AddressRange = Annotated[
    str,
    Meta(pattern=r"^[0-9A-Fa-f.:/]+$", extra={"expects": "an IP address or network, such as 10.0.0.0/8"}),
]
Address = Annotated[
    str,
    Meta(pattern=r"^[0-9A-Fa-f.:]+$", extra={"expects": "an IPv4 or IPv6 address, such as 203.0.113.5"}),
]
_DOMAIN_IN_WORDS = "a host name in lower-case ASCII, such as ws.example.com"
_DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Domain = Annotated[str, Meta(pattern=_DOMAIN, max_length=253, extra={"expects": _DOMAIN_IN_WORDS, "explain": "domain"})]
# One is checked as an item of many: msgspec 0.22 frees memory twice where text with a pattern may be a list as well.
_OneDomain = Annotated[str, Meta(extra_json_schema={"pattern": _DOMAIN, "maxLength": 253})]
# Nothing that ssh would take for an option, or a shell for more than a word.
DESTINATION = r"^(ssh://)?([A-Za-z0-9._][A-Za-z0-9._@+-]*@)?[A-Za-z0-9_:\[][A-Za-z0-9._:%\[\]-]*$"
Destination = Annotated[
    str,
    Meta(
        pattern=DESTINATION,
        max_length=255,
        extra={"expects": "what ssh connects to, such as ws1.example.com, admin@10.0.0.2 or a Host of ~/.ssh/config"},
    ),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=128,
        extra={"expects": "letters, digits and underscores, not starting with a digit"},
    ),
]
_PATH_IN_WORDS = "an absolute path without quotes, backslashes and $;{}#"
# nginx reads a parameter of up to 4096 bytes, and a character may take four.
AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\"'\\$;{}#]+$", max_length=1000)]


ByHand = Annotated[
    str,
    Meta(
        pattern=r"^/etc/(systemd/system/[A-Za-z0-9_-][A-Za-z0-9:._-]*(@[A-Za-z0-9:._-]+)?\.(service|socket)"
        r"|supervisor/conf\.d/[A-Za-z0-9_-][A-Za-z0-9._-]*\.conf"
        r"|nginx/(sites-enabled/[A-Za-z0-9_-][A-Za-z0-9._-]*|conf\.d/[A-Za-z0-9_-][A-Za-z0-9._-]*\.conf))$",
        max_length=300,
        extra={
            "expects": "a unit in /etc/systemd/system, a program in /etc/supervisor/conf.d, or a site in "
            "/etc/nginx/sites-enabled or /etc/nginx/conf.d"
        },
    ),
]


class Limits(service.Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one host carries, and what one client may ask of it."""

    handshakes_per_second: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="New connections that one client address may open per second; nginx refuses more with 429.",
        ),
    ] = 10
    handshake_burst: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="New connections that one address may open at once beyond that rate. After a restart every "
            "client of an office comes back together, so a burst below connections_per_address locks some out.",
        ),
    ] = 100


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The certificate that `tls: files` serves."""

    file: Annotated[
        AbsolutePath | None,
        Meta(
            description="The certificate with its chain, PEM.",
            extra={"expects": _PATH_IN_WORDS, "example": "/etc/ssl/ws.example.com/fullchain.pem"},
        ),
    ] = None
    key: Annotated[
        AbsolutePath | None,
        Meta(
            description="Its private key, PEM, readable by root only.",
            extra={"expects": _PATH_IN_WORDS, "example": "/etc/ssl/ws.example.com/privkey.pem"},
        ),
    ] = None


class LetsEncrypt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom `tls: letsencrypt` asks for the certificate."""

    email: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$", max_length=254)] | None,
        Meta(
            description="Where the certificate authority writes when something is wrong. Left out, the account has no "
            "address.",
            extra={"expects": "one e-mail address", "example": "admin@example.com"},
        ),
    ] = None
    server: Annotated[
        str,
        Meta(
            pattern=r"^https://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$",
            max_length=1000,
            description="The ACME directory of the certificate authority: Let's Encrypt's, or its staging server "
            "https://acme-staging-v02.api.letsencrypt.org/directory for trying things out, or one of your own whose "
            "root this host trusts.",
            extra={"expects": "the URL of an ACME directory, starting with https://"},
        ),
    ] = "https://acme-v02.api.letsencrypt.org/directory"


class Engine(service.Engine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Valkey or Redis server over which several hosts are one notification center."""

    insecure: Annotated[
        bool,
        Meta(
            description="Allow `url` to be TCP without TLS to another host: whoever sees the network between the hosts "
            "then reads every message, and the password."
        ),
    ] = False
    allow: Annotated[
        tuple[AddressRange, ...],
        Meta(
            description="What the service may reach beside `url` and `sentinels`: with Sentinels, every server that "
            "can become the master. The unit drops what goes anywhere else.",
            extra={"expects": "a list of IP addresses or networks"},
        ),
    ] = ()
    serve: Annotated[
        bool,
        Meta(
            description="Install and run the engine on this host, where `url` says: an instance of the distribution's "
            "own Valkey or Redis, with `cert` and `key` as its certificate. On one host only."
        ),
    ] = False


# Paths inside of a project: plain words, so that every file that names them can carry them.
RelativePath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._@+-][A-Za-z0-9._@+/-]*$",
        max_length=500,
        extra={"expects": "a path inside of the application, such as static"},
    ),
]
UrlPath = Annotated[
    str,
    Meta(
        pattern=r"^/[A-Za-z0-9._~/-]*$",
        max_length=500,
        extra={"expects": "the path of a URL, such as /static/"},
    ),
]


class App(service.App, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Your own ASGI application, in place of the notification center."""

    path: Annotated[
        Annotated[str, Meta(pattern=r"^[^\"'\\$;{}#]+$", max_length=1000)],
        Meta(
            description="The directory with its code, as seen from deploy.yaml. All files in it are installed, but for "
            "those that .gitignore names.",
            extra={"expects": "the path of a directory"},
        ),
    ] = "."
    requirements: Annotated[
        RelativePath | None,
        Meta(
            description="What it needs of Python, as seen from `path`: a file of requirements for pip, which may be "
            "above it, up to the directory of deploy.yaml, or a `uv.lock`, which `uv` exports. `null`: nothing.",
            extra={"expects": "a file in app.path, such as requirements.txt or uv.lock"},
        ),
    ] = "requirements.txt"
    health: Annotated[
        UrlPath | None,
        Meta(
            description="What is asked to see that it works, with GET: an answer of 200 to 299 says so. Left out, `/` "
            "is asked, and any answer below 500 will do.",
            extra={"expects": "the path of a URL, such as /healthz", "example": "/healthz"},
        ),
    ] = None
    static: Annotated[
        dict[UrlPath, RelativePath],
        Meta(
            description="Files that nginx serves by itself: below which URL, and from which directory in `path`.",
            extra={"expects": "a mapping of URL paths to directories"},
        ),
    ] = msgspec.field(default_factory=dict)
    build: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...],
        Meta(
            description="Commands that make files of the application once it is on the host, one after another. They "
            "are run like those of `before`, and may write in `path`; nobody may afterwards.",
            extra={"expects": "a list of commands, such as [python manage.py collectstatic --noinput]"},
        ),
    ] = ()
    before: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...],
        Meta(
            description="Commands that are run before it goes live, one after another, as the application itself is "
            "run: in `path`, as its user, with its settings, and confined like it. If one fails, nothing is changed.",
            extra={"expects": "a list of commands, such as [python manage.py migrate]"},
        ),
    ] = ()
    body_size: Annotated[
        int,
        Meta(
            ge=1024,
            le=64 * 1024**3,
            description="The longest body of a request that nginx takes; a longer one gets 413.",
            extra={"unit": "bytes"},
        ),
    ] = 1024**2


class Needs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the application may do beyond the closed default. Each opens one thing in its unit, and nothing else."""

    network: Annotated[
        tuple[
            Annotated[
                str,
                Meta(
                    pattern=r"^[0-9A-Za-z.:/\[\]-]+$",
                    max_length=300,
                    extra={"expects": "an IP address or network, such as 10.0.0.0/8, or any"},
                ),
            ],
            ...,
        ],
        Meta(
            description="What it may connect to: addresses or networks, or `[any]`. What is sent anywhere else is "
            "dropped, so that it times out. Names are looked up at 127.0.0.53 or at what /etc/resolv.conf names.",
            extra={"expects": "a list of IP addresses or networks, or any"},
        ),
    ] = ()
    write: Annotated[
        tuple[Annotated[AbsolutePath, Meta(extra={"expects": "an absolute path, such as /srv/uploads"})], ...],
        Meta(
            description="Directories in which it may write beside /var/lib/NAME, which its user must be allowed to.",
            extra={"expects": "a list of absolute paths, such as /srv/uploads"},
        ),
    ] = ()
    devices: Annotated[
        tuple[Annotated[AbsolutePath, Meta(extra={"expects": "a device, such as /dev/ttyUSB0"})], ...],
        Meta(description="Devices that it may use.", extra={"expects": "a list of devices, such as /dev/ttyUSB0"}),
    ] = ()
    exec: Annotated[
        bool,
        Meta(description="Let it run what it has written itself, or load it as a library."),
    ] = False
    jit: Annotated[
        bool,
        Meta(
            description="Let it make machine code in memory, as Numba, PyPy, Node.js, LuaJIT, wasmtime and callbacks "
            "of cffi do."
        ),
    ] = False
    host_metrics: Annotated[
        bool,
        Meta(
            description="Let it read /proc/meminfo, /proc/stat and the like, as psutil and the process metrics of "
            "prometheus_client do."
        ),
    ] = False
    chown: Annotated[bool, Meta(description="Let it change owner and group of its own files.")] = False


class Nginx(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nginx does beside passing WebSockets on."""

    path: Annotated[
        Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._-]+)*/?$", min_length=1, max_length=200)],
        Meta(
            description="The path of its URLs, where the domain has others beside it: WebSockets of the notification "
            "center are opened at it, and the rest is below; an application is all that is below.",
            extra={"expects": "the path of a URL, such as /shop, of letters, digits and ._-"},
        ),
    ] = "/"
    include: Annotated[
        bool,
        Meta(
            description="The site is your own: nothing of ours has a `server { }`. Yours takes clients, has its TLS, "
            "and contains the line `include /etc/nginx/NAME/*.conf;`.",
        ),
    ] = False
    default_server: Annotated[
        bool,
        Meta(
            description="Also refuse every request that names no site of this host: nginx belongs to this deployment "
            "and its own default site is out of the way."
        ),
    ] = False
    listen: Annotated[
        tuple[Address, ...],
        Meta(
            description="The addresses of this host on which nginx waits for clients, by default all. "
            "On a host without IPv6 write `[0.0.0.0]`; if another site has an address for itself "
            "(`listen 203.0.113.5:80;`), name that address here as well.",
            extra={"expects": "a list of IP addresses"},
        ),
    ] = ("0.0.0.0", "::")
    http_port: Annotated[
        int,
        Meta(ge=1, le=65_535, description="Where nginx waits for clients without TLS, or sends them to TLS."),
    ] = 80
    https_port: Annotated[int, Meta(ge=1, le=65_535, description="Where nginx waits for clients with TLS.")] = 443
    proxy_protocol: Annotated[
        bool,
        Meta(
            description="Every connection begins with the PROXY protocol, in which a load balancer at TCP level says "
            "which client it is for; only `trusted_proxies` are believed. A connection that does not begin with it is "
            "cut."
        ),
    ] = False
    trusted_proxies: Annotated[
        tuple[AddressRange, ...],
        Meta(
            description="Load balancers in front of nginx: only from these addresses is X-Forwarded-For, or the PROXY "
            "protocol, believed; for an application of one's own X-Forwarded-Proto as well.",
            extra={"expects": "a list of IP addresses or networks"},
        ),
    ] = ()
    idle_limit: Annotated[
        Annotated[int, Meta(ge=10, le=86_400)] | None,
        Meta(
            description="After how much silence a load balancer in front of nginx cuts a connection. Pings must come "
            "sooner than that.",
            extra={"unit": "seconds", "example": 60},
        ),
    ] = None
    health_from: Annotated[
        tuple[AddressRange, ...],
        Meta(
            description="Who may ask for /health through nginx. The health of an application of one's own is asked "
            "for by everybody where it answers; without its domain, or without TLS, by these alone.",
            extra={"expects": "a list of IP addresses or networks"},
        ),
    ] = ("127.0.0.1", "::1")
    metrics_from: Annotated[
        tuple[AddressRange, ...],
        Meta(
            description="Who may ask for /metrics through nginx, such as a Prometheus on another host; by default "
            "nobody.",
            extra={"expects": "a list of IP addresses or networks"},
        ),
    ] = ()


class Deploy(service.Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deployment, of the notification center or of your own application."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$",
            description="Carried by everything that is installed: unit, program, site, user, paths. Two deployments "
            "with different names can share a host.",
            extra={"expects": "lower-case letters, digits and hyphens, at most 30, starting with a letter"},
        ),
    ] = "queue-websocket"
    domain: Annotated[
        _OneDomain | Annotated[tuple[Domain, ...], Meta(min_length=1)],
        Meta(
            description="The host name under which clients reach nginx; or a list of them, of which the first is the "
            "one that is named where one must be.",
            extra={"expects": f"{_DOMAIN_IN_WORDS}, or a list of them"},
        ),
    ]
    server: Annotated[
        Literal["uvicorn", "gunicorn", "standalone"],
        Meta(
            description="What runs the service: `uvicorn`, its own runner on uvicorn; `gunicorn`, which replaces "
            "workers one by one; `standalone`, the plain websockets library.",
        ),
    ] = "uvicorn"
    manager: Annotated[
        Literal["systemd", "supervisor"],
        Meta(
            description="What starts, watches and stops it. systemd also confines it and keeps its socket open "
            "across restarts; supervisor can do neither.",
        ),
    ] = "systemd"
    tls: Annotated[
        Literal["off", "letsencrypt", "files"],
        Meta(
            description="Encryption between clients and nginx: `letsencrypt` obtains and renews a certificate, "
            "`files` serves the one named under `certificate`.",
        ),
    ] = "off"
    certificate: Certificate = Certificate()
    letsencrypt: LetsEncrypt = LetsEncrypt()
    expose: Annotated[
        bool,
        Meta(description="Allow `host` to be an address that others can reach past nginx, without its TLS and limits."),
    ] = False
    app: App = App()
    needs: Needs = Needs()
    engine: Engine = Engine()
    limits: Limits = Limits()
    user: Annotated[
        Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")] | None,
        Meta(
            description="The system user that runs the service; created when missing. Left out, it is the name of "
            "the deployment.",
            extra={
                "expects": "lower-case letters, digits, hyphens and underscores, at most 31",
                "example": "queue-websocket",
            },
        ),
    ] = None
    nginx: Nginx = Nginx()
    replaces: Annotated[
        tuple[ByHand, ...],
        Meta(
            description="What was set up by hand and has these clients until now: its units, programs and sites. "
            "Installing leads the clients over, stops it, and moves its files to /var/backups/NAME.by-hand.",
            extra={"expects": "a list of files, such as /etc/nginx/sites-enabled/websocket"},
        ),
    ] = ()
    env: Annotated[
        dict[VariableName, Annotated[str, Meta(max_length=32_768)]],
        Meta(
            description="Further environment variables of the service.",
            extra={"expects": "a mapping of names to values"},
        ),
    ] = msgspec.field(default_factory=dict)
    hosts: Annotated[
        tuple[Destination, ...],
        Meta(
            description="Where `wsbundle deploy` installs this, one after another, if it is run without naming hosts. "
            "Nothing that is installed depends on it.",
            extra={"expects": "a list of what ssh connects to"},
        ),
    ] = ()


def domains(deploy: Deploy) -> tuple[str, ...]:
    """Every name under which clients reach nginx."""
    return (deploy.domain,) if isinstance(deploy.domain, str) else deploy.domain


def main_domain(deploy: Deploy) -> str:
    """The one that is named where one must be."""
    return domains(deploy)[0]


def keys_file(deploy: Deploy) -> str:
    """Where the keys stand that tokens are signed with."""
    return deploy.keys or f"/{Paths(deploy.name).keys}"


def bus(deploy: Deploy) -> str:
    """Where the workers meet."""
    return deploy.bus or f"/{Paths(deploy.name).bus}"


def socket(deploy: Deploy) -> str:
    """By which nginx reaches the service."""
    return deploy.socket or f"/{Paths(deploy.name).listener}"


def mailbox(deploy: Deploy) -> service.Mailbox:
    """What is kept for absent clients, and where."""
    directory = deploy.mailbox.directory or f"/{Paths(deploy.name).mailbox}"
    return msgspec.structs.replace(deploy.mailbox, directory=directory)


# What a deployment of an application of one's own asks for; all the rest is the notification center's.
_OF_APPS = (
    *("domain", "name", "host", "port", "socket", "workers", "server", "manager", "tls", "expose", "user", "env"),
    "replaces",
    *("hosts", "certificate.", "letsencrypt.", "ping.", "log.", "app.", "needs."),
    *("drain.timeout", "drain.window", "drain.rate"),
    *("limits.connections", "limits.connections_per_address", "limits.handshakes_per_second"),
    *("limits.handshake_burst", "limits.header_timeout", "limits.message_size"),
    *("nginx.path", "nginx.include", "nginx.default_server", "nginx.listen", "nginx.http_port", "nginx.https_port"),
    *("nginx.proxy_protocol", "nginx.trusted_proxies", "nginx.idle_limit", "nginx.health_from"),
)


def is_for_apps(key: str) -> bool:
    """Whether a setting means anything where an application of one's own is in the notification center's place."""
    section = f"{key.partition('.')[0]}."
    return key in _OF_APPS or section in _OF_APPS


def is_about(key: str, deploy: Deploy) -> bool:
    """Whether a setting means anything to what is deployed."""
    if serves_app(deploy):
        return is_for_apps(key)
    return key == "app.callable" or key.partition(".")[0] not in ("app", "needs")


def serves_app(deploy: Deploy) -> bool:
    """Whether an application of one's own is in the notification center's place."""
    return deploy.app.callable is not None
