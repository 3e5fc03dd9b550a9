"""What can be seen of an installation from beside it."""

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path
from signal import SIGHUP, SIGTERM

import pytest

from generator.host.transaction import _take, is_under_way
from generator.report import Report
from tests.generator.front_door import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
ENDED = """
import os, signal, sys
from pathlib import Path
from generator.host import transaction
from generator.host.store import Store
from generator.report import Report

transaction._LOCK = 'lock'
with transaction.alone(Store('a', Path.cwd()), Report()):
    os.kill(os.getpid(), int(sys.argv[1]))
    print('goes on')
"""


def test_an_installation_is_under_way_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_under_way(str(lock))
    with lock.open("w") as held:
        assert not is_under_way(str(lock))
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_under_way(str(lock))
        # Looking takes nothing away from an installation that begins at that moment.
        with lock.open() as other:
            assert not _can_take(other.fileno())
    with lock.open() as other:
        assert _can_take(other.fileno())
    assert not is_under_way(str(lock))


def _can_take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def test_a_lock_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full file system
    try:
        with pytest.raises(OSError, match=r"/run/wsbundle\.lock"):
            _take(lock, Report())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        os.close(lock)


def test_what_nohup_has_it_ignore_does_not_end_an_installation(tmp_path: Path) -> None:
    def ended_by(signal: int, *how: str) -> str:
        command = [*how, sys.executable, "-c", ENDED, str(signal)]
        return subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True).stdout

    assert ended_by(SIGHUP, "nohup") == "goes on\n"
    assert ended_by(SIGTERM, "nohup") == ""
    assert ended_by(SIGHUP) == ""


PENDING = """
from pathlib import Path
from generator.host.store import Pending, Store
from generator.host.transaction import finish_earlier
from generator.report import CommandError, Report

try:
    finish_earlier(Store("a", Path.cwd()), Report())
except CommandError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_cannot_be_undone_as_long_as_opt_is_read_only_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "opt/a/generations").mkdir(parents=True)
    (tmp_path / "opt/a/pending.json").write_text('{"before": null, "after": 2}')
    mount = 'mount --bind opt opt && mount -o remount,bind,ro opt && cd "$PWD" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", PENDING]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == (
        f"A switch to generation 2 was cut short, and cannot be undone: nothing can be written to {tmp_path}/opt/a; "
        f"`mount -o remount,rw /opt`, or see `lsattr -d {tmp_path}/opt/a`. Nothing was changed.\n"
    )
