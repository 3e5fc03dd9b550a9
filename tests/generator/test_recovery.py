"""The unit that stands by while generations are switched; what it does after a power cut is tried on hosts."""

import shutil
import subprocess
from pathlib import Path

import pytest

from generator.host import recovery
from tests.programs import missing

NAME = "queue-websocket"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip(missing("systemd-analyze"))
    _, unit, _ = recovery.put(NAME, tmp_path)
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, unit.name in done.stderr) == (0, False), done.stderr


def test_sh_takes_the_script(tmp_path: Path) -> None:
    script, *_ = recovery.put(NAME, tmp_path)
    assert subprocess.run(["/bin/sh", "-n", script], check=False).returncode == 0


def test_it_goes_without_a_trace(tmp_path: Path) -> None:
    recovery.put(NAME, tmp_path)
    recovery.remove(NAME, tmp_path)
    recovery.remove(NAME, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
