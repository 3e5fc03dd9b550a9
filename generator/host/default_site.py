"""Debian's own default site of nginx: it makes way for a default server of ours, and comes back after it.

It is a link, so moving it away loses nothing: what it says is kept in /opt/<name> until it stands again.
"""

import os
from pathlib import Path

from generator.host.facts import is_as_packaged
from generator.host.store import Store, sync
from generator.readers.nginx import DEFAULT_SITE
from generator.rendering.write import put_link

_DEBIANS = Path("/etc/nginx/sites-available/default")  # Source: nginx-common.postinst
_PACKAGE = "nginx-common"


def stands(root: Path) -> bool:
    """Whether there is a default site, whosever it is."""
    return os.path.lexists(root / DEFAULT_SITE)


def is_debians(root: Path) -> bool:
    """Whether it is the one that the package has brought, and nobody has made it his own."""
    link = root / DEFAULT_SITE
    return link.is_symlink() and link.readlink() == _DEBIANS and is_as_packaged(_DEBIANS, _PACKAGE)


def take_away(store: Store) -> None:
    """Let Debian's default site stand no more; another's stays, and nginx says what it thinks of it."""
    if is_debians(store.root):
        put_link(store.default_site, str(_DEBIANS))  # first, so that nothing is lost whenever we are killed
        sync(store.home)
        (store.root / DEFAULT_SITE).unlink()
        sync((store.root / DEFAULT_SITE).parent)


def bring_back(store: Store) -> None:
    """Let what was taken away stand as before, unless the operator has put something else there meanwhile."""
    if not stands(store.root):
        put_link(store.root / DEFAULT_SITE, str(store.default_site.readlink()))
        sync((store.root / DEFAULT_SITE).parent)
    store.default_site.unlink()
