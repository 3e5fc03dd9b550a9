"""What on the host is not as it was installed: edited, replaced or removed by hand."""

import difflib
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec

from generator.host import default_site
from generator.host.apply import SHARED
from generator.host.store import Store
from generator.readers.nginx import DEFAULT_SITE
from generator.write import temporary_of


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
    found = []
    for path, link in store.links(number).items():
        target = store.root / path
        if not target.is_symlink():
            what = "is missing" if not target.exists() else "was replaced by a file"
            found.append(Drift(path, what, _diff(store, path, target)))
        elif str(target.readlink()) != link and path != SHARED:
            found.append(Drift(path, f"leads to {target.readlink()} instead of {link}"))
    if store.generation(number).default_server and default_site.stands(store.root):
        found.append(Drift(DEFAULT_SITE, "is there again; nginx takes no other default site beside ours"))
    directory = store.directory(number)
    for path, entry in store.manifest(number).items():
        if "sha256" in entry and _hash(directory / path) != entry["sha256"]:
            found.append(Drift(path, "was edited", _diff(store, path, directory / path)))
    return found


def copies(store: Store, number: int | None) -> Path:
    """Where the edits of a generation are kept."""
    return store.home / "edited" / str(number)


def keep_copy(drift: Drift, store: Store, directory: Path) -> None:
    """Keep what is about to be overwritten or removed; for root only, since .env may be among it."""
    source = store.root / drift.path
    if source.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        copy = directory / drift.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)


def put_back(store: Store, number: int) -> None:
    """Let files that had replaced our links stand there again; what was edited through a link never left."""
    directory = copies(store, number)
    for path in store.links(number):
        copy, target = directory / path, store.root / path
        if target.is_symlink() and copy.is_file() and copy.read_bytes() != target.read_bytes():
            shutil.copy2(copy, temporary_of(target))
            temporary_of(target).replace(target)


def _hash(path: Path) -> str | None:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _diff(store: Store, path: str, target: Path) -> str:
    """Nothing for .env: what it holds is nobody else's business, and a diff ends up in a terminal's scrollback."""
    number = store.current
    if number is None or not target.is_file() or path.endswith("/.env"):
        return ""
    installed = store.pristine(number, path).read_text(errors="replace").splitlines()
    edited = target.read_text(errors="replace").splitlines()
    return "\n".join(difflib.unified_diff(installed, edited, f"installed/{path}", f"/{path}", lineterm=""))
