"""What this host is called among all hosts."""

import hashlib
from pathlib import Path

from service.settings import Engine


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
