"""What holds for all tests: how many run side by side, and which signals their processes heed."""

import contextlib
import gc
import importlib
import os
import re
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.programs import wanted

TESTS = Path(__file__).parent


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: most tests wait for processes of theirs, so three for each core keep it busy."""
    return 3 * len(os.sched_getaffinity(0))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where several processes need the same modules, each compiles a share first: together, on a clean clone."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        return
    share = _collected(session.config)[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]
    for path in share:
        # What is wrong with one is told when it is collected.
        with warnings.catch_warnings(), contextlib.suppress(Exception, pytest.skip.Exception):
            warnings.simplefilter("error")
            importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))


def _collected(config: pytest.Config) -> list[Path]:
    """All modules of the directories that tests are to come from; of single ones nothing is saved."""
    left_out = [Path(ignored).resolve() for ignored in config.getoption("ignore") or ()]
    within = {path for place in config.args for path in Path(place).resolve().rglob("test_*.py")}
    return sorted(path for path in within if not any(map(path.is_relative_to, left_out)))


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Ten thousand tests stay to the end: looking through them for what is garbage would take a fifth of the time."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How to get what tests were skipped for."""
    skipped = terminalreporter.stats.get("skipped", [])
    if (line := wanted(str(report.longrepr) for report in skipped)) is not None:
        terminalreporter.write_line(line)


class BySuite(LoadScopeScheduling):  # type: ignore[misc]
    """Each suite of hosts has a process of its own, so that its layers are made once.

    Not `xdist_group`: pytest-xdist 3.8.0 marks groups in a way that pytest 9.2.0 does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        suite = re.search(r"\[(bookworm|trixie|resolute)\b", nodeid)
        return suite[1] if suite else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySuite | None:
    """`--dist loadgroup` is for hosts."""
    return BySuite(config, log) if config.getvalue("dist") == "loadgroup" else None


def _heed_signals_below() -> None:
    """Let the programs that tests start heed SIGINT and SIGHUP also where `nohup` or `&` has us ignore them.

    A signal that is ignored stays so in every child; one that is handled, by whatever function, is not.

    Source: execve(2); POSIX.1-2024, XCU 2.12, "Signals and Error Handling".
    """
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, lambda number, frame: None)


_heed_signals_below()
