"""What a host says of itself, and whether a deployment can go there. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from generator.environment import OLDEST_PYTHON
from generator.packing.wheelhouse import MACHINES, Target
from service.declaration import Fault

_FIRST, _LAST = "wsbundle-host 1", "wsbundle-end"
_LINES = {
    "python": r"(?:\d+\.\d+)?",
    "machine": r"\w+",
    "libc": r"(?:\w+ [\d.]+)?",
    "system": r"[\w.-]* [\w.-]*",
    "init": r"\S+",
    "identity": r"[0-9a-f]{16}",
    "addresses": r"[0-9a-f.: ]*",
    "keys": r"[0-9a-f]*",
    "generation": r"\d*",
    "archive": r"[a-z0-9-]*",
    "changed": r"(?:[0-9a-f]{12} \d+)?",
    "job": r"[a-z0-9-]*",
}
# Where it is not installed yet; the installation brings it.
_PYTHONS = {
    "debian 12": "3.11",
    "debian 13": "3.13",
    "ubuntu 22.04": "3.10",
    "ubuntu 24.04": "3.12",
    "ubuntu 26.04": "3.14",
}


class Answer(msgspec.Struct, frozen=True):
    """One host: `generation` is empty where nothing is installed, `job` where no deployment is under way, `keys` where
    there are none for tokens; else it is a digest of them.

    `archive` is the one whose deploy.yaml was installed last; `changed` names the last deployment, and when that was in
    seconds since 1970; `identity` is the machine's, until it is booted again.
    """

    python: str
    machine: str
    libc: str
    system: str
    init: str
    identity: str
    addresses: str
    keys: str
    generation: str
    archive: str
    changed: str
    job: str

    @property
    def target(self) -> Target:
        return Target(self.python or _PYTHONS.get(self.system, ""), self.machine)


def parse(output: str) -> Answer | None:
    """The answer in what a host printed, around which a login shell may have printed more; None where it is none."""
    lines = output.splitlines()
    if lines.count(_FIRST) != 1 or lines.count(_LAST) != 1:
        return None
    between = lines[lines.index(_FIRST) + 1 : lines.index(_LAST)]
    expected = "\n".join(f"{key}=(?P<{key}>{pattern})" for key, pattern in _LINES.items())
    found = re.fullmatch(expected, "\n".join(between), re.ASCII)
    return Answer(**found.groupdict()) if found else None


def faults(answer: Answer) -> Iterator[Fault]:
    """Why nothing can be installed there, as far as it can be seen from outside; its own `install` looks further."""
    python, machine = answer.target.python, answer.machine
    if answer.init != "systemd":
        yield Fault(f"is run by {answer.init}, not by systemd", "take a host or a machine that boots systemd")
    if machine not in MACHINES:
        yield Fault(f"is a {machine}, for which there are no wheels", f"take one of {', '.join(MACHINES)}")
    if not answer.libc.startswith("glibc "):
        yield Fault("has no glibc, which the wheels need", "take a Debian or Ubuntu")
    if not python:
        yield Fault("has no python3, and which one it will have is unknown", "install python3 and python3-venv there")
    elif tuple(map(int, python.split("."))) < OLDEST_PYTHON:
        yield Fault(f"has Python {python}, which is too old", "upgrade it to Debian 12 or Ubuntu 22.04, or newer")


def twins(answers: Sequence[tuple[str, Answer]]) -> Iterator[tuple[str, Fault]]:
    """Two names of one machine: it would be installed twice."""
    first: dict[str, str] = {}
    for host, answer in answers:
        if answer.identity in first:
            yield host, Fault(f"is the same machine as {first[answer.identity]}", "name it once")
        first.setdefault(answer.identity, host)


def last_deployment(answers: Iterable[Answer]) -> str:
    """The newest of all hosts, empty where there is none: a host that it did not come to has an older one."""
    found = [answer.changed.split() for answer in answers if answer.changed]
    return max(found, key=lambda each: int(each[1]))[0] if found else ""


def worst(codes: Iterable[int]) -> int:
    """The exit code for several hosts. Changes that are pending, 3, are no failure; edits by hand, 4, are noticed."""
    order = (0, 3, 4, 1, 2)
    return max((code if code in order else 1 for code in codes), key=order.index, default=0)
