"""The mailboxes in the engine, asked from this host by the script with which the service asks."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.host.hosts import RefusedError, asking, heard
from generator.report import CommandError
from service.core.addresses import Address
from service.declaration import Fault
from service.mailbox import copies, script
from service.mailbox.database import MailboxError
from service.mailbox.rights import NEVER_SYNCED, WAITS, WRITES, faults_of, is_refusal, rights, version_of
from service.settings import Engine, Mailbox

if TYPE_CHECKING:
    from redis import Redis

# So many of the fullest are shown, of those whose oldest message is the oldest.
_SHOWN, _LOOKED_AT = 10, 10_000
_SECOND = 1_000_000
# It writes each second, or at once.
_DISK_MS = 3000
# So much is read, or written, before it is the turn of others.
_MOST, _MOST_BYTES = 100, 65_536
# What it takes for a mailbox, beside twice what is in it.
_BOX_BYTES = 4500


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
    yield from _of_the_user_default(ours, redis)


def _of_the_user_default(ours: Engine, redis: "Redis") -> Iterator[Fault]:
    """As that user the engine reads its own file, whoever has written it. Most users may not ask what it may do."""
    from redis.exceptions import ResponseError

    with contextlib.suppress(ResponseError):
        commands = [command.format(f"nc:1:{ours.name}:mail").encode().split() for command in WRITES]
        answers = [(words[0].decode(), _said(redis, (b"ACL", b"DRYRUN", b"default", *words))) for words in commands]
        if refused := [name for name, answer in answers if answer not in (b"OK", "OK")]:
            what = f"after a restart the engine has lost what it stored: its user default may not {', '.join(refused)}"
            yield Fault(what, "`ACL SETUSER default +@all ~*` there, also if that user is off")


@contextlib.contextmanager
def _answering(ours: Engine, reads_settings: bool = False) -> Iterator[None]:
    """What an engine that was reached refuses is told as that.

    Raises:
        RefusedError
    """
    from redis.exceptions import OutOfMemoryError, ResponseError

    try:
        yield
    except ResponseError as error:
        said = str(error)
        if said.startswith("GONE"):
            raise RefusedError(f"there are no mailboxes in the engine at {ours.url}", "start the service") from None
        if "STARTED" in said:
            what = "the service was started meanwhile, with a part of the copy, and has told recipients"
            raise RefusedError(what, "stop it on every host, and import again") from None
        if isinstance(error, OutOfMemoryError) or said.startswith("MISCONF"):
            raise RefusedError(f"the engine stores nothing now: {said}", "make room, and do this again") from None
        if said.startswith("NEWER"):
            what = f"the mailboxes in the engine at {ours.url} are of a newer release"
            raise RefusedError(what, "install that one again") from None
        if not is_refusal(said):
            raise
        what = f"the engine lets {ours.user} do too little for mailboxes: {said}"
        raise RefusedError(what, f"let it also {' '.join(rights(str(ours.name), reads_settings))}") from None


def _call(ours: Engine, mailbox: Mailbox, redis: "Redis", *calls: script.Call) -> script.Answer:
    words = script.arguments(script.prefix(ours), mailbox, calls)
    stores = any(call.is_storing for call in calls)
    name = redis.script_load((script.STORING if stores else script.WORKING).decode())
    return script.answer(redis.evalsha(name, 0, *words), calls)


def look(ours: Engine, mailbox: Mailbox, address: str | None) -> dict[str, Any]:
    """What is in all mailboxes, or in one, as `service.mailbox.__main__.show` has it.

    Raises:
        CommandError
    """
    call = script.show(_LOOKED_AT) if address is None else script.show_one(address)
    with _told(), asking(ours) as redis, _answering(ours):
        answer = _call(ours, mailbox, redis, call)
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


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RefusedError, MailboxError, OSError, sqlite3.Error) as error:
        raise CommandError(str(error)) from None


def export(ours: Engine, mailbox: Mailbox, file: Path) -> None:
    """Write a copy of all mailboxes: what is stored from now on is not in it, nor is what is confirmed meanwhile.

    Raises:
        CommandError
    """
    with _told(), asking(ours) as redis, _answering(ours):
        answer = _call(ours, mailbox, redis, script.list_boxes())
        (names,) = answer.outcomes
        copies.write(file, copies.Copy(answer.now, answer.last, _boxes(ours, redis, names, answer.last)))


def _boxes(
    ours: Engine, redis: "Redis", names: list[Address], last: int
) -> Iterator[tuple[copies.Box, Iterable[copies.Stored]]]:
    for name in names:
        box = script.box_of(name, _said(redis, script.box_fields(script.prefix(ours), name)))
        if box is not None:
            yield box, _stored_in(ours, redis, name, last)


def _stored_in(ours: Engine, redis: "Redis", name: Address, last: int) -> Iterator[copies.Stored]:
    after = 0
    while True:
        command = script.letters_after(script.prefix(ours), name, after, _MOST)
        found = script.letters_of(_said(redis, command))
        yield from (stored for stored in found if stored.item.offset <= last)
        if len(found) < _MOST:
            return
        after = found[-1].item.offset


def _said(redis: "Redis", command: tuple[bytes, ...]) -> Any:
    return redis.execute_command(*command)  # type: ignore[no-untyped-call]


def restore(ours: Engine, mailbox: Mailbox, file: Path) -> None:
    """Put a copy in the place of all mailboxes; the service that begins then draws another epoch, and tells recipients.

    That is so from the first step on: a part of a copy is never taken for all of it.

    Raises:
        CommandError
    """
    with _told():
        copies.check(file)
        with copies.reading(file) as copy, asking(ours) as redis, _answering(ours):
            if running := sorted({worker.host for worker in heard(ours)}):
                what = f"the service is running: {', '.join(running)}"
                raise RefusedError(what, "stop it on every host first, and start it again after this")
            _see_that_there_is_room(redis, file)
            _replace(ours, mailbox, redis, copy)


def _see_that_there_is_room(redis: "Redis", file: Path) -> None:
    boxes, size = copies.size_of(file)
    needed, room = 2 * size + _BOX_BYTES * boxes, int(redis.info("memory").get("maxmemory", 0))
    if 0 < room < needed:
        raise RefusedError(f"the engine has maxmemory {room}, and the copy needs {needed}", "give it more")


def _replace(ours: Engine, mailbox: Mailbox, redis: "Redis", copy: copies.Copy) -> None:
    answer = _call(ours, mailbox, redis, script.try_all(), script.restore(), script.list_boxes())
    *_, names = answer.outcomes
    calls, size = [script.only(answer.epoch)], 0
    for call in _steps(names, copy, answer.now - copy.now):
        calls.append(call)
        size += sum(map(len, call.words))
        if len(calls) > _MOST or size > _MOST_BYTES:
            _call(ours, mailbox, redis, *calls)
            calls, size = [script.only(answer.epoch)], 0
    _call(ours, mailbox, redis, *calls)
    if version_of(redis.info("server")) >= WAITS:
        redis.waitaof(1, 0, _DISK_MS)


def _steps(names: list[Address], copy: copies.Copy, later: int) -> Iterator[script.Call]:
    """All times, and with them all offsets, are those of the copy, and so much later: so that each message is as old
    here as it was there.
    """
    for name in names:
        yield script.drop(name)
    for box, items in copy.boxes:
        acked, lost_to, seen = (max(0, at + later) for at in (box.acked, box.lost_to, box.seen))
        yield script.put(box._replace(acked=acked, lost_to=lost_to, seen=seen))
        for stored in items:
            item = stored.item._replace(offset=stored.item.offset + later)
            yield script.fill(box.name, stored._replace(item=item))


def _seconds(microseconds: bytes) -> float | None:
    return int(microseconds) / _SECOND if microseconds else None
