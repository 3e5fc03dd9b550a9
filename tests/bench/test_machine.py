"""What else a machine does while something is measured."""

import subprocess
import sys
import time

from bench.machine import Clocks, clocks, others

_BURN = "import time\nwhile time.process_time() < {}: pass"


def test_the_share_of_others_is_without_ours() -> None:
    assert others(Clocks(100, 50, 10), Clocks(120, 60, 15)) == 0.25
    assert others(Clocks(100, 50, 10), Clocks(120, 54, 15)) == 0
    assert others(Clocks(100, 50, 10), Clocks(100, 50, 10)) == 0


def test_what_our_children_use_is_ours_when_they_have_ended() -> None:
    before = clocks()
    subprocess.run([sys.executable, "-c", _BURN.format(0.3)], check=True)
    after = clocks()
    assert after.ours - before.ours > 0.25
    assert after.used - before.used > 0.2
    assert after.there > before.there


def test_what_others_use_is_not_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", _BURN.format(60)]) as other:
        before = clocks()
        while (after := clocks()).used - before.used < 0.3:
            time.sleep(0.05)
        other.kill()
    assert after.ours - before.ours < 0.2
    assert others(before, after) > 0
