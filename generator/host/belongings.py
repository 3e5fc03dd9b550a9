"""What on a host belongs to a deployment: the directories and users that it made, and what in them is its own.

Recorded in /var/lib/wsbundle.d/<name>.json before they are made; kept by an uninstallation that keeps data, and removed
with the last of them. What was there before is never recorded, so nothing of it is ever removed: installing refuses to
take it over. Deployments of releases that kept no record are judged by what they left.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from generator.config.schema import Deploy
from generator.host import facts
from generator.host.directories import make_directory
from generator.host.facts import Account, account_of
from generator.host.programs import run
from generator.host.store import Store
from generator.paths import Paths
from generator.rendering.write import put_text
from generator.report import CommandError, Report

# No deployment can have this name: it has a dot.
_RECORDS = "var/lib/wsbundle.d"
_KEYS, _NEW_KEYS = Paths("NAME").keys.rpartition("/")[2], ".keys-"
_PASSWORD = Paths("NAME").engine_password.rpartition("/")[2]
_CHALLENGES = ".well-known/acme-challenge"


class Belongings(msgspec.Struct, frozen=True):
    """What a deployment made: directories by absolute path, users by name."""

    directories: tuple[str, ...] = ()
    users: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.directories or self.users)


def directories_of(name: str) -> tuple[str, ...]:
    """Every directory that carries a deployment's name, whatever its settings."""
    return (*_always(name), f"/var/log/{name}", f"/var/lib/{name}-acme", f"/var/lib/{name}-engine")


def needed(deploy: Deploy) -> tuple[str, ...]:
    """Those that these settings need."""
    return _needed(deploy.name, deploy.manager, deploy.tls, deploy.engine.serve)


def made_by(name: str) -> str:
    """The comment in /etc/passwd of a user that was made for a deployment: templates/etc/sysusers.d/NAME.conf."""
    return f"WebSocket service {name}"


def recorded(store: Store, user: str, account: Callable[[str], Account | None] = account_of) -> Belongings:
    """What a deployment made, whose service runs as `user`; nothing where it was never installed.

    Raises:
        CommandError: somebody has damaged the record.
    """
    try:
        return msgspec.json.decode(_record(store).read_bytes(), type=Belongings)
    except FileNotFoundError:
        return _derived(store, user, account)
    except msgspec.MsgspecError as error:
        fix = "restore it, or remove it: then what was installed is worked out anew"
        raise CommandError(f"{_record(store)} is damaged ({error}); {fix}") from None


def record(store: Store, belongings: Belongings) -> None:
    """Write down what is about to be made, or what is left of it; nothing left, no record."""
    path = _record(store)
    if belongings:
        make_directory(path.parent)
        put_text(path, msgspec.json.format(msgspec.json.encode(belongings), indent=2).decode() + "\n")
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):  # other deployments have theirs in it
        path.parent.rmdir()


def claim(store: Store, deploy: Deploy, user: str, mine: Belongings) -> None:
    """Record what an installation is about to make; preflight has refused whatever was there before."""
    users = (user,) if account_of(user) is None else ()
    directories = dict.fromkeys((*mine.directories, *needed(deploy)))
    record(store, Belongings(tuple(directories), tuple(dict.fromkeys((*mine.users, *users)))))


def settle(store: Store, user: str) -> None:
    """Where nothing is installed, keep on record only what is there: a first installation made less than it claimed."""
    if not store.numbers():
        mine = recorded(store, user)
        there = tuple(path for path in mine.directories if os.path.lexists(_on(store, path)))
        users = tuple(user for user in mine.users if account_of(user) is not None or facts.group_of(user) is not None)
        record(store, Belongings(there, users))


def foreign(store: Store, deploy: Deploy, mine: Belongings) -> list[str]:
    """The directories that an installation would take over. Where nothing is installed, none may carry the name."""
    wanted = directories_of(store.name) if store.current is None else needed(deploy)
    there = [path for path in wanted if path not in mine.directories and os.path.lexists(_on(store, path))]
    return [path for path in there if not _has_only_secrets(_on(store, path), store.name)]


def _has_only_secrets(directory: Path, name: str) -> bool:
    """Whether they were put there before the first installation, as they are to be those of another host."""
    if directory.name != name or directory.is_symlink() or not directory.is_dir():
        return False
    names = {entry.name for entry in directory.iterdir()}
    return bool(names) and names <= {_PASSWORD, _KEYS}


def remove(store: Store, mine: Belongings, owners: Iterable[str], purge: bool) -> None:
    """Remove what the service and the installer made in directories of theirs, and those that are empty then.

    `owners` are the users whose files in the service's own directories are the service's.
    """
    name = store.name
    uids = {account.uid for owner in owners if (account := account_of(owner)) is not None} - {0}
    engines = {account.uid for user in ("valkey", "redis") if (account := account_of(user)) is not None}
    transient: dict[str, Callable[[Path], None]] = {
        f"/run/{name}": lambda path: _remove_owned(path, uids),
        f"/var/lib/{name}-acme": lambda path: shutil.rmtree(path / _CHALLENGES, ignore_errors=True),
    }
    kept: dict[str, Callable[[Path], None]] = {
        f"/etc/{name}": _remove_keys,
        f"/var/lib/{name}-engine": lambda path: _remove_owned(path, engines),
        f"/var/lib/{name}": lambda path: _remove_owned(path, uids),
        f"/var/log/{name}": lambda path: _remove_named(path, f"{name}.log"),
    }
    if purge and mine:
        _remove_logs_of_nginx(_on(store, "/var/log/nginx"), name)
    for path, clear in (transient | kept if purge else transient).items():
        directory = _on(store, path)
        if path in mine.directories and directory.is_dir():
            clear(directory)
            for emptied in (directory / _CHALLENGES).parent, directory:
                with suppress(OSError):  # others have files in it
                    emptied.rmdir()


def remove_users(store: Store, mine: Belongings, report: Report) -> list[str]:
    """Remove the users that were made for a deployment; one as whom another one runs is that one's from now on.

    What failed.
    """
    failures = []
    for user in mine.users:
        others = _others_of(store, user)
        if others:
            heir = Store(others[0], store.root)
            theirs = recorded(heir, user)
            record(heir, Belongings(theirs.directories, tuple(dict.fromkeys((*theirs.users, user)))))
            report.line(f"The user {user} stays: {', '.join(others)} runs as it.")
            continue
        # The group goes with the user where login.defs(5) says USERGROUPS_ENAB.
        for is_there, command in ((account_of, "userdel"), (facts.group_of, "groupdel")):
            if is_there(user) is not None and not (removed := run(command, user)).succeeded:
                failures.append(f"{command} {user} failed; do it by hand: {removed.output}")
    return failures


def leftovers(store: Store, directories: Iterable[str]) -> list[str]:
    """What others have put into directories of a deployment, in words."""
    said = []
    for path in directories:
        directory = _on(store, path)
        if directory.is_dir():
            names = ", ".join(sorted(entry.name for entry in directory.iterdir()))
            said.append(f"{path} stays: {names or 'it'} is not ours.")
    return said


def _always(name: str) -> tuple[str, ...]:
    return f"/opt/{name}", f"/etc/{name}", f"/var/lib/{name}", f"/run/{name}"


def _needed(name: str, manager: str, tls: str, serves_an_engine: bool) -> tuple[str, ...]:
    log = (f"/var/log/{name}",) if manager == "supervisor" else ()
    challenges = (f"/var/lib/{name}-acme",) if tls == "letsencrypt" else ()
    return (*_always(name), *log, *challenges, *((f"/var/lib/{name}-engine",) if serves_an_engine else ()))


def _record(store: Store) -> Path:
    return store.root / _RECORDS / f"{store.name}.json"


def _on(store: Store, path: str) -> Path:
    return store.root / path.lstrip("/")


def _derived(store: Store, user: str, account: Callable[[str], Account | None]) -> Belongings:
    """What a release that kept no record has made: by its generations, or by the user that it left."""
    name = store.name
    generations = [store.generation(number) for number in store.numbers() if store.is_whole(number)]
    users = {user, *(store.user(generation.number) for generation in generations)}
    made = tuple(
        sorted(user for user in users if (there := account(user)) is not None and there.comment == made_by(name))
    )
    directories = {path for each in generations for path in _needed(name, each.manager, each.tls, bool(each.engine))}
    if store.is_ours:
        directories.add(f"/opt/{name}")
    if made:
        uids = {there.uid for user in made if (there := account(user)) is not None}
        directories |= {path for path in directories_of(name) if _looks_ours(store, path, uids)}
    return Belongings(tuple(path for path in directories_of(name) if path in directories), made)


def _looks_ours(store: Store, path: str, uids: Collection[int]) -> bool:
    """Whether an uninstallation has left a directory, with nobody else's files in it."""
    name, directory = store.name, _on(store, path)
    if directory.is_symlink() or not directory.is_dir():
        return False
    if path == f"/var/lib/{name}":
        return directory.stat().st_uid in uids
    names = {entry.name for entry in directory.iterdir()}
    if path == f"/etc/{name}":
        return all(each in (_KEYS, _PASSWORD) or each.startswith(_NEW_KEYS) for each in names)
    return path == f"/var/log/{name}" and all(each.startswith(f"{name}.log") for each in names)


def _others_of(store: Store, user: str) -> list[str]:
    others = [Store(name, store.root) for name in store.others()]
    return [other.name for other in others if (number := other.current) is not None and other.user(number) == user]


def _remove_owned(directory: Path, uids: Collection[int]) -> None:
    """What the service has made in a directory that is its own."""
    for folder, folders, files in os.walk(directory, topdown=False):
        for path in (Path(folder, name) for name in (*files, *folders)):
            status = path.lstat()
            if status.st_uid not in uids:
                continue
            if stat.S_ISDIR(status.st_mode):
                with suppress(OSError):  # others have files in it
                    path.rmdir()
            else:
                path.unlink()


def _remove_named(directory: Path, start: str) -> None:
    for path in directory.glob(f"{start}*"):
        if not path.is_dir():
            path.unlink()


def _remove_logs_of_nginx(directory: Path, name: str) -> None:
    """Those of our site, and what logrotate has made of them."""
    for path in directory.glob(f"{name}_*"):
        if re.fullmatch(rf"{re.escape(name)}_(access|error)\.log(\.\d+(\.gz)?)?", path.name) and path.is_file():
            path.unlink()


def _remove_keys(directory: Path) -> None:
    (directory / _PASSWORD).unlink(missing_ok=True)
    (directory / _KEYS).unlink(missing_ok=True)
    _remove_named(directory, _NEW_KEYS)
