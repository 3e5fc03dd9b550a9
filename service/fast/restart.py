"""Clients stay connected while the unit restarts: systemd keeps them for the next process, which serves them on."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from service.core.close_codes import RESTART
from service.engine.envelope import UNREADABLE
from service.fast.fast import FastShell
from service.fast.handover import Given, Taking, freeze, leave, settle, turn_away
from service.process.descriptor_store import Client, StoredSet, put
from service.process.notify import Notifier
from service.workers.meeting import all_are_at, is_orphan
from service.workers.mesh import all_is_read

# By which the unit says how many descriptors systemd keeps for it: sd_notify(3). Without it none are kept.
STORE_VARIABLE = "FDSTORE"
# What one worker tells another, when it is read, leads to something that is told, and so on, no more often than this.
_STEPS = 3
# How long workers of other hosts may take to say that they keep what is for the clients. Those of one that does not are
# offline there, and what was on its way is lost.
FOLLOWING_S = 2.0
# Where there are not enough descriptors for all clients, so many are for the sets that the others are kept in.
_SPARE = 16

logger = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


def can_keep(environ: Mapping[str, str]) -> bool:
    """Whether the service manager keeps descriptors."""
    number = environ.get(STORE_VARIABLE, "")
    return number.isascii() and number.isdigit() and int(number) > 0


async def keep_clients(shell: FastShell, notifier: Notifier, environ: Mapping[str, str]) -> None:
    """Let go of all clients that the next process can serve; the others are still here, to be sent away.

    This process is to end at once, which closes the connections here.
    """
    frozen = freeze(shell.clients)
    await settle(frozen, shell.center.mail.store)
    await _meet("frozen", shell, notifier, environ)
    bus, followed = shell.center.hub.bus, asyncio.Event()
    bus.announce_restart([client.session for client in frozen], followed.set)
    try:
        await asyncio.wait_for(followed.wait(), FOLLOWING_S)
    except asyncio.TimeoutError:
        logger.warning("a worker of another host does not answer; its clients see those of this host as offline")
    await all_are_at("followed", notifier, environ)  # else some would see those of others as offline
    bus.lose_abroad()
    with _no_collection():
        with contextlib.ExitStack() as spare:
            with contextlib.suppress(OSError):
                for _ in range(_SPARE):
                    spare.enter_context(socket.socket(socket.AF_UNIX))
            given = leave(frozen, ends=True)
        kept = put(given, notifier, environ, _encode([*bus.followers]))
    for each in given[:kept]:
        each.connection.close()
    for each in given[kept:]:
        turn_away(each, RESTART)
    bus.confirm_restart([each.address for each in given[kept:] if each.address is not None])
    logger.info("%d clients stay connected until the next process serves them", kept)


def followers_in(sets: Iterable[StoredSet]) -> set[str]:
    """The workers of other hosts that keep what is for these clients, as far as that can be read."""
    followers: set[str] = set()
    for stored in sets:
        with contextlib.suppress(*UNREADABLE):  # a release before says nothing of them
            followers.update(_decode(stored.before))
    return followers


async def take_clients_back(
    shell: FastShell, sets: Iterable[StoredSet], notifier: Notifier, environ: Mapping[str, str]
) -> None:
    """Serve the clients that a process before this one has left. A set that another one had begun with has the rest."""
    await all_are_at("start", notifier, environ)  # from then on, each takes about the same number
    taking = Taking(shell, frozen=True)
    taking.bus.take_back(is_over=False)
    shell.center.mail.hold()
    number = taken = 0
    with _no_collection():
        for some in _left_in(sets, notifier, environ):
            number += len(some)
            # All at once: their mailboxes are asked for together.
            taken += sum(await asyncio.gather(*(_take(taking, Given(*client)) for client in some)))
    await _meet("taken", shell, notifier, environ)
    taking.bus.take_back(is_over=True)
    taking.finish()
    shell.center.mail.release()
    if number:
        logger.info("%d clients are served on, %d have gone or could not be", taken, number - taken)


def _left_in(sets: Iterable[StoredSet], notifier: Notifier, environ: Mapping[str, str]) -> Iterator[list[Client]]:
    """All clients, some at a time. What an orphan took would be lost when it stops: the next process gets the rest."""
    for stored in sets:
        clients = stored.read()
        while not is_orphan(environ):
            some = next(clients, None)
            if some is None:
                stored.close()
                notifier.unstore(stored.name)
                break
            yield some


async def _meet(point: str, shell: FastShell, notifier: Notifier, environ: Mapping[str, str]) -> None:
    """Wait until all workers have come to a point, and nothing is on its way between them any more."""
    left = _STEPS
    while await all_are_at(point, notifier, environ) and left:
        await all_is_read(shell.center.hub.bus)
        point, left = "read", left - 1


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the collector of cycles: it would look through all clients that are there, again and again as more come,
    which takes longer than everything else.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # all of them are old now: else the collector would begin with them
        gc.enable()


async def _take(taking: Taking, client: Given) -> bool:
    try:
        if await taking.take(client):
            return True
    except Exception:  # whatever it is, the others come back
        logger.exception("a client cannot be served on")
        client.connection.close()
    if (address := client.address) is not None:
        taking.bus.does_not_come(address)
    return False
