"""Owner, group and mode of what is installed, beside what the manifest says of them."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def differences(path: Path, entry: Mapping[str, Any]) -> list[str]:
    """What of a file is not as its entry in the manifest says, in words, such as `has mode 0600 instead of 0644`.

    Nothing for a file that is missing, or that only root may look at.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    mode = stat.S_IMODE(status.st_mode)
    is_as_said = {
        "owner": _is(status.st_uid, entry["owner"], lambda name: pwd.getpwnam(name).pw_uid),
        "group": _is(status.st_gid, entry["group"], lambda name: grp.getgrnam(name).gr_gid),
        "mode": mode == int(entry["mode"], 8),
    }
    found = {"owner": _user(status.st_uid), "group": _group(status.st_gid), "mode": f"{mode:04o}"}
    return [f"has {what} {found[what]} instead of {entry[what]}" for what, same in is_as_said.items() if not same]


def is_open(path: Path, owner: int) -> bool:
    """Whether a directory or file is its owner's alone to write, and everybody's to read; so is one that is a link.

    So is one that is gone, or that only root may look at.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    read = _reading(status.st_mode)
    is_as_said = status.st_uid == owner and status.st_mode & read == read and not status.st_mode & stat.S_IWOTH
    return stat.S_ISLNK(status.st_mode) or is_as_said


def open_up(path: Path, owner: int, group: int) -> None:
    """Make it so."""
    mode = path.lstat().st_mode
    os.chown(path, owner, group)
    path.chmod(stat.S_IMODE(mode | _reading(mode)) & ~stat.S_IWOTH)


def _reading(mode: int) -> int:
    return 0o555 if stat.S_ISDIR(mode) else 0o444


def _is(number: int, name: str, number_of: Callable[[str], int]) -> bool:
    """Whether a name is that of a number. By number, because two names may share one.

    A name that is gone from the host is no difference of the file, and nobody could give the file to it.
    """
    try:
        return number_of(name) == number
    except KeyError:
        return True


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
