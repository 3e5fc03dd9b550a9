"""The deployment that is looked at, and what several looks need of it; each is read once."""

import json
import os
import re
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from generator.config.project import Project
from generator.config.schema import Deploy, keys_file, serves_app
from generator.doctor.wire import Answer, ask
from generator.host import facts
from generator.host.clients import listener
from generator.host.probe import Endpoint, silence
from generator.host.programs import run
from generator.host.store import Store
from generator.minting import with_keys
from generator.program import AS_ROOT
from generator.rendering.render import local_address
from generator.report import CommandError

_PATIENCE_S = 5.0
_SYSTEMD = (
    "ActiveState Result NRestarts MainPID UnitFileState NeedDaemonReload "
    "FileDescriptorStoreMax NFileDescriptorStore RestartKillSignal"
).split()


class Unseen(Exception):
    """Nothing can be seen here; the message says why."""


class Process(NamedTuple):
    """A process of the service as the kernel has it; `files` is its limit of open files, `started` since the epoch."""

    pid: int
    uid: int
    command: tuple[str, ...]
    files: int
    environ: dict[str, str]
    started: float


class Patient:
    """One deployment on this host."""

    def __init__(
        self,
        deploy: Deploy,
        store: Store,
        endpoint: Endpoint,
        under_stress: bool = False,
        project: Project | None = None,
    ) -> None:
        self.deploy, self.store, self.endpoint, self.under_stress = deploy, store, endpoint, under_stress
        self.project = project

    @cached_property
    def message(self) -> str | float:
        """Why none gets through nginx and back; or how long one took, in seconds."""
        began = time.monotonic()
        return silence(self.endpoint, _PATIENCE_S) or time.monotonic() - began

    def must_answer(self) -> None:
        """Raises: Unseen: clients do not get through, so that nothing can be seen on the wire."""
        if isinstance(self.message, str):
            raise Unseen("no client gets through: see `message`")

    def must_come_through_nginx(self) -> None:
        """Raises: Unseen: no site has it yet, so that nothing can be seen of what nginx does for it."""
        if self.endpoint.is_past_nginx:
            raise Unseen("no site includes it: see `nginx.include`")

    @cached_property
    def unit(self) -> dict[str, str]:
        """What systemd says of the service."""
        shown = run("systemctl", "show", f"{self.deploy.name}.service", *(f"--property={name}" for name in _SYSTEMD))
        return dict(line.split("=", 1) for line in shown.output.splitlines() if "=" in line)

    @cached_property
    def pid(self) -> int:
        """The main process. Raises: Unseen: there is none."""
        if self.deploy.manager == "supervisor":
            pid = run("supervisorctl", "pid", self.deploy.name).output
        else:
            pid = self.unit.get("MainPID", "0")
        if not pid.isdecimal() or pid == "0":
            needs_root(self.deploy.manager == "supervisor")
            raise Unseen("the service does not run: see `name`")
        return int(pid)

    @cached_property
    def process(self) -> Process:
        """The process that serves: a worker where there are several, since a reload replaces those alone.

        Raises:
            Unseen
        """
        needs_root()
        workers = children(self.pid)
        return process(max(workers, default=self.pid))

    @cached_property
    def started(self) -> float:
        """When the main process began, in seconds since the epoch. Raises: Unseen"""
        return started(self.pid)

    @cached_property
    def stats(self) -> dict[str, Any]:
        """What the service said of itself when it was first asked. Raises: Unseen, OSError"""
        return self._asked()

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What it had counted then. Raises: Unseen, OSError"""
        figures: dict[str, Any] = self.stats["service"]
        return figures

    def count(self) -> dict[str, Any]:
        """What it has counted by now: each figure of all workers. Raises: Unseen, OSError"""
        figures: dict[str, Any] = self._asked()["service"]
        return figures

    def _asked(self) -> dict[str, Any]:
        """The answer of /stats."""
        if serves_app(self.deploy):
            raise Unseen("an application of one's own has no figures that are known")
        answer = self.inside("/stats")
        if answer.status != 200:
            raise Unseen(f"the service answers /stats with {answer}")
        stats: dict[str, Any] = json.loads(answer.body)
        return stats

    @cached_property
    def token(self) -> str:
        """One that lets a client of ours in, for as long as a look may take. Raises: Unseen"""
        needs_root()
        ping = self.deploy.ping
        seconds = str(int(ping.interval + ping.timeout) + 60)
        try:
            return with_keys("token", keys_file(self.deploy), "doctor", seconds)
        except CommandError as error:
            raise Unseen(f"no token can be made to look with: {error}") from None

    def inside(self, path: str) -> Answer:
        """What a program of this host gets from the service itself. Raises: OSError"""
        return ask(listener(local_address(self.deploy)), path, "localhost")


def needs_root(really: bool = True) -> None:
    """Raises: Unseen: somebody else asks."""
    if really and os.geteuid():
        raise Unseen(f"only root can see it: run `{AS_ROOT} doctor`")


def process(pid: int) -> Process:
    """Raises: Unseen"""
    try:
        there = Path(f"/proc/{pid}")
        limits = re.search(r"(?m)^Max open files +(\w+)", (there / "limits").read_text(encoding="ascii"))
        uid = re.search(r"(?m)^Uid:\s+(\d+)", (there / "status").read_text(encoding="utf-8"))
        environ = (there / "environ").read_text(encoding="utf-8", errors="surrogateescape").split("\0")
        command = (there / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")[:-1]
    except OSError as error:
        raise Unseen(f"process {pid}: {error.strerror}") from None
    assert limits is not None
    assert uid is not None
    files = int(limits[1]) if limits[1].isdecimal() else facts.UNLIMITED
    variables = dict(line.split("=", 1) for line in environ if "=" in line)
    return Process(pid, int(uid[1]), tuple(command), files, variables, started(pid))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def started(pid: int) -> float:
    """When a process began, in seconds since the epoch. Source: proc_pid_stat(5), "starttime". Raises: Unseen"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unseen(f"process {pid}: {error.strerror}") from None
    ticks = int(stat.rpartition(")")[2].split()[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")
