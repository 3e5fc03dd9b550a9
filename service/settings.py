"""What the running service reads: each setting is declared here once, with its unit, bounds and default.

The generator's `deploy.yaml`, its schema, docs/settings.md, the rendered `.env` and the service's own reading of its
environment all derive from these lines. `extra` carries what only we read: `env` is the environment variable,
`unit` is printed behind the value, `expects` says in words what a pattern asks for.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

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
            le=100_000,
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
            description="Messages that one client may send per second, counted once for each recipient. Who sends more "
            "is read more slowly; nothing is lost.",
            extra={"env": "WEBSOCKET_MAX_MESSAGES_PER_SECOND"},
        ),
    ] = 1000
    bytes_per_second: Annotated[
        int,
        Meta(
            ge=1024,
            le=1024 * 1024 * 1024,
            description="Bytes of messages that one client may send per second. Who sends more is read more slowly; "
            "nothing is lost.",
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
            description="What may wait for one client that reads too slowly; beyond it the client is closed with 4101.",
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


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the running service reads."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^[0-9A-Fa-f.:]+$",
            description="The address the service listens on. nginx stands in front, so loopback is right; any other "
            "address also needs `expose: true`.",
            extra={"env": "WEBSOCKET_HOST", "expects": "an IPv4 or IPv6 address, such as 127.0.0.1"},
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(
            ge=1024,
            le=65535,
            description="The TCP port the service listens on.",
            extra={"env": "WEBSOCKET_PORT"},
        ),
    ] = 8765
    socket: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=107)] | None,
        Meta(
            description="A Unix socket to listen on instead of `host` and `port`: only nginx reaches it.",
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
            description="Where the workers meet: a directory of theirs alone. Left out, it is /run/NAME/bus.",
            extra={
                "env": "WEBSOCKET_BUS",
                "expects": "an absolute path, such as /run/queue-websocket/bus",
                "example": "/run/queue-websocket/bus",
            },
        ),
    ] = None
    ping: Ping = Ping()
    auth: Annotated[
        Literal["none", "token"],
        Meta(
            description="Who may register an address; `none`: whoever comes first and is still there, `token`: the "
            "holder of a token for it, which `wsbundle token` mints.",
            extra={"env": "WEBSOCKET_AUTH"},
        ),
    ] = "none"
    keys: Annotated[
        Annotated[str, Meta(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=1000)] | None,
        Meta(
            description="The keys that tokens are signed with, a JSON Web Key Set (RFC 7517). Left out, it is "
            "/etc/NAME/keys.json, which `make install` makes.",
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
    return struct_from(Settings, values)


def to_environ(settings: Settings) -> dict[str, str]:
    """The inverse of `from_environ`: every setting by its variable, defaults included."""
    values = values_of(settings)
    return {setting.extra["env"]: plain(values[setting.key]) for setting in settings_of(Settings)}
