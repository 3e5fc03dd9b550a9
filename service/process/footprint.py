"""What this process takes of the host."""

import os
import socket
import time
from pathlib import Path

from service.core.standing import Footprint

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def footprint() -> Footprint:
    """Source: proc_pid_statm(5), whose second field is the resident memory in pages."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Footprint(socket.gethostname(), os.getpid(), pages * _PAGE_BYTES, time.process_time())
