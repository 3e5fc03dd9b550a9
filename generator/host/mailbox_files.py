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
        keeps = re.search(r"(?m)^WEBSOCKET_MAILBOX_KEEP='disk'$", store.pristine(number, paths.env).read_text())
        uid = pwd.getpwnam(store.user(number)).pw_uid
        directory = store.root / paths.mailbox
        there = [directory, *(directory / name for name in _OPENED)] if keeps else []
        return [path for path in there if os.path.lexists(path) and path.lstat().st_uid != uid]
    except (OSError, KeyError):  # only root may look; or there is no such user, which is told elsewhere
        return []


def hand_over(store: Store, number: int) -> None:
    """Let the service of a generation own them."""
    for path in strange(store, number):
        status = path.lstat()
        # Another name of a file may be anywhere, and its owner puts what it likes here.
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            user = pwd.getpwnam(store.user(number))
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
