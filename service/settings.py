"""What the running service reads: each setting is declared here once, with its unit, bounds and default.

The generator's `deploy.yaml`, its schema, docs/settings.md, the rendered `.env` and the service's own reading of its
environment all derive from these lines. `extra` carries what only we read: `env` is the environment variable,
`unit` is printed behind the value, `expects` says in words what a pattern asks for.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from service.declaration import Fault, SettingError, plain, read, read_words, settings_of, struct_from, values_of
from service.origins import ORIGIN

Origin = Annotated[
    str,
    Meta(
        pattern=ORIGIN,
        max_length=300,
        extra={
            "expects": "scheme://host in lower case, such as https://example.com",
            "explain": "origin",
            "words": ("null",),
        },
    ),
]

FilePath = Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=1000)]
Sentinel = Annotated[
    str,
    Meta(
        pattern=r"^([0-9A-Za-z.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$",
        max_length=300,
        extra={"expects": "an address with its port, such as 10.0.0.5:26379"},
    ),
]


class Ping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a silent peer is given up."""

    interval: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Idle time before a ping is sent.",
            extra={"env": "WEBSOCKET_PING_INTERVAL", "unit": "seconds"},
        ),
    ] = 60.0
    timeout: Annotated[
        float,
        Meta(
            ge=1,
            le=3600,
            description="Time a peer has to answer a ping before its connection is closed.",
            extra={"env": "WEBSOCKET_PING_TIMEOUT", "unit": "seconds"},
        ),
    ] = 30.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one host carries, and what one client may ask of it."""

    connections: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Connections that are open at once; one more is refused with 503.",
            extra={"env": "WEBSOCKET_MAX_CONNECTIONS"},
        ),
    ] = 1000
    connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=65_535,  # nginx's limit_conn knows no more
            description="Connections that one client address may hold; one more is refused with 429. An office "
            "behind one address counts as one client.",
            extra={"env": "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS"},
        ),
    ] = 100
    message_size: Annotated[
        int,
        Meta(
            ge=128,
            le=16 * 1024 * 1024,
            description="The longest message a client may send; a longer one closes its connection with 1009.",
            extra={"env": "WEBSOCKET_MAX_MESSAGE_SIZE", "unit": "bytes"},
        ),
    ] = 65536
    messages_per_second: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Messages that one client may send per second, counted once for each recipient. A client "
            "that sends more is throttled; nothing is lost.",
            extra={"env": "WEBSOCKET_MAX_MESSAGES_PER_SECOND"},
        ),
    ] = 1000
    bytes_per_second: Annotated[
        int,
        Meta(
            ge=1024,
            le=1024 * 1024 * 1024,
            description="Bytes of messages that one client may send per second. A client that sends more is "
            "throttled; nothing is lost.",
            extra={"env": "WEBSOCKET_MAX_BYTES_PER_SECOND", "unit": "bytes per second"},
        ),
    ] = 4 * 1024 * 1024
    registrations: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="Addresses that one connection may register, beside its temporary one.",
            extra={"env": "WEBSOCKET_MAX_REGISTRATIONS"},
        ),
    ] = 8
    queue: Annotated[
        int,
        Meta(
            ge=65_536,
            le=1024 * 1024 * 1024,
            description="What may wait for one slow client; beyond that the client is closed with 4101.",
            extra={"env": "WEBSOCKET_MAX_QUEUE", "unit": "bytes"},
        ),
    ] = 1024 * 1024
    header_timeout: Annotated[
        int,
        Meta(
            ge=1,
            le=600,
            description="Time a client has to send its whole request.",
            extra={"env": "WEBSOCKET_HEADER_TIMEOUT", "unit": "seconds"},
        ),
    ] = 10
    hello_timeout: Annotated[
        int,
        Meta(
            ge=1,
            le=600,
            description="Time a client of nc.v1 has to say hello, and with `auth: token` to show its token.",
            extra={"env": "WEBSOCKET_HELLO_TIMEOUT", "unit": "seconds"},
        ),
    ] = 10


class Drain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the service stops."""

    timeout: Annotated[
        int,
        Meta(
            ge=1,
            le=600,
            description="Time that open connections have to finish when the service stops; every later stop timeout "
            "(gunicorn, systemd, supervisor, nginx) follows from it.",
            extra={"env": "WEBSOCKET_DRAIN_TIMEOUT", "unit": "seconds"},
        ),
    ] = 10
    window: Annotated[
        int,
        Meta(
            ge=0,
            le=590,
            description="Time over which clients are sent away when the service stops, so that they do not all come "
            "back at one moment.",
            extra={"env": "WEBSOCKET_DRAIN_WINDOW", "unit": "seconds"},
        ),
    ] = 5
    rate: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Clients that are sent away per second while the window lasts long enough; a few clients are "
            "gone at once.",
            extra={"env": "WEBSOCKET_DRAIN_RATE", "unit": "clients per second"},
        ),
    ] = 500
    keep: Annotated[
        bool,
        Meta(
            description="Whether a restart keeps the connections, which systemd holds until the service is back, and a "
            "reload, at which clients pass on to the new workers. Only with `server: uvicorn`; a stop always sends "
            "clients away.",
            extra={"env": "WEBSOCKET_DRAIN_KEEP"},
        ),
    ] = True


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the service writes to its log."""

    level: Annotated[
        Literal["critical", "error", "warning", "info", "debug"],
        Meta(description="The least severe message that is written.", extra={"env": "LOG_LEVEL"}),
    ] = "warning"
    format: Annotated[
        Literal["plain", "json"],
        Meta(description="How a line of the log is written.", extra={"env": "LOG_FORMAT"}),
    ] = "plain"


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Valkey or Redis server over which several hosts are one notification center."""

    url: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^((valkey|redis)s?://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?|unix://(/[A-Za-z0-9._-]+)+)$",
                max_length=300,
            ),
        ]
        | None,
        Meta(
            description="The engine: Valkey 8 or later, or Redis 7 or later. Hosts that name the same one are one "
            "notification center: clients of one reach those of all others. Left out, this host is alone. "
            "`valkeys://` and `rediss://` are TLS. With `sentinels` only that counts: they say where the engine is.",
            extra={
                "env": "WEBSOCKET_ENGINE_URL",
                "expects": "valkeys://HOST:PORT, valkey://HOST:PORT, the same with redis, or unix:///PATH, without a "
                "password",
                "example": "valkeys://10.0.0.5:6379",
            },
        ),
    ] = None
    sentinels: Annotated[
        tuple[Sentinel, ...],
        Meta(
            description="The Sentinels that know which server is the master. TLS, `user` and `password_file` are used "
            "for them as for the engine.",
            extra={
                "env": "WEBSOCKET_ENGINE_SENTINELS",
                "expects": "a list of addresses with ports, such as 10.0.0.5:26379",
            },
        ),
    ] = ()
    master: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)] | None,
        Meta(
            description="What the Sentinels call the engine.",
            extra={
                "env": "WEBSOCKET_ENGINE_MASTER",
                "expects": "letters, digits, dots, hyphens and underscores",
                "example": "mymaster",
            },
        ),
    ] = None
    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)] | None,
        Meta(
            description="What this notification center is called on the engine: hosts that use the same name there are "
            "one. Left out, it is the name of the deployment.",
            extra={
                "env": "WEBSOCKET_ENGINE_NAME",
                "expects": "letters, digits, dots, hyphens and underscores",
                "example": "queue-websocket",
            },
        ),
    ] = None
    user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]+$",
            max_length=100,
            description="The user of the engine that the service logs in as.",
            extra={"env": "WEBSOCKET_ENGINE_USER", "expects": "letters, digits, dots, hyphens and underscores"},
        ),
    ] = "default"
    password_file: Annotated[
        FilePath | None,
        Meta(
            description="A file with the password of that user, on one line, for nobody else to read.",
            extra={
                "env": "WEBSOCKET_ENGINE_PASSWORD_FILE",
                "expects": "an absolute path, such as /etc/queue-websocket/engine.password",
                "example": "/etc/queue-websocket/engine.password",
            },
        ),
    ] = None
    ca: Annotated[
        FilePath | None,
        Meta(
            description="The authorities that may sign the certificate of the engine, PEM. Left out, those of the "
            "system.",
            extra={
                "env": "WEBSOCKET_ENGINE_CA",
                "expects": "an absolute path, such as /etc/ssl/engine/ca.pem",
                "example": "/etc/ssl/engine/ca.pem",
            },
        ),
    ] = None
    cert: Annotated[
        FilePath | None,
        Meta(
            description="The certificate that the service shows to the engine, PEM.",
            extra={
                "env": "WEBSOCKET_ENGINE_CERT",
                "expects": "an absolute path, such as /etc/ssl/engine/client.pem",
                "example": "/etc/ssl/engine/client.pem",
            },
        ),
    ] = None
    key: Annotated[
        FilePath | None,
        Meta(
            description="Its private key, PEM.",
            extra={
                "env": "WEBSOCKET_ENGINE_KEY",
                "expects": "an absolute path, such as /etc/ssl/engine/client.key",
                "example": "/etc/ssl/engine/client.key",
            },
        ),
    ] = None
    silence: Annotated[
        float,
        Meta(
            ge=2,
            le=60,
            description="After how much silence another host, or the engine, is given up: what was on its way is "
            "answered with an error. The longest of all hosts counts.",
            extra={"env": "WEBSOCKET_ENGINE_SILENCE", "unit": "seconds"},
        ),
    ] = 4.0
    host: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)] | None,
        Meta(
            description="By which the hosts tell each other apart; no two may have the same. Left out, it is drawn "
            "from /etc/machine-id.",
            extra={
                "env": "WEBSOCKET_ENGINE_HOST",
                "expects": "letters, digits, dots, hyphens and underscores",
                "example": "host-1",
            },
        ),
    ] = None


class Mailbox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept for clients that are not there."""

    keep: Annotated[
        Literal["none", "disk", "engine"],
        Meta(
            description="Where messages are kept for clients of nc.v1 that are away. `disk`: in a database of this "
            "host. `engine`: in the engine that joins several hosts. `none`: nowhere.",
            extra={"env": "WEBSOCKET_MAILBOX_KEEP"},
        ),
    ] = "none"
    directory: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=1000)] | None,
        Meta(
            description="Where the database is: a directory of its own. Left out, it is /var/lib/NAME/mailbox.",
            extra={
                "env": "WEBSOCKET_MAILBOX_DIRECTORY",
                "expects": "an absolute path, such as /var/lib/queue-websocket/mailbox",
                "example": "/var/lib/queue-websocket/mailbox",
            },
        ),
    ] = None
    ttl: Annotated[
        int,
        Meta(
            ge=60,
            le=366 * 86_400,
            description="How long a message is kept. An address has a mailbox until its owner has been away for so "
            "long.",
            extra={"env": "WEBSOCKET_MAILBOX_TTL", "unit": "seconds"},
        ),
    ] = 86_400
    messages: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Messages that one mailbox holds. The sender of a further one is told that it is full; "
            "nothing older is dropped.",
            extra={"env": "WEBSOCKET_MAILBOX_MESSAGES"},
        ),
    ] = 1000
    bytes: Annotated[
        int,
        Meta(
            ge=128,
            le=1024 * 1024 * 1024,
            description="Bytes of messages that one mailbox holds.",
            extra={"env": "WEBSOCKET_MAILBOX_BYTES", "unit": "bytes"},
        ),
    ] = 1024 * 1024
    total: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            le=1024**4,
            description="Bytes of messages that all mailboxes hold together. The database, or the "
            "memory of the engine, needs up to twice as much.",
            extra={"env": "WEBSOCKET_MAILBOX_TOTAL", "unit": "bytes"},
        ),
    ] = 1024 * 1024 * 1024
    sync: Annotated[
        Literal["turn", "second"],
        Meta(
            description="What survives a power cut. `turn`: all that a sender was told is stored. `second`: all but "
            "the last second, which recipients are told; a sender that sends one by one waits a fraction as long.",
            extra={"env": "WEBSOCKET_MAILBOX_SYNC"},
        ),
    ] = "turn"


# How long an application's event loop may be held up, as under gunicorn by default: what blocks in `async def` for a
# few seconds is a mistake that many make, and would cost its worker all other requests. Ours is never held up so long.
APP_WATCHDOG_S = 30


class App(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Your own application, in place of the notification center."""

    callable: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=300)]
        | None,
        Meta(
            description="The ASGI application to run, as `module:attribute`. Left out, it is the notification center.",
            extra={
                "env": "WEBSOCKET_APP",
                "expects": "module:attribute, such as shop.asgi:application",
                "example": "shop.asgi:application",
            },
        ),
    ] = None
    start: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="Time that it may take to begin to serve: its import, and the startup of its lifespan. "
            "What takes longer is ended, and what ran before runs on.",
            extra={"env": "WEBSOCKET_APP_START", "unit": "seconds"},
        ),
    ] = 60


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the running service reads."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^[0-9A-Fa-f.:]+$",
            description="The address of `port`. nginx does not use it, so loopback is right; any other address also "
            "needs `expose: true`.",
            extra={"env": "WEBSOCKET_HOST", "expects": "an IPv4 or IPv6 address, such as 127.0.0.1"},
        ),
    ] = "127.0.0.1"
    port: Annotated[
        Annotated[int, Meta(ge=1024, le=65535)] | Literal["none"],
        Meta(
            description="The TCP port on which programs of this host reach the service past nginx. `none`: only nginx "
            "reaches it. Left out beside `socket`, it is none.",
            extra={"env": "WEBSOCKET_PORT"},
        ),
    ] = 8765
    socket: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=107)] | None,
        Meta(
            description="The Unix socket by which nginx reaches the service, and nobody else. Left out, it is "
            "/run/NAME/ws.sock.",
            extra={
                "env": "WEBSOCKET_SOCKET",
                "expects": "an absolute path, such as /run/queue-websocket/ws.sock",
                "example": "/run/queue-websocket/ws.sock",
            },
        ),
    ] = None
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | Literal["auto"],
        Meta(
            description="Worker processes; whichever of them a client is connected to, it reaches all others. `auto`: "
            "one for each CPU that the service may use.",
            extra={"env": "WORKERS"},
        ),
    ] = 1
    bus: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=90)] | None,
        Meta(
            description="The directory in which the workers meet, for them alone. Left out, it is /run/NAME/bus.",
            extra={
                "env": "WEBSOCKET_BUS",
                "expects": "an absolute path, such as /run/queue-websocket/bus",
                "example": "/run/queue-websocket/bus",
            },
        ),
    ] = None
    app: App = App()
    engine: Engine = Engine()
    ping: Ping = Ping()
    auth: Annotated[
        Literal["none", "token"],
        Meta(
            description="Who may register an address; `none`: the first client that asks, while it is connected; "
            "`token`: the holder of a token for it, which `wsbundle token` mints.",
            extra={"env": "WEBSOCKET_AUTH"},
        ),
    ] = "none"
    keys: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=1000)] | None,
        Meta(
            description="The keys that tokens are signed with, a JSON Web Key Set (RFC 7517). Left out, it is "
            "/etc/NAME/keys.json, which `wsbundle install` makes.",
            extra={
                "env": "WEBSOCKET_KEYS",
                "expects": "an absolute path, such as /etc/queue-websocket/keys.json",
                "example": "/etc/queue-websocket/keys.json",
            },
        ),
    ] = None
    origins: Annotated[
        tuple[Origin, ...],
        Meta(
            description="The web pages whose scripts may connect, as `scheme://host` with the port where it is not the "
            "usual one, also of apps: `capacitor://localhost`, `chrome-extension://ID`. None: any page may.",
            extra={"env": "WEBSOCKET_ORIGINS", "expects": "a list of origins, such as https://example.com"},
        ),
    ] = ()
    limits: Limits = Limits()
    mailbox: Mailbox = Mailbox()
    drain: Drain = Drain()
    log: Log = Log()
    welcome: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=500,
            description="The first text a client receives; `{uuid}` stands for its temporary UUID.",
            extra={"env": "WEBSOCKET_WELCOME"},
        ),
    ] = "Welcome! Your temporary UUID is {uuid}"


class SettingsError(Exception):
    """The environment holds values that the service cannot run with; `faults` has all of them, by variable."""

    def __init__(self, faults: Mapping[str, Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(f"{variable}: {fault}" for variable, fault in faults.items()))


def without_unwanted_port(values: dict[str, Any]) -> dict[str, Any]:
    """The values that were given, by key; who gives a socket and no port wants nobody but nginx to connect."""
    return {"port": "none", **values} if values.get("socket") is not None else values


def from_environ(environ: Mapping[str, str]) -> Settings:
    """The settings that an environment asks for; a variable that is not set, or empty, leaves the default.

    Raises:
        SettingsError: with every fault at once.
    """
    values, faults = {}, {}
    for setting in settings_of(Settings):
        variable = setting.extra["env"]
        if text := environ.get(variable, ""):
            try:
                values[setting.key] = read_words(text, setting) if setting.takes_many else read(text, setting)
            except SettingError as error:
                faults[variable] = error.fault
    if faults:
        raise SettingsError(faults)
    return struct_from(Settings, without_unwanted_port(values))


def to_environ(settings: Settings) -> dict[str, str]:
    """The inverse of `from_environ`: every setting by its variable, defaults included."""
    values = values_of(settings)
    return {setting.extra["env"]: plain(values[setting.key]) for setting in settings_of(Settings)}
