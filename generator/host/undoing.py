"""What stands against a rollback or an uninstallation: what this host does not have any more, and what others need."""

import time
from collections.abc import Iterator
from contextlib import suppress

from msgspec.structs import replace

from generator.host import certificates, own_site
from generator.host.facts import (
    Listener,
    bound_by_nginx,
    has_address,
    has_ipv6,
    holder_of,
    naming,
    surroundings,
    unit_of,
)
from generator.host.hosts import RefusedError, heard
from generator.host.neighbours import immovable, names_taken
from generator.host.next_start import as_written, certificate_of, out_of_reach, read_by_the_service
from generator.host.obstacles import broken_nginx, not_here, taken
from generator.host.preflight import after_a_switch, foreign_fault, kept_from_nginx, listening
from generator.host.programs import has
from generator.host.store import Store
from generator.paths import Paths
from generator.program import AS_ROOT
from service.declaration import Fault
from service.engine.identity import name_of_this_host


def of_nginx(store: Store) -> Iterator[Fault]:
    """Why nginx could follow no rollback: else the service would be restarted, and back, before nginx says so."""
    if not has("nginx"):
        yield Fault("nginx is not installed", f"`{AS_ROOT} install` installs it")
    elif foreign := foreign_fault(store.name):
        yield broken_nginx(foreign)


def of_the_ports(store: Store, number: int) -> Iterator[Fault]:
    """The ports of nginx in a generation that another program has."""
    then = as_written(store.name, store.generation(number))
    yield from (taken(then, listener) for listener in kept_from_nginx(then))


def against_a_rollback(store: Store, number: int) -> Iterator[Fault]:
    """What of this host a generation has no more; what the current one lives with is left out."""
    generation = store.generation(number)
    then = as_written(store.name, generation)
    current = None if store.current is None else store.generation(store.current)
    around = after_a_switch(store, then, surroundings(*generation.domains), bound_by_nginx())
    yield from immovable(then, around)
    yield from of_the_ports(store, number)
    present = None if current is None else as_written(store.name, current)
    new = [host for host in listening(then) if present is None or host not in listening(present)]
    yield from not_here(then, (host for host in new if not has_address(host)), has_ipv6())
    yield from out_of_reach(store, number)
    known = [] if store.current is None else _of_the_certificate(store, store.current)
    for key, fault in _of_the_certificate(store, number):
        if (key, fault) not in known:
            yield Fault(f"{key} of generation {number}: {fault.what}", fault.fix)
    there = [] if present is None else list(names_taken(present, around))
    yield from (fault for fault in names_taken(then, around) if fault not in there)
    host, _, port = generation.listener.rpartition(":")
    if port.isdecimal() and (current is None or current.listener.rpartition(":")[2] != port):
        holder = holder_of(host.strip("[]"), int(port))
        if holder is not None:
            yield taken(then, Listener(f"port {port} on {host}", holder, unit_of(holder)))


def _of_the_certificate(store: Store, number: int) -> list[tuple[str, Fault]]:
    """What is wrong with the operator's own that a generation names."""
    generation = store.generation(number)
    there = replace(as_written(store.name, generation), certificate=certificate_of(store, number))
    return list(certificates.faults(there, time.time())) if generation.tls == "files" else []


def against_an_uninstallation(store: Store, purge: bool) -> Iterator[Fault]:
    """What others need of that which goes."""
    yield from _named_by_others(store)
    if purge:
        yield from _read_by_others(store)
    yield from _missed_by_others(store)


def _read_by_others(store: Store) -> Iterator[Fault]:
    """Keys and passwords that other deployments of this host read as well: nobody has them again."""
    for other in (Store(name, store.root) for name in store.others()):
        number = other.current
        read = read_by_the_service(other, number, ours=False) if number is not None and other.is_whole(number) else []
        if shared := [path for path in read if path.startswith(f"/etc/{store.name}/")]:
            fix = f"uninstall {other.name} first, or this without --purge"
            yield Fault(f"{other.name} reads {' and '.join(shared)} as well", fix)


def _named_by_others(store: Store) -> Iterator[Fault]:
    """A site that has what is removed by its very name: nginx would not start again."""
    name = store.name
    there = naming(f"/{Paths(name).locations}", f"/{Paths(name).tls}/")
    if others := [path for path in there if path != f"/{Paths(name).site_link}"]:
        fix = f"let it say `{own_site.line_of(name)}`, and have a certificate of its own"
        yield Fault(f"{', '.join(others)} names a file of {name}, and nginx would not start without that", fix)


def _missed_by_others(store: Store) -> Iterator[Fault]:
    """Those who use the engine that is served here: other hosts, or another deployment of this one.

    Whoever is not heard on it has no use of it, and one that does not answer is of none.
    """
    number = store.current
    if number is None or store.pending is not None or not store.is_whole(number) or not store.engine_unit(number):
        return
    joined = store.generation(number).joined
    with suppress(RefusedError):
        others = sorted({worker.host for worker in heard(joined)} - {name_of_this_host(joined)})
        if others:
            fix = "uninstall them first, or install them without `engine`"
            yield Fault(f"{', '.join(others)} would be alone without the engine that {store.name} serves", fix)
