"""Writing a bundle: each file whole or not at all, and only what has changed.

The manifest is written before the files: a run that is killed leaves a directory that the next run knows as its own
and completes, since it compares the files themselves.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from generator.rendering.bundle import MANIFEST, Bundle, File


class NotABundleError(Exception):
    """The directory holds something else, which writing could destroy."""

    def __init__(self, directory: Path, what: str = f"has files but no {MANIFEST} of ours") -> None:
        self.directory = directory
        super().__init__(f"{directory} {what}; name an empty directory with -o")


class Written(msgspec.Struct, frozen=True):
    """The changes, by path: `written` new or different files, `removed` ones that the bundle no longer has."""

    written: list[str]
    removed: list[str]
    unchanged: int


def write(bundle: Bundle, directory: Path, owners: bool = False) -> Written:
    """Make `directory` hold exactly the bundle; with `owners` (only root can) also who owns each file.

    Raises:
        NotABundleError: it holds files and no manifest.
        OSError: it cannot be written.
    """
    make_directory(directory)
    with _locked(directory):
        known = _listed(directory)
        present = {file.path for file in bundle.files}
        for path in (MANIFEST, *known, *present):
            discard(temporary_of(directory / path))
        removed = [path for path in known if path not in present and _remove(directory, path)]
        manifest = File(path=MANIFEST, text=bundle.manifest())
        changed = [file for file in (manifest, *bundle.files) if not _stands(file, directory)]
        for file in changed:
            _put(file, directory, owners)
    return Written([file.path for file in changed], removed, len(bundle.files) + 1 - len(changed))


def stands(manifest: str, directory: Path) -> bool:
    """Whether a directory holds exactly what this manifest lists, and nothing of a run that was killed."""
    entries = json.loads(manifest)["files"]
    paths = (MANIFEST, *(entry["path"] for entry in entries))
    return (
        not any(os.path.lexists(temporary_of(directory / path)) for path in paths)
        and _stands(File(path=MANIFEST, text=manifest), directory)
        and all(_is_as_listed(entry, directory / entry["path"]) for entry in entries)
    )


def _is_as_listed(entry: Mapping[str, Any], target: Path) -> bool:
    try:
        status = target.lstat()
        if "link" in entry:
            return stat.S_ISLNK(status.st_mode) and str(target.readlink()) == entry["link"]
        return (
            stat.S_ISREG(status.st_mode)
            and f"{stat.S_IMODE(status.st_mode):04o}" == entry["mode"]
            and sha256(target.read_bytes()).hexdigest() == entry["sha256"]
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two runs at once take turns."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _listed(directory: Path) -> list[str]:
    """The paths in the manifest that is there; none for an empty directory."""
    try:
        if not stat.S_ISREG((directory / MANIFEST).lstat().st_mode):
            raise NotABundleError(directory)
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return [path for entry in manifest["files"] if _is_inside(path := str(entry["path"]))]
    except FileNotFoundError:
        if any(file != temporary_of(directory / MANIFEST) for file in directory.iterdir()):
            raise NotABundleError(directory) from None
        return []
    except (ValueError, KeyError, TypeError):
        raise NotABundleError(directory) from None


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _stands(file: File, directory: Path) -> bool:
    target = directory / file.path
    try:
        status = target.lstat()
        if file.link is not None:
            return stat.S_ISLNK(status.st_mode) and str(target.readlink()) == file.link
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == file.mode
            and target.read_bytes() == file.text.encode()
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _put(file: File, directory: Path, owners: bool) -> None:
    target = directory / file.path
    make_directory(target.parent)
    if not target.parent.resolve().is_relative_to(directory.resolve()):
        raise NotABundleError(target.parent, "is a link that leads out of the bundle")
    if file.link is not None:
        put_link(target, file.link)
    else:
        put_text(target, file.text, file.mode, (file.owner, file.group) if owners else None)


def make_directory(directory: Path) -> None:
    """Make a directory if it does not exist, and its parents."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        hand_over(path)


def hand_over(path: Path) -> None:
    """Files that root makes in a user's directory, such as a checkout after `sudo make`, belong to that user."""
    if os.geteuid() == 0 and (there := path.parent.stat()).st_uid != 0:
        os.chown(path, there.st_uid, there.st_gid, follow_symlinks=False)


def put_text(target: Path, text: str, mode: int = 0o644, owner: tuple[str, str] | None = None) -> None:
    """Make a file hold this text, whole or not at all, also across a power cut."""
    put_bytes(target, text.encode(), mode, owner)


def put_bytes(target: Path, content: bytes, mode: int = 0o644, owner: tuple[str, str] | None = None) -> None:
    """The same for bytes."""
    with _replacing(target) as temporary, _for_us_alone(temporary) as stream:
        stream.write(content)
        stream.flush()
        if owner is not None:
            shutil.chown(stream.fileno(), *owner)
        else:
            hand_over(temporary)
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def _for_us_alone(path: Path) -> BinaryIO:
    """A new file, never readable by others before it has its mode: .env may hold secrets."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def put_new_text(target: Path, text: str, mode: int = 0o666) -> None:
    """Make a file that is not there yet hold this text, whole or not at all; the umask takes its part of the mode.

    Raises:
        FileExistsError: there is one, and it stays as it is.
        OSError: it cannot be written.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))  # the name is ours from here on
    try:
        put_text(target, text, stat.S_IMODE(target.stat().st_mode))
    except BaseException:
        target.unlink()
        raise


def put_copy(source: Path, target: Path, keeps_owner: bool = False) -> None:
    """Make a file hold what another one holds, with its mode and times, and its owner or ours; such a copy stays."""
    status = source.stat()
    owner = (status.st_uid, status.st_gid) if keeps_owner else (os.geteuid(), os.getegid())
    if _is_copy(source, target, owner):
        return
    with _replacing(target) as temporary, _for_us_alone(temporary) as stream:
        stream.write(source.read_bytes())
        stream.flush()
        os.fchown(stream.fileno(), *owner)  # the group may be that of the directory
        shutil.copystat(source, temporary)
        os.fsync(stream.fileno())


def _is_copy(source: Path, target: Path, owner: tuple[int, int]) -> bool:
    try:
        status = target.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == stat.S_IMODE(source.stat().st_mode)
        and (status.st_uid, status.st_gid) == owner
        and target.read_bytes() == source.read_bytes()
    )


def put_link(target: Path, link: str) -> None:
    """Make a symbolic link say `link`, in one step."""
    with _replacing(target) as temporary:
        temporary.symlink_to(link)
        hand_over(temporary)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside the target, which takes the target's place at the end.

    Raises:
        OSError: among others, a device is there, such as /dev/null, which all programs of the host need.
    """
    if _is_device(target):
        raise OSError(errno.EINVAL, "Not a regular file", str(target))
    temporary = temporary_of(target)
    discard(temporary_of(target))
    try:
        yield temporary
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(target)  # a full disk names no file, other errors the temporary one
        raise


def _is_device(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def temporary_of(target: Path) -> Path:
    """The temporary path of a file, or a link, until it is complete; a run that is killed leaves it there."""
    return target.with_name(f".{target.name}.new")


def discard(path: Path) -> None:
    """Remove it, if it is there. Looked for first: on a read-only file system even removing nothing is an error."""
    if os.path.lexists(path):
        path.unlink()


def _remove(directory: Path, path: str) -> bool:
    target = directory / path
    stands = os.path.lexists(target)
    target.unlink(missing_ok=True)
    for parent in target.relative_to(directory).parents[:-1]:
        with suppress(OSError):  # it is not empty, or a run that was killed has removed it
            (directory / parent).rmdir()
    return stands
