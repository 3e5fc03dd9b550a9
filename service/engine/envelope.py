"""What the workers of several hosts publish on the engine: a MessagePack array whose first item says which it is. Pure.

Each worker subscribes to two channels: `all`, and an inbox of its own. What it publishes on `all` has one number after
another, and so has what it publishes in one inbox. Whoever installs a host listens to `all` as well.
Hosts of two releases talk to each other: what holds for `service.core.bus_records` holds here.
"""

import msgspec

# Those of the wire that this release understands, lowest and highest; a link speaks the highest that both do.
VERSIONS = (1, 3)
# From this one on, clients pass from worker to worker.
MOVES = 2
# From this one on, clients stay while a host restarts.
RESTARTS = 3
# So many beats in the time after which a silence counts.
BEATS = 8
# Every engine counts messages of this size against the limits of a subscriber that does not read.
MAX_BYTES = 15_000


class _Envelope(msgspec.Struct, array_like=True, gc=False):
    """One message; `sender` is a worker."""


class Beat(_Envelope, tag=1):
    """On `all`: a worker is alive. `links` has what it knows of each link: its nonce, that of the other, the
    number of the last batch that it has sent, and of the last one that it has taken.

    `at` is when it was said, by the clock of the host since its `boot`. `pids` are the workers of its host when it is
    new: those have died that are not among them, and have said nothing later.
    """

    sender: str
    host: str
    boot: str
    versions: tuple[int, int]
    silence: float
    said: int
    at: float
    links: dict[str, tuple[int, int, int, int]]
    pids: list[str] | None = None


class Greeting(_Envelope, tag=2):
    """In an inbox: the sender wants a link, under its own nonce, and knows the receiver's, or 0. Nonces grow with time.

    `said` is the number of what it has last published on `all`; `hostname` is what people call its host.
    """

    sender: str
    host: str
    versions: tuple[int, int]
    silence: float
    mine: int
    yours: int
    said: int
    hostname: str = ""


class Batch(_Envelope, tag=3):
    """In an inbox: the records of one turn of the loop. `ack` is the last number that the sender has taken."""

    sender: str
    mine: int
    yours: int
    number: int
    ack: int
    records: list[bytes]


class Taken(_Envelope, tag=4):
    """In an inbox: the sender has taken all batches up to this number."""

    sender: str
    mine: int
    yours: int
    ack: int


class Shared(_Envelope, tag=5):
    """On `all`: records for all, or for those that are named."""

    sender: str
    number: int
    records: list[bytes]
    to: list[str] | None = None


class Bye(_Envelope, tag=6):
    """On `all`: a worker has gone; the others of its host say it of one that was killed."""

    sender: str


def channel(center: str, worker: str | None = None) -> str:
    """The inbox of a worker of a notification center, or `all`."""
    return f"nc:1:{center}:{'all' if worker is None else f'w:{worker}'}"


Envelope = Beat | Greeting | Batch | Taken | Shared | Bye

# What decoding raises: text that is not UTF-8 is no error of msgspec's own.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Envelope).decode
