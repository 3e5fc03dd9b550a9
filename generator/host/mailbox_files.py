"""The files of the mailboxes of one host, which the service's user must own: root may have put a backup there."""

import os
import pwd
import re
import stat
from pathlib import Path

from generator.host.store import Store
from generator.paths import Paths
from service.mailbox.database import BESIDE, FILE

_OPENED = ("lock", "mark", "users", FILE, *(f"{FILE}{part}" for part in BESIDE))


def strange(store: Store, number: int) -> list[Path]:
    """Those that the service of a generation does not own, and does not start with. Only root can tell."""
    paths = Paths(store.name)
    try:
        text = store.pristine(number, paths.env).read_text(encoding="utf-8")
        uid = pwd.getpwnam(store.user(number)).pw_uid
    except (OSError, KeyError):  # only root may look; or there is no such user, which is told elsewhere
        return []
    if not re.search(r"(?m)^WEBSOCKET_MAILBOX_KEEP='disk'$", text):
        return []
    named = re.search(r"(?m)^WEBSOCKET_MAILBOX_DIRECTORY='(.+)'$", text)
    directory = store.root / (named[1].lstrip("/") if named else paths.mailbox)
    there = [directory, *(directory / name for name in _OPENED)]
    return [path for path in there if os.path.lexists(path) and _owner(path) != uid]


def _owner(path: Path) -> int:
    return (path.stat() if path.exists() else path.lstat()).st_uid


def is_linked(path: Path) -> bool:
    """Whether it has another name, which may be anywhere: its owner puts what it likes here.

    A directory of root's may be behind a link, as on another disk; the service's user could link to one of others.
    """
    status = path.lstat()
    is_behind_one = any(each.is_symlink() and each.lstat().st_uid != 0 for each in path.parents)
    return is_behind_one or stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1)


def hand_over(store: Store, number: int) -> None:
    """Let the service of a generation own them, but for those that are linked."""
    user = pwd.getpwnam(store.user(number))
    for path in strange(store, number):
        if not is_linked(path):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
