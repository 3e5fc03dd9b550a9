"""The service of an earlier release, out of the history of the repository."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from service.engine.envelope import VERSIONS
from tests.service.shells import ROOT

_WIRE = "service/engine/envelope.py"


def release_before(directory: Path) -> str:
    """The last one whose wire between hosts was another. The test is skipped where the whole history is not here."""
    last = _git("log", "-1", "--format=%H^", "-G^VERSIONS = ", "--", _WIRE).decode().strip()
    if not last or subprocess.run(["git", "cat-file", "-e", last], cwd=ROOT, capture_output=True).returncode != 0:
        pytest.skip("the history that has the release before is not here")
    directory.mkdir()
    with tarfile.open(fileobj=io.BytesIO(_git("archive", last, "service"))) as archive:
        archive.extractall(directory, filter="data")
    assert f"VERSIONS = {VERSIONS}" not in (directory / _WIRE).read_text()
    return str(directory)


def _git(*words: str) -> bytes:
    try:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
