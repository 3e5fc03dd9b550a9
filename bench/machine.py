"""What a run is measured on and with: the machine, and the versions of all that is compared."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.programs import BUILD, HERE, ROOT, MissingError, program

# Locked in requirements/; what our own servers and those of bench/peers are made of.
PACKAGES = ("uvicorn", "gunicorn", "websockets", "uvloop", "picows", "msgspec")

# The same of those that are fetched when they are measured: packages of requirements/bench.txt, by what is imported.
FETCHED = {
    "socketio": "python-socketio",
    "channels": "channels",
    "channels_redis": "channels-redis",
    "django": "django",
    "redis": "redis",
}


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its processor, how many CPUs of it we may use, and its kernel."""

    processor: str
    cpus: int
    kernel: str


def machine() -> Machine:
    """This one."""
    linux, _, _ = platform.release().partition("-")
    return Machine(processor=_processor(), cpus=len(os.sched_getaffinity(0)), kernel=f"Linux {linux}")


def _processor() -> str:
    models = re.findall(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    return str(models[0]) if models else platform.machine()


class Clocks(NamedTuple):
    """Seconds of all CPUs since the machine was started: how many there were, were used, and were used by us."""

    there: float
    used: float
    ours: float


def clocks() -> Clocks:
    """As they are now. Source: proc_stat(5), the line `cpu`; the time that a host took from a guest counts as used."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, idle, waiting, *others = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields)
    used, ours = user + nice + system + sum(others), os.times()
    mine = ours.user + ours.system + ours.children_user + ours.children_system
    return Clocks(used + idle + waiting, used, mine)


def others(before: Clocks, after: Clocks) -> float:
    """The share of the CPUs that other programs than ours took in between."""
    there, used, ours = (now - then for now, then in zip(after, before, strict=True))
    return max(0.0, used - ours) / there if there else 0.0


def versions() -> dict[str, str]:
    """By name, of all that is here."""
    return {
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        **{package: _locked(package) for package in FETCHED.values()},
        **dict(_of_programs()),
    }


def _locked(package: str) -> str:
    lock = (ROOT / "requirements" / "bench.txt").read_text()
    return str(re.findall(rf"(?m)^{package}==([0-9.]+)", lock)[0])


def _of_programs() -> Iterator[tuple[str, str]]:
    if said := _said("node", "--version"):
        yield "node", said
        # As exact there as in package-lock.json, which has their hashes.
        yield from json.loads((HERE / "peers" / "package.json").read_text())["dependencies"].items()
    if said := _said("nginx", "-v"):
        yield "nginx", said
        # Of the package that is installed, or of the one that was fetched.
        fetched = "".join(archive.name for archive in BUILD.glob("nchan/*.deb"))
        if nchan := _said("dpkg-query", "--show", "libnginx-mod-nchan") or _number(fetched):
            yield "nchan", nchan


def _said(name: str, *arguments: str) -> str:
    """The version that a program prints, whichever way; nothing where it is not there or knows none."""
    try:
        done = subprocess.run([program(name, name), *arguments], capture_output=True, text=True)
    except MissingError:
        return ""
    return _number(done.stdout + done.stderr)


def _number(text: str) -> str:
    found = re.search(r"[0-9]+(\.[0-9]+)+", text)
    return found[0] if found else ""
