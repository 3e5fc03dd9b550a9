"""What holds for all tests: how many run side by side, and which signals their processes heed."""

import os
import signal


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: most tests wait for processes of theirs, so three for each core keep it busy."""
    return 3 * len(os.sched_getaffinity(0))


def _heed_signals_below() -> None:
    """Let the programs that tests start heed SIGINT and SIGHUP also where `nohup` or `&` has us ignore them.

    A signal that is ignored stays so in every child; one that is handled, by whatever function, is not.

    Source: execve(2); POSIX.1-2024, XCU 2.12, "Signals and Error Handling".
    """
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, lambda number, frame: None)


_heed_signals_below()
