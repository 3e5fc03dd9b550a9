"""Who may connect to a Unix socket of ours, and who has.

Source: unix(7), SO_PEERCRED; umask(2).
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

# To the service's own user alone.
OURS_ALONE = 0o177
# To the user and to the group, which is nginx's.
GROUP_AS_WELL = 0o117

_credentials = struct.Struct("3i")


class Peer(NamedTuple):
    """The process at the other end, as the kernel knows it from the moment in which it connected."""

    pid: int
    uid: int


@contextlib.contextmanager
def open_to(umask: int) -> Iterator[None]:
    """Give the sockets that are bound within the mode that a umask leaves."""
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def peer_of(connection: socket.socket) -> Peer:
    """Who has connected."""
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _credentials.size)
    pid, uid, _ = _credentials.unpack(said)
    return Peer(pid, uid)
