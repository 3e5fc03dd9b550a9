"""The fast shell: WebSockets under uvicorn and gunicorn, without a task or a queue for each."""

import sys
from types import ModuleType


def _without(name: str) -> None:
    """Let a module be imported without what it brings along. All that others take from it is None."""
    module = ModuleType(name)
    module.__dict__["__getattr__"] = lambda attribute: None
    sys.modules.setdefault(name, module)


# Of picows the frames are needed, and not its own client and server, nor the other library that these have. Of uvicorn
# the server, and not its command line. Together they would be an eighth of the time in which we start, and 3 MB.
_without("picows.api")
_without("uvicorn.main")
sys.modules.setdefault("aiofastnet", None)  # type: ignore[arg-type]
