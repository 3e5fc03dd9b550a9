"""`make install` again and again, with code that changes: none of the clients can tell when."""

import asyncio
import itertools
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.clients.chromium import CHROMIUM
from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.onlookers import Onlookers, onlookers
from tests.hosts.test_certificates import make_pair
from tests.hosts.test_faults import DOES_NOT_START
from tests.hosts.test_uv import UV

# As a test it is three installations, of different kinds. The whole proof is KEEP_SECONDS=3600.
SECONDS = float(os.environ.get("KEEP_SECONDS", "0"))
AT_LEAST = 3
# As `watch` waits between two of them.
PAUSE_S = 2.0
# Of all that was noticed; when something goes wrong for good, it is thousands.
SHOWN = 100


class Operator:
    """Who installs; every act returns what was said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._settings: dict[str, Any] = {"auth": "token", "mailbox": {"keep": "disk"}, "workers": 2}
        self._settings |= {**make_pair(console, "/etc/ssl/good", DOMAIN), "domain": DOMAIN}
        shutil.copy(UV, console.host.root / "usr/local/bin/uv")  # other code is installed in a fifth of the time
        console.install(**self._settings)

    def changes_code(self, module: str = "web/page.py") -> str:
        """Which the workers take over from each other."""
        self._console.run("sh", "-c", f"echo '# changed' >>service/{module}")
        return self._makes()

    def changes_shared_code(self) -> str:
        """Which old and new workers must have in common."""
        return self.changes_code("core/hub.py")

    def changes_the_unit(self) -> str:
        self._settings["drain"] = {"timeout": 11 + (self._settings.get("drain") == {"timeout": 11})}
        return self._makes()

    def changes_the_number_of_workers(self) -> str:
        self._settings["workers"] = 3 - self._settings["workers"]
        return self._makes()

    def breaks_the_code(self) -> str:
        """So that it cannot even be imported."""
        return self._breaks("fast/front.py", '"""', 'import nothing_at_all\n"""', "The deployment was not touched.")

    def breaks_the_start(self, module: str = "process/listen.py") -> str:
        return self._breaks(module, '"""', f'{DOES_NOT_START}\n"""')

    def breaks_the_start_of_workers(self) -> str:
        """Which are to replace those that run."""
        return self.breaks_the_start("fast/front.py")

    def breaks_what_the_probe_asks_for(self) -> str:
        """All else works, so that clients go to the new code and come back."""
        return self._breaks("core/session_v1.py", "is None else request.id))", "is None else 0))")

    def goes_back(self) -> str:
        return self._console.wsbundle("rollback")

    def _breaks(self, module: str, old: str, new: str, outcome: str = "") -> str:
        path = self._console.host.root / self._console.checkout[1:] / "service" / module
        sound = path.read_text()
        assert old in sound
        self._console.write(f"service/{module}", sound.replace(old, new, 1))
        before = self._console.current()
        said = self._makes(works=False)
        self._console.write(f"service/{module}", sound)
        assert (outcome or f"Undone: generation {before} runs again") in said, said
        return said

    def _makes(self, works: bool = True) -> str:
        self._console.configure(**self._settings)
        return self._console.run("make", "install", check=works)


Act = Callable[[Operator], str]
# In this order; what is usual comes more often.
ACTS: tuple[Act, ...] = (
    Operator.changes_code, Operator.changes_the_unit, Operator.breaks_the_start,
    Operator.changes_code, Operator.changes_shared_code, Operator.goes_back,
    Operator.changes_code, Operator.breaks_the_start_of_workers, Operator.changes_the_number_of_workers,
    Operator.changes_the_unit, Operator.breaks_the_code, Operator.goes_back,
    Operator.changes_code, Operator.changes_shared_code, Operator.breaks_what_the_probe_asks_for,
)  # fmt: skip


class Log:
    """What was done and when, and how long nothing was heard meanwhile."""

    def __init__(self) -> None:
        self.times: list[tuple[str, float, float]] = []
        self.failures: list[str] = []

    def act(self, console: Console, act: Callable[[], str], name: str) -> None:
        before, began = console.main_pids(), time.time()
        try:
            said = act()
        except AssertionError as failure:
            said = str(failure)
            self.failures.append(f"{name}: {said}")
        ended, after = time.time(), console.main_pids()
        name += ", restarted" if after[f"{NAME}.service"] != before[f"{NAME}.service"] else ""
        self.times.append((name, began, ended))
        print(f"{time.strftime('%T')} {name}: {said.splitlines()[-1]}", file=sys.stderr)

    def write(self, by: Onlookers) -> None:
        print(f"\n{len(self.times)} acts:", file=sys.stderr)
        for name, number in Counter(name for name, _, _ in self.times).items():
            times = [(began, ended) for other, began, ended in self.times if other == name]
            longest = {who: max(by.silence(*time)[who] for time in times) for who in by.silence(0, 0)}
            spoken = ", ".join(f"{who} {seconds:.2f} s" for who, seconds in longest.items())
            seconds = sum(ended - began for began, ended in times) / number
            print(f"  {name}: {number}, each {seconds:.1f} s; longest silence: {spoken}", file=sys.stderr)
        for each in by:
            print(f"{each.name}: {each.sent} sent, {len(each.heard)} heard", file=sys.stderr)
        returns = f"{by.sleeper.returns} times, in {by.sleeper.longest_return_s:.2f} s or less"
        print(f"the phone that sleeps came back {returns}", file=sys.stderr)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)")
def test_nobody_can_tell_when_it_is_installed(installed: Console, tmp_path: Path) -> None:
    operator, log = Operator(installed), Log()

    async def play() -> Onlookers:
        async with onlookers(installed, tmp_path) as looking:
            ends = time.monotonic() + SECONDS
            for number, act in enumerate(itertools.cycle(ACTS)):
                if number >= AT_LEAST and time.monotonic() > ends:
                    break
                await asyncio.sleep(PAUSE_S)
                await asyncio.to_thread(log.act, installed, partial(act, operator), act.__name__)
            await asyncio.sleep(PAUSE_S)
        return looking

    looked = asyncio.run(play())
    log.write(looked)
    said = installed.run("journalctl", "-u", NAME, "-o", "short-precise", "--no-hostname")
    faults = [
        *log.failures,
        *looked.missing(),
        *looked.noticed(),
        *re.findall(".*(?:Traceback|takes no clients).*", said),
    ]
    print(*faults[:SHOWN], sep="\n", file=sys.stderr)
    assert faults == [], said[-20_000:]
