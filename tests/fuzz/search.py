"""One target under atheris, which never returns: `python -m tests.fuzz.search TARGET [CORPUS ...] [-OPTION ...]`."""

import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")  # not where linters run

with atheris.instrument_imports(include=["service"]):
    from tests.fuzz.fuzz_targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
