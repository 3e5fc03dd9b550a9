"""What a switch from one generation to another takes: which links and which services. Pure.

A switch and its undoing are the same thing with the two generations exchanged.
"""

from typing import Any, TypeAlias

import msgspec

from generator.paths import UNITS, Paths

Manifest: TypeAlias = dict[str, dict[str, Any]]


class Side(msgspec.Struct, frozen=True):
    """One end of a switch: what is installed there. `Side()` is a host without the deployment."""

    name: str = ""
    manager: str = ""
    runtime: str = ""
    app: str = ""
    manifest: Manifest = {}
    links: dict[str, str] = {}
    files: dict[str, str] = {}
    """What is no link but a copy of the generation's file, by path, and its SHA-256."""
    default_server: bool = False
    replaces_workers: bool = False
    """Whether a reload replaces the workers, one after another: `generator.rendering.render.replaces_workers`."""
    shared: str = ""
    """What the code of workers must have in common to take over from each other: `generator.host.succession`."""
    keeps: str = ""
    """The version of the states in which a restart keeps clients, `generator.host.succession.states`; else nothing."""
    is_joined: bool = False
    """Whether there is an engine: a reload that adds or removes it sends clients away, and a restart does not."""
    engine: str = ""
    """The unit that serves an engine, if one does."""
    replaces: tuple[str, ...] = ()
    """What was set up by hand and makes way for it: `generator.host.by_hand`."""

    def hash_of(self, path: str) -> str | None:
        entry = self.manifest.get(path)
        return entry.get("sha256") if entry is not None and entry["installed"] else None

    def has(self, path: str) -> bool:
        return self.hash_of(path) is not None


class Switch(msgspec.Struct, frozen=True):
    """What is to be done, in this order. Paths are without the leading slash.

    `puts_first` are links that stand before the generation is current. Afterwards `copies` of its files are made, then
    the links of `puts_then`.
    """

    stops_systemd: bool
    stops_supervisor: bool
    takes_default_site: bool
    puts_first: dict[str, str]
    copies: tuple[str, ...]
    puts_then: dict[str, str]
    removes: tuple[str, ...]
    returns_default_site: bool
    reloads_units: bool
    makes_directories: bool
    restarts_engine: str
    stops_engine: str
    stops_nginx_socket: bool
    """Whether the listener of nginx goes: nginx has left it by then."""
    restarts_socket: bool
    """Whether a listener changes: both are closed and opened again. One that is new comes with the service."""
    restarts_service: bool
    reloads_service: bool
    updates_supervisor: bool
    restarts_program: bool
    reloads_nginx: bool
    keeps_clients: bool = False
    """Whether clients stay connected over a restart or a reload of the service."""
    retires: tuple[str, ...] = ()
    """What was set up by hand and goes: sites before nginx is reloaded, all else when the new side is proven."""
    revives: tuple[str, ...] = ()
    """What of it comes back, before anything of the old side goes."""

    @property
    def puts(self) -> dict[str, str]:
        """Every link that is put in place."""
        return self.puts_first | self.puts_then

    @property
    def disconnects(self) -> bool:
        """Whether connections end with it, and clients come back."""
        ends = self.restarts_program or self.stops_systemd or self.stops_supervisor
        return ends or ((self.reloads_service or self.restarts_service) and not self.keeps_clients)

    @property
    def replaces_processes(self) -> bool:
        """Whether those that serve clients are replaced, connections end with it or not."""
        return self.disconnects or self.restarts_service or self.reloads_service


def plan(before: Side, after: Side, everything: bool = False, undoes: bool = False) -> Switch:
    """What changes between two sides; `everything` takes nothing for granted, whatever has happened to the host.

    `undoes` a switch from `after` to `before`, wherever it has got to: each file is put in its place again. But what is
    the same on both sides it has not touched, and listeners that are opened again refuse whoever waits at them.
    """
    name, files = after.name or before.name, everything or undoes

    def changed(*paths: str) -> bool:
        return everything or any(before.hash_of(path) != after.hash_of(path) for path in paths)

    paths = Paths(name)
    unit, sockets = paths.service, (paths.socket, paths.nginx_socket)
    settings = changed(paths.env, paths.gunicorn) or (before.runtime, before.app) != (after.runtime, after.app)
    of_the_engine = (paths.engine, paths.engine_users, paths.beside_valkey, paths.beside_redis)
    engine_changed = changed(*of_the_engine) or before.engine != after.engine
    under_systemd, under_supervisor = after.manager == "systemd", after.manager == "supervisor"
    # New workers must be understood by the process that runs and starts them, and by the old ones beside them.
    understood = before.replaces_workers and after.replaces_workers and before.shared == after.shared
    # How many workers are those of the other side, nobody knows where a switch is undone.
    succeeds = understood and not undoes and not changed(unit, *sockets)
    restarts = under_systemd and not succeeds and (settings or changed(unit, *sockets))
    had_nginx_socket, has_nginx_socket = (side.has(paths.nginx_socket) for side in (before, after))
    other_socket = changed(paths.socket) or (had_nginx_socket and has_nginx_socket and changed(paths.nginx_socket))
    puts = {path: link for path, link in after.links.items() if files or before.links.get(path) != link}
    copies = tuple(path for path, digest in after.files.items() if files or before.files.get(path) != digest)
    stays = after.links.keys() | after.files.keys()
    removes = tuple(path for path in (before.links | before.files) if path not in stays)
    puts_first, puts_then = _in_order(puts, before, paths.supervisor)
    retires = tuple(path for path in after.replaces if everything or path not in before.replaces)
    revives = tuple(path for path in before.replaces if path not in after.replaces)
    # supervisor starts a program by itself that is new to it, but not one that was stopped for a switch that is undone.
    program_changed = settings and before.manager == "supervisor"
    restarts_program = program_changed or (undoes and (settings or changed(paths.supervisor)))
    reloads = under_systemd and succeeds and settings
    keeps = restarts or (reloads and before.is_joined == after.is_joined)
    return Switch(
        stops_systemd=before.manager == "systemd" and not under_systemd,
        stops_supervisor=before.manager == "supervisor" and not under_supervisor,
        takes_default_site=after.default_server and (files or not before.default_server),
        puts_first=puts_first,
        copies=copies,
        puts_then=puts_then,
        removes=removes,
        returns_default_site=not after.default_server and (files or before.default_server),
        reloads_units=any(path.startswith(UNITS) for path in (*copies, *puts, *removes)),
        makes_directories=after.name != "" and (files or changed(paths.tmpfiles)),
        restarts_engine=after.engine if engine_changed else "",
        stops_engine=before.engine if before.engine != after.engine else "",
        stops_nginx_socket=under_systemd and had_nginx_socket and not has_nginx_socket,
        restarts_socket=under_systemd and other_socket,
        restarts_service=restarts,
        reloads_service=reloads,
        updates_supervisor="supervisor" in (before.manager, after.manager) and changed(paths.supervisor),
        restarts_program=under_supervisor and (everything or restarts_program),
        keeps_clients=keeps and before.keeps == after.keeps != "",
        reloads_nginx=changed(paths.site, paths.locations, paths.main_context) or bool(retires or revives),
        retires=retires,
        revives=revives,
    )


def _in_order(puts: dict[str, str], before: Side, program: str) -> tuple[dict[str, str], dict[str, str]]:
    """Which links stand before the generation is current, and which afterwards: whatever boots meanwhile serves.

    A generation holds the files of every server and every manager. So a link that stands too early leads to a file that
    does no harm, but one that stands too late is missed: by the new server, or because neither manager starts it.
    """
    first: dict[str, str] = {}
    then: dict[str, str] = {}
    last: dict[str, str] = {}
    for path, link in puts.items():
        # What starts a unit stands once the unit itself does.
        starts_a_unit = link.startswith(f"/{UNITS}")
        leads_somewhere = before.name != "" and not starts_a_unit and (link[0] != "/" or path in before.manifest)
        # supervisor, with whatever else it runs, does not start where the directory for a program's log is missing, and
        # it is the new generation that makes that directory at boot.
        (last if path == program else first if leads_somewhere else then)[path] = link
    return first, then | last
