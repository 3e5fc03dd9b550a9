"""What can be seen of an installation from beside it."""

import fcntl
from pathlib import Path

from generator.host.transaction import is_under_way


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
