"""Whether workers of new code can take over from old ones, one after another, under a manager of the old code.

And whether a process of new code can go on with the clients that one of the old code has left.
"""

import hashlib
import re
from pathlib import Path

# What the process that watches the workers is made of: it starts new ones, and hears of them. And what workers say to
# each other, old ones to new ones as well. `tests/service/test_release.py` knows whether one is missing.
SHARED_MODULES = (
    "service/core/addresses.py",
    "service/core/bus.py",
    "service/core/bus_records.py",
    "service/core/hub.py",
    "service/core/moves.py",
    "service/core/peer.py",
    "service/core/standing.py",
    "service/core/status.py",
    "service/core/tally.py",
    "service/declaration.py",
    "service/explanations.py",
    "service/origins.py",
    "service/process/descriptor_store.py",
    "service/process/journal.py",
    "service/process/listen.py",
    "service/process/logs.py",
    "service/process/notify.py",
    "service/process/stops.py",
    "service/process/unix_sockets.py",
    "service/process/usage.py",
    "service/settings.py",
    "service/workers/manager.py",
    "service/workers/meeting.py",
    "service/workers/mesh.py",
    "service/workers/release.py",
    "service/workers/reload.py",
)


# The declaration of what a process leaves of each client.
_STATES = "service/core/handover.py"


def states(code: Path) -> str:
    """The version of the states in which a directory of code leaves clients; nothing if it leaves none."""
    path = code / _STATES
    found = re.search(r"^VERSION = (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    return found[1] if found else ""


def shared(code: Path) -> str:
    """Names what of a directory of code must be the same for a succession; code of an earlier version may lack some."""
    digest = hashlib.sha256()
    for module in SHARED_MODULES:
        path = code / module
        digest.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
    return digest.hexdigest()
