"""The engine and the other hosts, asked from this one: as the service will ask, and before it does.

What the workers of all hosts say of themselves on the engine is what they know of each other: so it shows whether they
meet.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from generator.config.engine import Place, place, server
from service.declaration import Fault
from service.engine.envelope import BEATS, UNREADABLE, Beat, channel, decode
from service.engine.identity import name_of_this_host
from service.settings import Engine

if TYPE_CHECKING:
    from redis import Redis

# How long the engine has for each answer.
PATIENCE_S = 5.0
OLDEST = (7, 0)
# Messages carry the time, and who has an address first keeps it.
CLOCKS_APART_S = 1.0
_NEEDED = "+@connection +publish +subscribe +unsubscribe +info"


class RefusedError(Exception):
    """The engine cannot be used as it is; `fault` says why."""

    def __init__(self, what: str, fix: str) -> None:
        self.fault = Fault(what, fix)
        super().__init__(str(self.fault))


class Worker(msgspec.Struct, frozen=True):
    """What a worker says of itself. `silence` is its `engine.silence`. `links` has for each worker of another host the
    number of the last message that it had sent there at first, and of the last that it has taken from there since;
    nothing where they have not met."""

    name: str
    host: str
    silence: float
    links: dict[str, tuple[int, int]]


def faults(ours: Engine, is_installed: bool) -> Iterator[Fault]:
    """Why the engine would not join this host with others. `is_installed` says whether this host is joined already."""
    me = name_of_this_host(ours)
    if not me:
        yield Fault("/etc/machine-id has no name for this host", "write a `host:` of its own below `engine:`")
    try:
        with asking(ours) as redis:
            yield from _of_the_server(ours, redis)
            heard = _listen(ours, redis)
    except RefusedError as error:
        yield error.fault
        return
    if not is_installed and any(worker.host == me for worker in heard):
        yield Fault(f"another machine is host {me} there already", "write a `host:` of its own below `engine:`")


def warnings(ours: Engine) -> Iterator[Fault]:
    """What will be wrong with it one day."""
    with contextlib.suppress(RefusedError), asking(ours) as redis:
        policy = redis.info("memory").get("maxmemory_policy")
        if policy not in (None, "noeviction"):
            fix = "set maxmemory-policy noeviction there"
            yield Fault(f"the engine drops what it stores when it is full (maxmemory-policy {policy})", fix)


def heard(ours: Engine) -> list[Worker]:
    """The workers of all hosts, of this one too.

    Raises:
        RefusedError: the engine cannot be asked.
    """
    with asking(ours) as redis:
        return _listen(ours, redis)


def meet(ours: Engine, within_s: float) -> list[str]:
    """Wait until the service of this host has met that of every other host, and each has taken what was told.

    The other hosts.

    Raises:
        RefusedError: it does not come to that in time.
    """
    deadline, me = time.monotonic() + within_s, name_of_this_host(ours)
    while True:
        workers = heard(ours)
        others = sorted({worker.host for worker in workers} - {me})
        strangers = [host for host in others if not has_met(me, workers, host)]
        if any(worker.host == me for worker in workers) and not strangers:
            return others
        if time.monotonic() > deadline:
            what = f"this host and {', '.join(strangers)} have not met" if strangers else "the service is not heard"
            raise RefusedError(f"{what} on the engine", "see the service's log, here and there")


def password_in(file: Path) -> str:
    """The password that stands there.

    Raises:
        RefusedError: there is none that can be read.
    """
    fix = "write the password of the engine into it, on one line"
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise RefusedError(f"{file} cannot be read: {error.strerror}", "make it readable") from None
    except UnicodeDecodeError:
        raise RefusedError(f"{file} is not text in UTF-8", fix) from None
    if not password:
        raise RefusedError(f"{file} is empty", fix)
    return password


def has_met(me: str, workers: list[Worker], host: str) -> bool:
    """Whether each worker of the host `me` and each of another have met, and have taken what they told each other."""
    ours, theirs = ([each for each in workers if each.host == name] for name in (me, host))
    return bool(ours and theirs) and all(_have_met(one, other) for one in ours for other in theirs)


def _have_met(one: Worker, other: Worker) -> bool:
    there, back = one.links.get(other.name), other.links.get(one.name)
    return there is not None and back is not None and back[1] >= there[0] and there[1] >= back[0]


def _of_the_server(ours: Engine, redis: "Redis") -> Iterator[Fault]:
    told = redis.info("server")
    version = tuple(int(part) for part in str(told.get("redis_version", "0")).split(".")[:2])
    if version < OLDEST:
        yield Fault(f"the engine is Redis {told.get('redis_version')}", "use Redis 7 or newer, or Valkey 8 or newer")
    there = told.get("server_time_usec")
    if there is not None and (apart := abs(int(there) / 1e6 - time.time())) > CLOCKS_APART_S:
        fix = "let both follow NTP: timedatectl set-ntp true"
        yield Fault(f"the clocks of this host and of the engine are {apart:.1f} s apart", fix)


@contextlib.contextmanager
def asking(ours: Engine) -> Iterator["Redis"]:
    """A connection to the engine, whose errors are told as ours.

    Raises:
        RefusedError
    """
    from redis import Redis
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

    there = place(str(ours.url))
    try:
        if ours.sentinels:
            there = _master(ours, _options(ours))
        where = {"unix_socket_path": there.path} if there.path else {"host": there.host, "port": there.port}
        with Redis(**where, **_options(ours)) as redis:
            yield redis
    except AuthenticationError as error:
        fix = f"compare engine.user and {ours.password_file} with those of the engine"
        raise RefusedError(f"the engine at {there} refuses the user {ours.user}: {_said(error)}", fix) from None
    except NoPermissionError as error:
        needed = f"ACL SETUSER {ours.user} resetchannels &nc:*:{ours.name}:* {_NEEDED}"
        raise RefusedError(f"the engine at {there} lets {ours.user} do too little: {_said(error)}", needed) from None
    except (RedisError, OSError) as error:
        raise RefusedError(f"the engine at {there} cannot be reached: {_said(error)}", _way_out(error, there)) from None


def _options(ours: Engine) -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    there = place(str(ours.url))
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "driver_info": None}
    options |= {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    if ours.password_file is not None:
        options |= {"username": ours.user, "password": password_in(Path(ours.password_file))}
    if there.encrypted:
        options |= {"ssl": True, "ssl_ca_certs": ours.ca, "ssl_certfile": ours.cert, "ssl_keyfile": ours.key}
    return options


def _master(ours: Engine, options: dict[str, Any]) -> Place:
    from redis.exceptions import RedisError
    from redis.sentinel import Sentinel

    places = [server(text) for text in ours.sentinels]
    without = {key: value for key, value in options.items() if key not in ("username", "password")}
    for given in (without, options):  # they may ask for a password themselves
        sentinel = Sentinel([(each.host, each.port) for each in places], sentinel_kwargs=given)  # type: ignore[no-untyped-call]
        with contextlib.suppress(RedisError, OSError):
            host, port = sentinel.discover_master(str(ours.master))  # type: ignore[no-untyped-call]
            return Place(host=str(host), port=int(port), encrypted=bool(options.get("ssl")))
    names = ", ".join(map(str, places))
    raise RefusedError(f"no Sentinel of {names} knows the master {ours.master}", "see `SENTINEL masters` there")


def _listen(ours: Engine, redis: "Redis") -> list[Worker]:
    """What is said on the channel of all hosts within two beats, and a message of our own as the proof that we hear."""
    center = str(ours.name)
    own = channel(center, f"install-{secrets.token_hex(4)}")
    found: dict[str, Worker] = {}
    with redis.pubsub(ignore_subscribe_messages=True) as listening:  # type: ignore[no-untyped-call]
        listening.subscribe(channel(center), own)
        listening.get_message(timeout=PATIENCE_S)
        redis.publish(own, "")
        hears_itself, ends = False, time.monotonic() + 2.5 * ours.silence / BEATS
        while (left := ends - time.monotonic()) > 0:
            message = listening.get_message(timeout=left)
            if message is not None and message["channel"] == own.encode():
                hears_itself = True
            elif message is not None and (worker := _worker(message["data"])):
                found[worker.name] = _later(found.get(worker.name, worker), worker)
    if not hears_itself:
        raise RefusedError("the engine does not pass on what it takes", "see its log")
    return list(found.values())


def _later(first: Worker, now: Worker) -> Worker:
    """What a worker had sent at first, and has taken by now: with traffic the latest message is always under way."""
    links = {other: (first.links.get(other, numbers)[0], numbers[1]) for other, numbers in now.links.items()}
    return Worker(now.name, now.host, now.silence, links)


def _worker(data: bytes) -> Worker | None:
    """Of all that is said, the beats."""
    try:
        said = decode(data)
    except UNREADABLE:  # of a later release, or another's words
        return None
    if not isinstance(said, Beat):
        return None
    met = {other: (sent, taken) for other, (mine, yours, sent, taken) in said.links.items() if mine and yours}
    return Worker(said.sender, said.host, said.silence, met)


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _way_out(error: Exception, there: Place) -> str:
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said:
        return "name its authority in engine.ca; the certificate must be for this address"
    if there.path:
        return "is it running, and may the service's user open that socket?"
    if "refused" in said:
        return "is it running, and does it listen on that address?"
    tls = ", and does this port speak TLS" if there.encrypted else ", and is this port without TLS"
    return f"does a firewall let this host through{tls}?"
