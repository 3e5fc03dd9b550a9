"""The cost of the service's environment as `wsbundle install` makes it, with pip and with uv; without a network."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, Outcome, at_most, of
from bench.page import table
from bench.programs import ROOT, MissingError

# The developers' environment has a uv.
_PATH = f"{os.environ.get('PATH', os.defpath)}:{ROOT / '.venv-dev' / 'bin'}"
GOALS = {"CPU": 0.35, "time": 0.5}
_DOWNLOAD = """
import os, sys
from pathlib import Path
from generator.host.facts import python_version
from generator.packing.wheelhouse import Target, download
target = Target(".".join(map(str, python_version()[:2])), os.uname().machine)
download([target], [Path("requirements/service.txt").read_text()], Path(sys.argv[1]))
"""
_INSTALL = """
import sys
from pathlib import Path
from generator.host.requirements import install_requirements
install_requirements(Path(sys.argv[1]), None, sys.exit)
"""


class Cost(NamedTuple):
    """Seconds, of all processes together and by the clock."""

    cpu: float
    time: float


def measure(rounds: int) -> dict[str, list[Cost]]:
    """What each way costs in each round; they take turns.

    Raises:
        MissingError: there is no uv.
        CalledProcessError: an installation failed, or the wheels could not be downloaded.
    """
    if shutil.which("uv", path=_PATH) is None:
        raise MissingError("there is no uv; `make .venv-dev/ready` installs it")
    costs: dict[str, list[Cost]] = {"pip": [], "uv": []}
    with tempfile.TemporaryDirectory(prefix="wsbundle-bench-") as directory:
        wheels = Path(directory, "wheels")
        wheels.mkdir()
        subprocess.run([sys.executable, "-c", _DOWNLOAD, str(wheels)], check=True, cwd=ROOT)
        for _ in range(rounds):
            for way, switch in (("pip", "no"), ("uv", "")):
                costs[way].append(_cost(Path(directory, "venv"), wheels, switch))
    return costs


def _cost(venv: Path, wheels: Path, switch: str) -> Cost:
    shutil.rmtree(venv, ignore_errors=True)
    reached = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    environment = {**os.environ, **reached, "PATH": _PATH, "WSBUNDLE_UV": switch, "PYTHONPATH": str(ROOT)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", _INSTALL, str(venv)], env=environment, check=True, umask=0o022)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds)


def report(rounds: int) -> Outcome:
    """The results of this many rounds."""
    costs = measure(rounds)
    figures = [
        Figure(
            case=way,
            name=what,
            unit="s",
            better="less",
            values=tuple(cost[number] for cost in costs[way]),
            reference=tuple(cost[number] for cost in costs["pip"]),
        )
        for way in costs
        for number, what in enumerate(GOALS)
    ]
    found = of(figures)
    rows = [(way, *(f"{found[way, what].median:.1f}" for what in GOALS)) for way in costs]
    lines = [f"Median of {rounds} rounds.", "", table(("made by", "CPU s", "s"), rows), ""]
    for what, goal in GOALS.items():
        ratio = found["uv", what].ratio
        lines.append(f"- {what}: with uv {ratio:.2f} of that with pip; goal {goal}, {at_most(ratio, goal)}")
    return Outcome("\n".join(lines), figures, f"{rounds} rounds")
