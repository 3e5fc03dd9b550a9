"""What this host is called among all hosts, and which start of it this is."""

import hashlib
import os
from pathlib import Path
from uuid import UUID

from service.settings import Engine

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def name_of_this_host(settings: Engine) -> str:
    """`engine.host`, or drawn from the machine id, which is not for others to see; nothing where there is neither.

    Source: machine-id(5).
    """
    if settings.host:
        return settings.host
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"wsbundle {machine}".encode()).hexdigest()[:12] if machine else ""


def boot_id() -> str:
    """Which start of the host this is. The rendered unit says it, as it hides the file.

    Raises:
        OSError: nothing says it.

    Source: random(4), and `%b` in systemd.unit(5).
    """
    told = os.environ.get("WEBSOCKET_BOOT_ID")
    return str(UUID(told)) if told else _BOOT.read_text().strip()
