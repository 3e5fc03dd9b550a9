"""Directories of a host that are root's alone to change, whatever those above hand on to them."""

import os
from contextlib import suppress
from pathlib import Path

# Source: acl(5), "OBJECT CREATION AND DEFAULT ACLs"; where Linux keeps them, xattr(7).
_ACLS = ("system.posix_acl_default", "system.posix_acl_access")


def make_directory(directory: Path) -> None:
    """Make a directory if it is not there, and those above it: everybody may enter, and only root may write.

    A default ACL of a directory above, such as `setfacl -d -m g:staff:rwX /opt`, would open all that is made below,
    keys and code among it, whatever its modes say.
    """
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    for attribute in _ACLS:
        with suppress(OSError):  # there is none, or its file system knows none
            os.removexattr(directory, attribute)
    directory.chmod(0o755)
