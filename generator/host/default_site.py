"""Debian's own default site of nginx: removed while we have a default server, and restored afterwards.

It is a link, so removing it loses nothing: its target is kept in /opt/<name> until it is restored.
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
    """Whether there is a default site, Debian's or another."""
    return os.path.lexists(root / DEFAULT_SITE)


def is_debians(root: Path) -> bool:
    """Whether it is the one of Debian's package, unmodified."""
    link = root / DEFAULT_SITE
    return link.is_symlink() and link.readlink() == _DEBIANS and is_as_packaged(_DEBIANS, _PACKAGE)


def returns(store: Store, default_server: bool) -> bool:
    """Whether a switch to a side with such a default server, or with none of ours, brings it back."""
    return not default_server and store.default_site.is_symlink() and not stands(store.root)


def take_away(store: Store) -> None:
    """Remove Debian's default site. Any other stays, and nginx reports a conflict with it."""
    if is_debians(store.root):
        put_link(store.default_site, str(_DEBIANS))  # first, so that nothing is lost whenever we are killed
        sync(store.home)
        (store.root / DEFAULT_SITE).unlink()
        sync((store.root / DEFAULT_SITE).parent)


def bring_back(store: Store) -> None:
    """Restore what was removed, unless the operator has put something else there meanwhile."""
    if not stands(store.root):
        put_link(store.root / DEFAULT_SITE, str(store.default_site.readlink()))
        sync((store.root / DEFAULT_SITE).parent)
    store.default_site.unlink()
