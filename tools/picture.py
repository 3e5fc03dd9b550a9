"""Draw the pictures of the docs: `make picture`.

docs/terminal.svg is what `wsbundle` prints on a terminal, docs/top.svg what `wsbundle top` shows of a made-up service.
`tools.screenshots` adds those of the pages.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from generator.host.rates import rates
from generator.host.screen import keys, screen
from tools.sample_stats import answers

DOCS = Path(__file__).parent.parent / "docs"
PICTURE = DOCS / "terminal.svg"
TOP = DOCS / "top.svg"
SESSION = (
    "wsbundle init ws.mycompany.org",
    "wsbundle render",
    "wsbundle check --set port=87650 --set workers=100",
)
_WIDTH = 104
# As the command of an installed wheel, which messages call `wsbundle`.
_START = """import sys, wsbundle
sys.argv[0] = "/usr/local/bin/wsbundle"
from generator.__main__ import run
run()"""
# Without the fonts that rich takes from another site: a picture of the docs asks nobody for anything.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def session() -> list[tuple[str, str]]:
    """Each command, and what a terminal shows of it, with its colours."""
    with tempfile.TemporaryDirectory() as directory:
        return [(command, _shown(command.split()[1:], directory)) for command in SESSION]


def _shown(arguments: list[str], directory: str) -> str:
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _WIDTH, 0, 0))
    variables = {name: text for name, text in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    command = [sys.executable, "-c", _START, *arguments]
    shown = b""
    with subprocess.Popen(command, cwd=directory, stdout=end, stderr=end, env=variables):
        os.close(end)
        while part := _read(terminal):
            shown += part
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last process that had it open is gone
        return b""


def drawn(shown: list[tuple[str, str]]) -> str:
    """A session as a picture."""
    console = Console(width=_WIDTH, record=True, file=StringIO(), force_terminal=True)
    for command, text in shown:
        console.print(Text(f"$ {command}", style="bold"))
        console.print(Text.from_ansi(text))
    return console.export_svg(title="wsbundle", code_format=_FORMAT, unique_id="terminal")


def top() -> str:
    """`wsbundle top` in the middle of a rough minute."""
    told = answers()
    now, before = told[345], told[340]
    console = Console(width=108, record=True, file=StringIO(), force_terminal=True, highlight=False)
    console.print(screen("ws.example.com", now, rates(now, before), "connections"))
    console.print()
    console.print(keys("connections"))
    return console.export_svg(title="wsbundle top", code_format=_FORMAT, unique_id="top")


if __name__ == "__main__":
    PICTURE.write_text(drawn(session()), encoding="utf-8")
    TOP.write_text(top(), encoding="utf-8")
