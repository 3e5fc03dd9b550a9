"""The browser client as a classic script, derived from its module.

    python -m tools.classic_script

writes clients/js/client.js; `make docs` does so as well.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent / "clients/js"
MODULE, SCRIPT = HERE / "index.js", HERE / "client.js"

_HEAD = """\
// Derived from index.js by `make docs`, for pages without modules:
//
//     <script src="client.js"></script>
//     <script>const client = new NotificationClient("wss://ws.example.com/", {uuid: "alice"});</script>
"use strict";

{
"""
_TAIL = """
Object.assign(globalThis, {NotificationClient});
}
"""


def classic(module: str) -> str:
    """The same with one global name, `NotificationClient`, in place of the exports."""
    _, _, code = module.partition("\n\n")  # less the words on how it is imported
    return _HEAD + re.sub("^export ", "", code, flags=re.MULTILINE) + _TAIL


if __name__ == "__main__":
    SCRIPT.write_text(classic(MODULE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {SCRIPT.relative_to(Path.cwd())}\n")
