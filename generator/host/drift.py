"""Files on the host that are not as they were installed: edited, replaced, removed or given away by hand."""

import difflib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from generator.host import default_site
from generator.host.permissions import differences
from generator.host.store import Store
from generator.paths import SHARED, Paths
from generator.readers.nginx import DEFAULT_SITE, HOST
from generator.readers.nginx_sites import own_main_context
from generator.rendering.write import put_copy, put_link


class Drift(msgspec.Struct, frozen=True):
    """One path that differs: `what` in words, `diff` as unified text where both sides are text."""

    path: str
    what: str
    diff: str = ""

    def __str__(self) -> str:
        return f"/{self.path}: {self.what}" + (f"\n{self.diff}" if self.diff else "")


def drifts(store: Store) -> list[Drift]:
    """Every difference between the current generation and the host."""
    number = store.current
    if number is None:
        return []
    found = [*_links(store, number), *_files(store, number), *_shut(store, number)]
    if store.generation(number).default_server and default_site.stands(store.root):
        found.append(Drift(DEFAULT_SITE, "is there again; nginx takes no other default site beside ours"))
    return found


def _links(store: Store, number: int) -> Iterator[Drift]:
    for path, link in store.links(number).items():
        target = store.root / path
        if path == SHARED and not os.path.lexists(target) and own_main_context(HOST / "nginx.conf"):
            continue
        if not target.is_symlink():
            what = _missing(store, path) if not target.exists() else "was replaced by a file"
            yield Drift(path, what, _diff(store, path, target))
        elif not _leads_to(store, target, link) and path != SHARED:
            yield Drift(path, f"leads to {target.readlink()} instead of {link}")


def _files(store: Store, number: int) -> Iterator[Drift]:
    """What differs in the generation itself, which links lead to, and in the files that are copies of its own.

    Only root can say of .env.
    """
    directory, on_the_host = store.directory(number), store.files(number)
    for path, entry in store.manifest(number).items():
        target = (store.root if path in on_the_host else directory) / path
        if path in on_the_host and target.is_symlink():
            yield Drift(path, _replaced_by(target), _diff(store, path, target))
        elif "sha256" in entry:
            found = differences(target, entry)
            if _differs(target, entry["sha256"]):
                found.insert(0, "is missing" if path in on_the_host and not target.exists() else "was edited")
            if found:
                yield Drift(path, ", ".join(found), _diff(store, path, target))


def _shut(store: Store, number: int) -> Iterator[Drift]:
    shut = store.shut(number)
    if shut:
        more = f" (and {len(shut) - 1} more)" if shut[1:] else ""
        what = f"is not root's alone to write and everybody's to read{more}; the service may not start again"
        yield Drift(str(shut[0].relative_to(store.root)), what)


def _replaced_by(link: Path) -> str:
    masked = link.readlink() == Path("/dev/null")
    return "is masked: systemd does not start it" if masked else f"was replaced by a link to {link.readlink()}"


def copies(store: Store, number: int | None) -> Path:
    """Where the edits of a generation are kept."""
    return store.home / "edited" / str(number)


def keep_copy(drift: Drift, store: Store, directory: Path) -> None:
    """Keep what is about to be lost, a link or a file with owner and mode; for root only, since .env may be one."""
    source, copy = store.root / drift.path, directory / drift.path
    is_foreign, number = _is_foreign_link(store, drift.path), store.current
    is_pristine = number is not None and _hash(source) == _hash(store.pristine(number, drift.path))
    # What our own link leads to stays where it is, its mode as well, and only an uninstallation removes it.
    if not is_foreign and (not source.is_file() or (source.is_symlink() and is_pristine)):
        return
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if is_foreign:
        put_link(copy, str(source.readlink()))
    else:
        put_copy(source, copy, keeps_owner=True)


def set_aside(store: Store, number: int | None) -> None:
    """The switch has succeeded, so that what it has overwritten is for the operator alone, under a name of its own.

    Of a file that had no more than another owner or mode nothing is kept: that is put right.
    """
    if number is None:
        return
    directory = copies(store, number)
    for copy in sorted(directory.rglob("*"), reverse=True):  # what is in a directory comes before it
        path = str(copy.relative_to(directory))
        if copy.is_dir() and not copy.is_symlink():
            with suppress(OSError):  # it is not empty
                copy.rmdir()
        elif not copy.is_symlink() and _hash(copy) == _hash(store.pristine(number, path)):
            copy.unlink()
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
    elif directory.is_dir():
        directory.rename(directory.with_name(f"{directory.name}-{time.time():.0f}"))


def put_back(store: Store, number: int) -> bool:
    """Restore what of the operator was moved away; files that were edited through a link never were.

    Returns: whether there was any.
    """
    directory, found = copies(store, number), False
    for path in (*store.links(number), *store.files(number)):
        copy, target = directory / path, store.root / path
        if copy.is_symlink():
            put_link(target, str(copy.readlink()))
        elif copy.is_file() and not (target.is_symlink() and _hash(target) == _hash(copy)):
            put_copy(copy, target, keeps_owner=True)
        else:
            continue
        found = True
    return found


def _is_foreign_link(store: Store, path: str) -> bool:
    """Whether a link stands there that no installation has put."""
    target, number = store.root / path, store.current
    ours = {} if number is None else store.links(number)
    return target.is_symlink() and not (path in ours and _leads_to(store, target, ours[path]))


def _missing(store: Store, path: str) -> str:
    if ".wants/" in path:
        return f"is missing: {Path(path).name} is disabled, and does not start at boot"
    return "is missing"


def _leads_to(store: Store, target: Path, link: str) -> bool:
    """Whether a link says what it should, in this or in its relative form."""
    said = str(target.readlink())
    relative = os.path.normpath(target.parent / said) == str(store.root / link.lstrip("/"))
    return said == link or relative


def _differs(path: Path, digest: str) -> bool:
    try:
        return _hash(path) != digest
    except PermissionError:  # only root can say
        return False


def _hash(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _diff(store: Store, path: str, target: Path) -> str:
    """Nothing for .env: its values are secret, and a diff ends up in a terminal's scrollback."""
    number = store.current
    if number is None or not target.is_file() or path == Paths(store.name).env:
        return ""
    try:
        installed = store.pristine(number, path).read_text(errors="replace").splitlines()
        edited = target.read_text(errors="replace").splitlines()
    except PermissionError:  # only root may see what was installed
        return ""
    return "\n".join(difflib.unified_diff(installed, edited, f"installed/{path}", f"/{path}", lineterm=""))
