"""What the file was like when one of us last wrote to it: so it is noticed when another program puts a copy there."""

import os
import struct
from pathlib import Path

_FORMAT = struct.Struct("=QQQ")
_UNDER_WAY = bytes(_FORMAT.size)


class Mark:
    """Inode, size and time of change of a file, in another file beside it. Whoever uses it has the lock.

    While one of us writes nothing is noted: after a process was killed meanwhile, whatever is there is taken for ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path.with_name("mark"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def is_blank(self) -> bool:
        """Whether none of us has ever written to the file."""
        return os.fstat(self._fd).st_size == 0

    def fits(self) -> bool:
        """Whether only we have written to the file."""
        noted = os.pread(self._fd, _FORMAT.size, 0)
        return noted in (b"", _UNDER_WAY) or noted == self._now()

    def begin(self) -> None:
        """The file is written to from now on, by us."""
        os.pwrite(self._fd, _UNDER_WAY, 0)

    def note(self) -> None:
        """It is as it should be."""
        os.pwrite(self._fd, self._now(), 0)

    def _now(self) -> bytes:
        try:
            state = os.stat(self._path)
        except FileNotFoundError:
            return b"gone"
        return _FORMAT.pack(state.st_ino, state.st_size, state.st_mtime_ns)

    def close(self) -> None:
        os.close(self._fd)
