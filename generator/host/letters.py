"""The mailboxes in the engine, asked from this host by the script with which the service asks."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from generator.host.hosts import RefusedError, asking
from generator.report import CommandError
from service.declaration import Fault
from service.mailbox import script
from service.mailbox.rights import NEVER_SYNCED, WAITS, faults_of, is_refusal, rights, version_of
from service.settings import Engine, Mailbox

if TYPE_CHECKING:
    from redis import Redis

# So many of the fullest are shown, of those whose oldest message is the oldest.
_SHOWN, _LOOKED_AT = 10, 10_000
_SECOND = 1_000_000
# It writes each second, or at once.
_DISK_MS = 3000


def faults(ours: Engine, mailbox: Mailbox) -> Iterator[Fault]:
    """Why the engine would keep no mail, or lose it."""
    try:
        with asking(ours) as redis:
            yield from _of_the_server(ours, mailbox, redis)
    except RefusedError as error:
        yield error.fault


def _of_the_server(ours: Engine, mailbox: Mailbox, redis: "Redis") -> Iterator[Fault]:
    facts = redis.info()
    for what, fix in faults_of(facts):
        yield Fault(f"the engine is of no use for mailboxes: {what}", fix)
    needed, room = 2 * mailbox.total, int(facts.get("maxmemory", 0))
    if 0 < room < needed:
        what = f"the engine has maxmemory {room}, and full mailboxes need {needed}"
        yield Fault(what, f"give it more, or use at most {room // 2} for mailbox.total")
    is_old = version_of(facts) < WAITS
    asks = is_old and mailbox.sync == "turn"
    with _answering(ours, asks):
        _call(ours, mailbox, redis, script.try_all())
        if not is_old and facts.get("aof_enabled") == 1 and redis.waitaof(1, 0, _DISK_MS)[0] < 1:
            yield Fault(f"the engine has not written to its disk within {_DISK_MS / 1000:g} s", NEVER_SYNCED)
        if asks and redis.config_get("appendfsync").get("appendfsync") != "always":
            what = "the engine cannot be asked whether something is on its disk, and mailbox.sync is turn"
            yield Fault(what, "set appendfsync always there, take version 7.2 or newer, or use mailbox.sync: second")


@contextlib.contextmanager
def _answering(ours: Engine, reads_settings: bool = False) -> Iterator[None]:
    """What an engine that was reached refuses is told as that.

    Raises:
        RefusedError
    """
    from redis.exceptions import ResponseError

    try:
        yield
    except ResponseError as error:
        said = str(error)
        if said.startswith("GONE"):
            raise RefusedError(f"there are no mailboxes in the engine at {ours.url}", "start the service") from None
        if said.startswith("NEWER"):
            what = f"the mailboxes in the engine at {ours.url} are of a newer release"
            raise RefusedError(what, "install that one again") from None
        if not is_refusal(said):
            raise
        what = f"the engine lets {ours.user} do too little for mailboxes: {said}"
        raise RefusedError(what, f"let it also {' '.join(rights(str(ours.name), reads_settings))}") from None


def _call(ours: Engine, mailbox: Mailbox, redis: "Redis", call: script.Call) -> Any:
    words = script.arguments(script.prefix(ours), mailbox, [call])
    name = redis.script_load(script.WORKING.decode())
    return script.answer(redis.evalsha(name, 0, *words), [call])


def look(ours: Engine, mailbox: Mailbox, address: str | None) -> dict[str, Any]:
    """What is in all mailboxes, or in one, as `service.mailbox.__main__.show` has it.

    Raises:
        CommandError
    """
    call = script.show(_LOOKED_AT) if address is None else script.show_one(address)
    try:
        with asking(ours) as redis, _answering(ours):
            answer = _call(ours, mailbox, redis, call)
    except RefusedError as error:
        raise CommandError(str(error)) from None
    (found,) = answer.outcomes
    if address is None:
        boxes, oldest, fullest = found
        named = [{"address": name.decode(), "messages": number, "bytes": size} for name, number, size in fullest]
        named.sort(key=lambda each: (-each["messages"], each["address"]))
        totals = {"mailboxes": boxes, "messages": answer.messages, "bytes": answer.bytes, "oldest": _seconds(oldest)}
        return {**totals, "fullest": named[:_SHOWN]}
    if not found:
        raise CommandError(f"{address} has no mailbox: its owner has never asked for one, or was away for too long")
    messages, size, oldest, newest, seen = found
    times = {"oldest": _seconds(oldest), "newest": _seconds(newest), "owner_seen": _seconds(seen)}
    return {"address": address, "messages": messages, "bytes": size, **times}


def _seconds(microseconds: bytes) -> float | None:
    return int(microseconds) / _SECOND if microseconds else None
