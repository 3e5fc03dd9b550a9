"""What an installation makes is root's alone to change."""

import os
import stat
import struct
from pathlib import Path

from generator.host.directories import make_directory

_DEFAULT = "system.posix_acl_default"
# Source: linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry.
_OWNER, _USER, _GROUP, _MASK, _OTHERS, _NOBODY = 1, 2, 4, 16, 32, 0xFFFFFFFF
_SHARED = [(_OWNER, 7, _NOBODY), (_USER, 7, 1000), (_GROUP, 7, _NOBODY), (_MASK, 7, _NOBODY), (_OTHERS, 7, _NOBODY)]


def share(directory: Path) -> None:
    """As `setfacl -d -m u:1000:rwx,g::rwx,o::rwx` does."""
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _SHARED)
    os.setxattr(directory, _DEFAULT, acl)


def test_what_is_made_below_a_directory_with_a_default_acl_is_not_open_to_those_whom_it_names(tmp_path: Path) -> None:
    share(tmp_path)
    (tmp_path / "inherits").mkdir()
    assert _DEFAULT in os.listxattr(tmp_path / "inherits")
    made = tmp_path / "a" / "b"
    make_directory(made)
    (made / "file").write_text("")
    for path in (made.parent, made, made / "file"):
        assert not {name for name in os.listxattr(path) if "acl" in name}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (made.parent, made)} == {0o755}


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    share(tmp_path)
    tmp_path.chmod(0o700)
    make_directory(tmp_path)
    assert _DEFAULT in os.listxattr(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
