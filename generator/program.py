"""This program itself: where its files are, how it is called, and how it runs a module of its own in another process.

The standard library only, and no pathlib: a fault in deploy.yaml need not wait for it, and the wheel is built with it.
"""

import os
import sys
from collections.abc import Iterator

# The checkout, an unpacked archive, or `wsbundle/tree` of an installed wheel.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCKS = ("requirements/generator.txt", "requirements/service.txt")
UV_LOCK = "requirements/uv.txt"  # for archives that take it along
# How messages name the command, so that it can be copied. An installed wheel starts it by its package `wsbundle`.
COMMAND = "wsbundle" if "wsbundle" in sys.modules else ".venv/bin/wsbundle"


def _as_root() -> str:
    """sudo looks for commands in these places alone, whatever the caller's PATH. Source: sudoers(5), secure_path."""
    directory, name = os.path.split(os.path.abspath(sys.argv[0]))
    if COMMAND != "wsbundle" or directory in ("/usr/local/sbin", "/usr/local/bin", "/usr/bin"):
        return f"sudo {COMMAND}"
    return f"sudo {directory}/{name}" if name == "wsbundle" else f"sudo {sys.executable} -m wsbundle"


# The same for root. Where pipx has put it into somebody's home, only the whole path will do.
AS_ROOT = _as_root()

_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_SINGLE = ("pyproject.toml", "LICENSE", *_PAGES, *LOCKS, UV_LOCK)
_CLIENTS = ("clients/python/wsbundle_client", "clients/js", "clients/page")
_DIRECTORIES = ("docs", "findings", "service", "generator", "templates", *_CLIENTS)
_SUFFIXES = (".md", ".png", ".py", ".typed", ".sh", ".html", ".css", ".js", ".yaml", ".svg")
# -I ignores the current directory, the variables of Python and the user's own packages: it is often root who asks. It
# also ignores ROOT where that is not in the environment's own path, as in the environment of a wheel. Ctrl-C ends what
# has not begun without a traceback; where `nohup` or `&` has it ignored, it stays so.
_START = """import runpy, signal, sys
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
module = sys.argv[2]
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def sources(root: str) -> Iterator[str]:
    """The files that `install` works with, relative to `root`: what an archive carries, and the wheel."""
    yield from _SINGLE
    for top in _DIRECTORIES:
        for directory, _, names in os.walk(os.path.join(root, top)):
            if os.path.basename(directory) != "__pycache__":
                for name in names:
                    if top == "templates" or name.endswith(_SUFFIXES):
                        yield os.path.relpath(os.path.join(directory, name), root)


def starting(module: str, *arguments: str) -> list[str]:
    """The words that run a module of this program in another process."""
    return [sys.executable, "-I", "-c", _START, ROOT, module, *arguments]
