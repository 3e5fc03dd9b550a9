"""Programs of the project, run in the process of the tests: starting one costs more than all that most of them do."""

import io
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping

import pytest


def program(module: str, *arguments: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """What `python -m module` says, with this environment, and how it ends. Whatever it sets up for itself, stays.

    Only signals that it holds back do not: they would never reach a program that a later test starts.
    """
    output, told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    code: object = 0
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.MonkeyPatch.context() as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", f".*{module}.* found in sys.modules", RuntimeWarning)
        here.setattr(sys, "argv", [module, *arguments])
        here.setattr(sys, "path", [*sys.path])
        here.setattr(sys, "stdout", output)
        here.setattr(sys, "stderr", told)
        here.setattr(os, "environ", dict(environ))
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if isinstance(code, str):  # Source: sys.exit, in the Python Library Reference
        told.write(f"{code}\n")
    output.seek(0)
    return subprocess.CompletedProcess(
        arguments, code if isinstance(code, int) else int(code is not None), output.read(), told.getvalue()
    )
