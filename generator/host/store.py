"""What is installed, on disk: `/opt/<name>` with its runtimes, its generations and the one that is current.

    /opt/<name>/runtimes/<id>/      code and virtual environment; the id follows from their content
    /opt/<name>/apps/<id>/files/    an application of one's own; the id follows from its files
    /opt/<name>/generations/<n>/    the rendered files as they stand on the host, and links into a runtime and an app
    /opt/<name>/current             -> generations/<n>: the one switch
    /opt/<name>/pending.json        a switch that has begun and is not recorded yet
    /opt/<name>/recover             what a boot runs while a switch is pending: `generator.host.recovery`
    /opt/<name>/default-site        what nginx's own default site led to, while it is out of our way

Nearly every installed path, such as /etc/nginx/sites-available/<name>, is a link through `current`, so that one
rename(2) changes all of them at once: after a power cut the host has the old generation or the new one, never a
mixture. What systemd reads before it mounts /opt cannot be a link into it: `READ_EARLY` are copies of the generation's
files. When power is cut between two of their renames, the next boot makes them fit: `generator.host.recovery`.
"""

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from generator.host import recovery
from generator.host.permissions import differences, is_open, open_up
from generator.paths import RENDERED, UNITS, Paths, engine_unit
from generator.program import AS_ROOT
from generator.rendering.bundle import MANIFEST, Bundle
from generator.rendering.write import discard, put_link, put_text, temporary_of, write
from generator.report import CommandError
from service.settings import Engine

RECORD = "generation.json"
ACL = "engine.acl"
READY = "ready"
PRISTINE = "pristine"
APPS = "apps"
# Beside READY, so that neither the application nor a command of its own can have that name.
FILES = "files"
_DIRECTORIES = ("runtimes", APPS, "generations", "edited")
# The last one says that it is to go.
_FILES = ("current", "default-site", "recover", "pending.json")
# Read at boot before any file system but the root is mounted. And `systemctl disable` deletes a unit that is a link.
READ_EARLY = (UNITS, "etc/sysusers.d/", "etc/tmpfiles.d/")


Kind = TypeVar("Kind")


class Generation(msgspec.Struct, frozen=True):
    """One installed state. `installed_at` is seconds since the epoch; `healthy` whether its probe ever succeeded."""

    number: int
    runtime: str
    installed_at: float
    server: str
    manager: str
    listener: str
    domain: str
    tls: str
    healthy: bool = False
    default_server: bool = False
    auth: str = "none"
    keys: str | None = None
    replaces_workers: bool = False
    keeps_clients: bool = False
    has_files: bool = False
    """Whether `READ_EARLY` are files. Up to version 0.1 they were links as well."""
    listen: tuple[str, ...] = ("0.0.0.0", "::")
    ports: tuple[int, int] = (80, 443)
    """Of nginx, without and with TLS."""
    proxy_protocol: bool = False
    aliases: tuple[str, ...] = ()
    """The other names of the site."""
    url: str = ""
    """What clients connect to; nothing in those of version 0.1, which had no other ports."""
    engine: str = ""
    """The package that serves an engine here, `valkey` or `redis`; nothing where none does."""
    joined: Engine = Engine()
    """The engine that joins this host with others, as the service is told of it."""
    app: str = ""
    """An application of the operator's own, by the name of its directory; nothing for the notification center."""
    health: str | None = None
    """What that is asked to see that it works."""
    path: str = "/"
    """What clients begin with."""
    start_s: int = 0
    """How long an application may take to begin to serve; 0 for the notification center."""
    included: str = ""
    """The name of the deployment, where its locations are for a site of the operator's own."""
    replaces: tuple[str, ...] = ()
    """What was set up by hand and makes way for it, by absolute path."""
    writes: tuple[str, ...] = ()
    """The directories of `needs.write`: a unit that names one does not start without it."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Every name of the site."""
        return (self.domain, *self.aliases)


class Pending(msgspec.Struct, frozen=True):
    """A switch that has begun: from one generation (None: nothing was installed) to another (None: nothing will be).

    `makes_keys` says that there were no keys before, `makes_password` the same of the engine's password, `proves`
    that the generation was not proven healthy before, and `everything` that also what is the same in both was touched.
    `disabled` are the links that somebody had taken away, so that units do not start at boot.
    """

    before: int | None
    after: int | None
    makes_keys: bool = False
    makes_password: bool = False
    proves: bool = False
    everything: bool = True
    disabled: tuple[str, ...] = ()


class _Manifest(msgspec.Struct, frozen=True):
    files: list[dict[str, Any]]


class Store:
    """The directory of one deployment."""

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        self.name = name
        self.root = root
        self.home = root / "opt" / name
        self.default_site = self.home / "default-site"

    @property
    def units(self) -> tuple[str, str, str]:
        return f"{self.name}.service", f"{self.name}.socket", f"{self.name}.nginx.socket"

    @property
    def is_ours(self) -> bool:
        """Whether it is there and was made by an installation; others use /opt, too."""
        if self.home.is_symlink() or not self.home.is_dir():
            return False
        if any(self.is_whole(number) for number in self.numbers()):
            return True
        parts = {entry.name: entry for entry in self.home.iterdir()}
        made = [part for part in ("runtimes", APPS, "generations") if part in parts]
        names = [entry.name for part in made for entry in parts[part].iterdir()]
        fits = all(re.fullmatch(r"[0-9]+|[0-9a-f]{12}", name) for name in names)
        return bool(parts.keys() & {"runtimes", "generations", "pending.json"}) and fits and not self.strangers()

    @property
    def current(self) -> int | None:
        """The number of the current generation."""
        try:
            link = (self.home / "current").readlink()
            return int(link.name) if link.parent.name == "generations" and self._ran(int(link.name)) else None
        except (OSError, ValueError):  # others have their own /opt/<name>/current, which need be no link
            return None

    def numbers(self) -> list[int]:
        """The generations that are kept, oldest first."""
        try:
            return sorted(int(entry.name) for entry in (self.home / "generations").iterdir() if entry.name.isdigit())
        except FileNotFoundError:
            return []

    def directory(self, number: int) -> Path:
        return self.home / "generations" / str(number)

    def generation(self, number: int) -> Generation:
        """The record of a generation.

        Raises:
            CommandError: it is damaged.
        """
        return _read(self.directory(number) / RECORD, Generation, self._way_back(number))

    def manifest(self, number: int) -> dict[str, dict[str, Any]]:
        """The manifest's entries of a generation by path; also those that are not installed."""
        found = _read(self.directory(number) / MANIFEST, _Manifest, self._way_back(number))
        return {entry["path"]: entry for entry in found.files}

    def _way_back(self, number: int) -> str:
        record = self.directory(number) / RECORD
        return f"restore it; or remove {record}, and go back: `{AS_ROOT} rollback`"

    def user(self, number: int) -> str:
        """As whom the service of a generation runs."""
        return str(self.manifest(number)[Paths(self.name).env]["group"])

    def links(self, number: int | None) -> dict[str, str]:
        """Every link that a generation has on the host, and what it says; nothing for no generation."""
        if number is None:
            return {}
        through, files = f"/opt/{self.name}/current", self.files(number)
        entries = self.manifest(number).items()
        links = {
            path: entry.get("link") or f"{through}/{path}"
            for path, entry in entries
            if entry["installed"] and path not in files
        }
        if self.generation(number).manager == "systemd":
            links |= self.wants
        if unit := self.engine_unit(number):
            template = f"{unit.partition('@')[0]}@.service"
            links[f"{UNITS}multi-user.target.wants/{unit}"] = f"/usr/lib/systemd/system/{template}"
        return links

    def engine_unit(self, number: int | None) -> str:
        """The unit that serves an engine in a generation; nothing where none does."""
        return "" if number is None else engine_unit(self.generation(number).engine, self.name)

    def files(self, number: int | None) -> dict[str, str]:
        """Every file that a generation has on the host itself, and its SHA-256."""
        if number is None or not self.generation(number).has_files:
            return {}
        entries = self.manifest(number).items()
        return {path: entry["sha256"] for path, entry in entries if entry["installed"] and path.startswith(READ_EARLY)}

    @property
    def wants(self) -> dict[str, str]:
        """The links that `systemctl enable` makes."""
        service, socket, _ = self.units
        return {
            f"{UNITS}sockets.target.wants/{socket}": f"/{UNITS}{socket}",
            f"{UNITS}multi-user.target.wants/{service}": f"/{UNITS}{service}",
        }

    def disabled(self, number: int | None) -> tuple[str, ...]:
        """Those of them that a generation has, and that are gone."""
        return tuple(
            path for path in self.wants if path in self.links(number) and not os.path.lexists(self.root / path)
        )

    def traces(self) -> tuple[str, ...]:
        """What is on the host itself of whatever generation: by what it says, so that /opt/<name> need not be there.

        What somebody has put in place of a link is not among them.
        """
        paths, engines = Paths(self.name), [engine_unit(flavour, self.name) for flavour in ("valkey", "redis")]
        leading = {*self.wants, *(f"{UNITS}multi-user.target.wants/{unit}" for unit in engines)}
        return tuple(path for path in (*vars(paths).values(), *sorted(leading)) if self._is_trace(path, leading))

    def _is_trace(self, path: str, leading: Collection[str]) -> bool:
        target = self.root / path
        if target.is_symlink():
            text = str(target.readlink())
            return path in leading or text.startswith((f"/opt/{self.name}/", f"../sites-available/{self.name}"))
        return path.startswith(READ_EARLY) and is_rendered(target)

    def ruins(self) -> str:
        """What is wrong where /opt/<name>, or part of it, is not there any more, and the fix; else nothing."""
        left = self.traces() if self.current is None and self.pending is None else ()
        what = (
            f"/opt/{self.name} is gone or damaged, and what leads there stays, such as /{''.join(left[:1])}: nginx may "
        )
        fix = f"mount /opt, if it is a file system of its own; else `{AS_ROOT} uninstall` removes what is left"
        return f"{what}not start again, with every site; {fix}" if left else ""

    def add(self, bundle: Bundle, generation: Generation) -> None:
        """Write a generation as a whole: until its record stands, `numbers` may list it and nothing refers to it."""
        directory = self.directory(generation.number)
        write(bundle, directory, owners=True)
        # The files as they were written, to show what was edited since; .env among them is nobody's but root's.
        (directory / PRISTINE).mkdir(mode=0o700, exist_ok=True)
        write(bundle, directory / PRISTINE)
        if self.current is not None:
            self._keep_times(directory, self.directory(self.current))
        for part in ("service", "venv"):
            put_link(directory / part, f"../../runtimes/{generation.runtime}/{part}")
        if generation.app:
            put_link(directory / "app", f"../../{APPS}/{generation.app}/{FILES}")
        self.record(generation)
        for folder, _, _ in os.walk(directory):  # the files themselves are synced as they are written
            sync(Path(folder))
        sync(directory.parent)

    def _keep_times(self, directory: Path, before: Path) -> None:
        """Let what is as it was before be as old: else systemd would say of a unit that it changed on disk."""
        for path in directory.rglob("*"):
            old = before / path.relative_to(directory)
            if path.is_file() and _same(old, path):
                state = old.stat()
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    def record(self, generation: Generation) -> None:
        text = msgspec.json.format(msgspec.json.encode(generation), indent=2).decode() + "\n"
        put_text(self.directory(generation.number) / RECORD, text)

    def pristine(self, number: int, path: str) -> Path:
        """A file of a generation as it was written, whatever was edited since."""
        return self.directory(number) / PRISTINE / path

    def shut(self, number: int) -> list[Path]:
        """What a generation stands on, and is not root's alone to write and everybody's to read any more.

        A service that runs does not notice, and cannot start again.
        """
        generation, runtime = self.directory(number), self.home / "runtimes" / self.generation(number).runtime
        found = [self.home, generation.parent, runtime.parent]
        for top in (generation, runtime):
            for folder, folders, files in os.walk(top):
                folders[:] = [name for name in folders if name not in (PRISTINE, "__pycache__")]
                # The manifest says whose the files of a generation are.
                found += [Path(folder), *(Path(folder, name) for name in files if top == runtime)]
        owner = self.root.stat().st_uid
        return [path for path in found if not is_open(path, owner)]

    def restore(self, number: int) -> None:
        """Take back what was edited in a generation, or given away, since it was written."""
        directory, root = self.directory(number), self.root.stat()
        for shut in self.shut(number):
            open_up(shut, root.st_uid, root.st_gid)
        for path, entry in self.manifest(number).items():
            pristine, target = self.pristine(number, path), directory / path
            if "sha256" in entry and (not _same(pristine, target) or differences(target, entry)):
                owner = (entry["owner"], entry["group"])
                put_text(target, pristine.read_text(encoding="utf-8"), int(entry["mode"], 8), owner)

    def make_current(self, number: int | None) -> None:
        """The switch."""
        if number is None:
            (self.home / "current").unlink(missing_ok=True)
        else:
            put_link(self.home / "current", f"generations/{number}")
        sync(self.home)

    @property
    def pending(self) -> Pending | None:
        path = self.home / "pending.json"
        return _read(path, Pending, f"remove it, then `{AS_ROOT} install`") if path.exists() else None

    def begin(self, pending: Pending) -> None:
        """Note that a switch begins. Raises: OSError: it has not begun, as where the disk is full."""
        earlier = self.pending
        try:
            put_text(self.home / "pending.json", msgspec.json.encode(pending).decode())
            sync(self.home)
            for path in recovery.put(self.name, self.root):
                sync(path.parent)
        except OSError:
            if earlier is None:
                self.end()
            raise

    def disprove(self) -> None:
        """What the pending switch may have recorded as healthy is undone, so that nobody goes back to it by itself."""
        pending = self.pending
        if pending is not None and pending.proves and pending.after is not None and self.is_whole(pending.after):
            self.record(msgspec.structs.replace(self.generation(pending.after), healthy=False))

    def end(self) -> None:
        """The switch that was pending is done or undone."""
        (self.home / "pending.json").unlink(missing_ok=True)
        sync(self.home)
        recovery.remove(self.name, self.root)

    def prune(self, keep: int) -> list[int]:
        """Remove the oldest generations but for `keep` and the current one, and what no other one is made of."""
        old = [number for number in self.numbers()[:-keep] if number != self.current]
        for number in old:
            self.remove(number)
        kept = [self.generation(number) for number in self.numbers() if self.is_whole(number)]
        for directory in self._made():
            if directory.name not in {name for generation in kept for name in (generation.runtime, generation.app)}:
                remove_runtime(directory)
        return old

    def _made(self) -> list[Path]:
        """What generations are made of, and may share."""
        return [directory for part in ("runtimes", APPS) for directory in (self.home / part).glob("*")]

    def made_of(self, number: int) -> list[Path]:
        """The directories of a generation's runtime and, where it has one, of its application."""
        generation = self.generation(number)
        named = {"runtimes": generation.runtime, APPS: generation.app}
        return [self.home / part / name for part, name in named.items() if name]

    def is_whole(self, number: int) -> bool:
        """Whether a generation was written to its end, and nothing has damaged what says so since."""
        try:
            return bool(self.generation(number) and self.manifest(number))
        except CommandError:
            return False

    def _ran(self, number: int) -> bool:
        return (self.directory(number) / RECORD).exists()

    def remove(self, number: int) -> None:
        """Remove a generation; one that is removed by half is not whole."""
        (self.directory(number) / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.directory(number))

    def sweep(self) -> None:
        """Remove what runs that were killed have left: generations that never ran, and what was not whole."""
        if self.pending is None:
            recovery.remove(self.name, self.root)
            for number in self.numbers():
                if number != self.current and not (self.is_whole(number) and self.generation(number).healthy):
                    self.remove(number)
        for name in _FILES:
            discard(temporary_of(self.home / name))

    def others(self) -> list[str]:
        """The other deployments that are installed on this host."""
        homes = sorted((self.root / "opt").glob("*"))
        return [home.name for home in homes if home != self.home and Store(home.name, self.root).current is not None]

    def vanish(self) -> None:
        """Remove all of it; what says that it is to go goes last, so that a run that is killed can be completed."""
        recovery.remove(self.name, self.root)
        for number in self.numbers():
            self.remove(number)
        for directory in self._made():
            remove_runtime(directory)
        for part in _DIRECTORIES:
            shutil.rmtree(self.home / part, ignore_errors=True)
        for part in _FILES:
            (self.home / part).unlink(missing_ok=True)
        with suppress(OSError):  # others have files in it, or it is gone
            self.home.rmdir()

    def strangers(self) -> list[str]:
        """What stands in its directory and is not its own."""
        ours = {*_DIRECTORIES, *_FILES, *(temporary_of(self.home / part).name for part in _FILES)}
        return sorted(path.name for path in self.home.iterdir() if path.name not in ours) if self.home.is_dir() else []


def _read(path: Path, kind: type[Kind], fix: str) -> Kind:
    """What we have written; a disk or a person may have damaged it since."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise CommandError(f"{path} is damaged ({getattr(error, 'strerror', error)}); {fix}") from None


def remove_runtime(directory: Path) -> None:
    """One that is removed by half is not ready."""
    (directory / READY).unlink(missing_ok=True)
    shutil.rmtree(directory)


def is_rendered(path: Path) -> bool:
    """Whether a file is a deployment's own."""
    try:
        return RENDERED in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return False


def sync(directory: Path) -> None:
    """Make the names in a directory outlive a power cut. Source: fsync(2), "NOTES"."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
