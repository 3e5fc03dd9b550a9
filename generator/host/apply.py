"""Carrying out a switch on the host, step by step, each named and timed."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from generator.host import default_site
from generator.host.by_hand import ByHand
from generator.host.certificates import Place
from generator.host.directories import make_directory
from generator.host.facts import is_active, program_state
from generator.host.programs import StepFailed, has, must, run
from generator.host.reload import Reload
from generator.host.store import READ_EARLY, Store, sync
from generator.host.succession import shared, states
from generator.host.switch import Side, Switch
from generator.paths import SHARED, Paths
from generator.readers.nginx import HOST
from generator.readers.nginx_sites import own_main_context
from generator.rendering.write import put_copy, put_link, temporary_of
from generator.report import Report, refused, said

_STOP_S = 900.0
RESTART_S = 5400.0
"""Longer than any service may take to stop and to start: systemd ends it before, and says so."""

_NOT_LOADED = 5  # a run that was killed has removed the units. Source: systemctl(1), "Exit status"
_SUPERVISOR_PATIENCE_S = 30.0


def side(store: Store, number: int | None) -> Side:
    """One end of a switch, as it is recorded."""
    if number is None:
        return Side()
    generation = store.generation(number)
    return Side(
        name=store.name,
        manager=generation.manager,
        runtime=generation.runtime,
        app=generation.app,
        manifest=store.manifest(number),
        links=store.links(number),
        files=store.files(number),
        default_server=generation.default_server,
        replaces_workers=generation.replaces_workers,
        shared=shared(store.home / "runtimes" / generation.runtime),
        keeps=states(store.home / "runtimes" / generation.runtime) if generation.keeps_clients else "",
        is_joined=generation.joined.url is not None,
        engine=store.engine_unit(number),
        replaces=generation.replaces,
    )


def let_nginx_start(store: Store, after: int | None) -> None:
    """See that each deployment has some certificate: without one of them nginx would start with no site at all.

    Raises:
        StepFailed
    """
    others = [Store(name, store.root) for name in store.others()]
    for each, number in ((store, after), *((other, other.current) for other in others)):
        if number is not None and each.is_whole(number) and (there := each.generation(number)).tls == "letsencrypt":
            must(Place(each.name, each.root).prepare(there.domains), "making a placeholder certificate")


class Host:
    """The host on which one deployment is switched."""

    def __init__(self, store: Store, report: Report) -> None:
        self.store = store
        self.report = report
        self.service = f"{store.name}.service"
        self.socket = f"{store.name}.socket"
        self.nginx_socket = f"{store.name}.nginx.socket"
        self.by_hand = ByHand(store)

    def switch(self, todo: Switch, after: int | None) -> None:
        """Make `after` the current generation and let the services follow.

        Raises:
            StepFailed: the host stands between two generations until the switch is undone.
        """
        for name, act in self._due(todo, after):
            with self.report.step(name):
                act()

    def switch_back(self, todo: Switch, after: int | None) -> list[str]:
        """The same, going on past every failure: as much of `after` as can be had. What failed."""
        failures = []
        for name, act in (*self._due(todo, after), *self._last(todo)):
            try:
                with self.report.step(name):
                    act()
            except (StepFailed, OSError) as error:
                failures.append(said(error))
        return failures

    def retire(self, todo: Switch) -> None:
        """Stop what was set up by hand, once clients get through to the new side; their sites are gone already.

        Raises:
            StepFailed: it is still there, or half of it, until the switch is undone.
        """
        for name, act in self._last(todo):
            with self.report.step(name):
                act()

    def _last(self, todo: Switch) -> Iterator[tuple[str, Callable[[], None]]]:
        standing = self.by_hand.services(todo.retires)
        if standing:
            yield f"retire {', '.join(standing)}", lambda: self.by_hand.retire(standing)

    def _due(self, todo: Switch, after: int | None) -> Iterator[tuple[str, Callable[[], None]]]:
        return ((name, act) for name, due, act in self._steps(todo, after) if due)

    def _steps(self, todo: Switch, after: int | None) -> Iterator[tuple[str, bool, Callable[[], None]]]:
        name = self.store.name
        # Before anything of ours goes: for a moment both are there.
        revives = self.by_hand.was_touched(todo.revives)
        yield f"bring back {', '.join(todo.revives)}", revives, lambda: self.by_hand.revive(todo.revives)
        yield f"stop {name} under systemd", todo.stops_systemd, self._stop_units
        # While systemd still knows which directory it has made for it.
        yield f"stop {todo.stops_engine}", bool(todo.stops_engine), lambda: self._stop_engine(todo.stops_engine)
        # Before our default server stands, and after it is gone: with both, nginx would not start after a power cut.
        yield "take nginx's default site away", todo.takes_default_site, lambda: default_site.take_away(self.store)
        yield f"make generation {after} current" if after else f"remove {name}", True, lambda: self._relink(todo, after)
        returns = todo.returns_default_site and self.store.default_site.is_symlink()
        yield "bring nginx's default site back", returns, lambda: default_site.bring_back(self.store)
        directories = todo.makes_directories
        yield "make directories", directories and not todo.stops_supervisor, self._make_directories
        # nginx comes to the port again before its own listener goes: nobody is refused.
        yield "reload nginx", todo.stops_nginx_socket, self._reload_nginx
        yield f"stop {self.nginx_socket}", todo.stops_nginx_socket, lambda: self._stop(self.nginx_socket)
        yield "tell systemd", todo.reloads_units, self._reload_units
        yield "tell supervisor", todo.updates_supervisor or todo.stops_supervisor, self._update_supervisor
        # Not earlier: gunicorn removes its socket from one of them, and would leave its workers behind if it could not.
        yield "make directories", directories and todo.stops_supervisor, self._make_directories
        # It is there before the service that connects to it.
        engine = todo.restarts_engine
        yield f"restart {engine}, which reads its data", bool(engine), lambda: self._restart_engine(engine)
        # All in one request, which systemd carries out even if we are killed: first the service stops, since a socket
        # whose service runs cannot be changed, then the sockets change, then the service starts.
        # That of nginx is a part of the other one.
        units = (self.socket, self.service) if todo.restarts_socket else (self.service,)
        due = todo.restarts_socket or todo.restarts_service
        yield f"restart {' and '.join(units)}", due, lambda: self._restart_units(*units)
        yield f"reload {self.service}, worker by worker", todo.reloads_service, self._reload_service
        yield f"restart {name} under supervisor", todo.restarts_program, self._restart_program
        sites = self.by_hand.sites(todo.retires)
        yield f"take {', '.join(sites)} away", bool(sites), lambda: self.by_hand.put_away(sites)
        yield "reload nginx", todo.reloads_nginx, self._reload_nginx

    def _relink(self, todo: Switch, after: int | None) -> None:
        place = Place(self.store.name, self.store.root)
        let_nginx_start(self.store, after)
        # At no time does a link that nginx reads lead nowhere: after a power cut it would not start, with any site.
        self._put_all(todo.puts_first)
        if after is not None:
            self.store.make_current(after)
            for path in todo.copies:
                self._copy(path, self.store.directory(after) / path)
        self._put_all(todo.puts_then)
        stays = [fault for path in reversed(todo.removes) if path != SHARED and (fault := self._stays(path))]
        self._share(with_us=after is not None)
        if stays:  # before what it leads to is gone: nginx, with every other site, would not start
            raise StepFailed("\n".join(stays))
        if after is None:
            self.store.make_current(None)
            place.remove()
            run("systemctl", "stop", place.retry)  # as a rule there is none

    def _put_all(self, links: dict[str, str]) -> None:
        for path, link in links.items():
            if path != SHARED:
                self._put(path, link)

    def _put(self, path: str, link: str) -> None:
        target = self.store.root / path
        make_directory(target.parent)
        put_link(target, link)
        sync(target.parent)

    def _copy(self, path: str, source: Path) -> None:
        target = self.store.root / path
        make_directory(target.parent)
        put_copy(source, target)
        sync(target.parent)

    def _stays(self, path: str) -> str:
        """Remove it; why it could not be, which does not keep the others."""
        try:
            self._remove(path)
        except OSError as error:
            return refused(error)
        return ""

    def _remove(self, path: str) -> None:
        target = self.store.root / path
        if target.parent.is_dir():
            if target.is_symlink() or (target.is_file() and path.startswith(READ_EARLY)):
                target.unlink()
            temporary_of(target).unlink(missing_ok=True)
            sync(target.parent)
        # The other directories are the packages', empty or not.
        if target.parent.name == self.store.name or target.parent.name.endswith((".wants", ".service.d")):
            with suppress(OSError):  # other files stand beside it
                target.parent.rmdir()

    def _share(self, with_us: bool) -> None:
        """Let the shared file lead to the deployment that asks for most, if there is one and it need not make way."""
        files = set(self.store.root.glob(f"opt/*/current/{SHARED}"))
        if not with_us:
            files.discard(self.store.home / "current" / SHARED)
        candidates = sorted((_open_files(path), str(path)) for path in files)
        if not candidates or own_main_context(HOST / "nginx.conf"):
            self._remove(SHARED)
        elif (most := candidates[-1][1]) != _link_of(self.store.root / SHARED):
            self._put(SHARED, most)

    def _make_directories(self) -> None:
        path = f"/{Paths(self.store.name).tmpfiles}"
        if Path(path).exists():
            must(run("systemd-tmpfiles", "--create", path), "making directories")

    def _stop_units(self) -> None:
        # At once: a stopped service would be started again by the next connection to one of its sockets. That of nginx
        # is a part of the other one.
        self._stop(self.socket, self.service)

    def _stop(self, *units: str) -> None:
        outcome = run("systemctl", "stop", *units, timeout_s=_STOP_S)
        if outcome.code != _NOT_LOADED:
            must(outcome, f"stopping {' and '.join(units)}")

    def _systemctl(self, *words: str) -> None:
        must(run("systemctl", *words, timeout_s=_STOP_S), f"systemctl {' '.join(words)}")

    def _reload_units(self) -> None:
        self._systemctl("daemon-reload")
        # Units that are gone would stay in `systemctl --failed`.
        run("systemctl", "reset-failed", self.service, self.socket, self.nginx_socket)

    def _restart_units(self, *units: str) -> None:
        # After a start that failed again and again systemd would refuse this one.
        run("systemctl", "reset-failed", self.service)
        must(run("systemctl", "restart", *units, timeout_s=RESTART_S), f"systemctl restart {' '.join(units)}")

    def _restart_engine(self, unit: str) -> None:
        run("systemctl", "reset-failed", unit)
        self._systemctl("restart", unit)

    def _stop_engine(self, unit: str) -> None:
        self._stop(unit)
        run("systemctl", "reset-failed", unit)

    def _reload_service(self) -> None:
        # It lasts as long as each worker needs to start and to stop: the service tells systemd, which ends it in time.
        # One that does not run is started.
        must(run("systemctl", "reload-or-restart", self.service, timeout_s=None), f"reloading {self.service}")

    def _update_supervisor(self) -> None:
        wanted = Paths(self.store.name).supervisor in self.store.links(self.store.current)
        if not is_active("supervisor.service"):
            if not wanted:
                return
            self._systemctl("enable", "--now", "supervisor.service")
            self._await_supervisor()
        outcome = run("supervisorctl", "update", self.store.name, timeout_s=_STOP_S)
        if wanted or "no such group" not in outcome.output:  # a run that was killed came not so far, or further
            must(outcome, "supervisorctl update")
        if wanted:
            self._await_program()

    def _await_supervisor(self) -> None:
        """systemd calls it active before it listens."""
        deadline = time.monotonic() + _SUPERVISOR_PATIENCE_S
        while not run("supervisorctl", "pid").succeeded:
            if time.monotonic() > deadline:
                raise StepFailed("supervisor does not answer; see journalctl -u supervisor")
            time.sleep(0.2)

    def _restart_program(self) -> None:
        said = must(run("supervisorctl", "restart", self.store.name, timeout_s=_STOP_S), "supervisorctl restart")
        if "ERROR" in said.replace("not running", ""):
            raise StepFailed(f"supervisorctl restart failed: {said}")
        self._await_program()

    def _await_program(self) -> None:
        if "RUNNING" not in (said := program_state(self.store.name)):
            raise StepFailed(f"supervisor does not keep it running: {said}")

    def _make_logs_of_nginx(self) -> None:
        """As Debian's logrotate makes them every day: nginx itself lets everybody read addresses and errors."""
        if self.store.current is None:
            return
        for kind in ("access", "error"):
            log = self.store.root / f"var/log/nginx/{self.store.name}_{kind}.log"
            with suppress(OSError, LookupError):  # no such directory, no such group: nginx makes its own
                log.touch(0o640)
                log.chmod(0o640)
                shutil.chown(log, "www-data", "adm")

    def _reload_nginx(self) -> None:
        if not has("nginx") or (self.store.current is None and not is_active("nginx.service")):
            return
        self._make_logs_of_nginx()
        must(run("nginx", "-t", "-q"), "nginx -t")
        reloading = Reload()
        self._systemctl("reload-or-restart", "nginx.service")
        if fault := reloading.fault():
            raise StepFailed(fault)


def _open_files(path: Path) -> int:
    found = re.search(r"^worker_rlimit_nofile (\d+);", path.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0


def _link_of(path: Path) -> str:
    return str(path.readlink()) if path.is_symlink() else ""
