"""The fast shell: WebSockets under uvicorn and gunicorn, without a task or a queue for each."""

import sys
from types import ModuleType

# Of picows the frames are needed, and not its own client and server, which bring other libraries: an eighth of the time
# in which we start, and 2 MB.
_api = ModuleType("picows.api")
_api.__dict__.update(ws_connect=None, ws_create_server=None)
sys.modules.setdefault(_api.__name__, _api)
