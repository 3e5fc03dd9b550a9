"""Several real workers behind one port: which they are, and which of them a client is connected to."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from service.process.control import PREFIX
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Shell, running, wait_until

# With so many workers; each tells the others where it is in the directory WEBSOCKET_BUS.
SEVERAL = {
    "runner": "-m service",
    "standalone": "-m service.server",
    "gunicorn": COMMANDS["gunicorn"].replace("-m gunicorn", "-m gunicorn -w {WORKERS}"),
    "uvicorn": COMMANDS["uvicorn"].replace("-m uvicorn", "-m uvicorn --workers {WORKERS}"),
}
# How long workers that were held up for another one may go on before they are again.
_AGAIN_S = 0.3
# These two are started, watched and replaced by our own process.
OURS = ("runner", "standalone")


class Processes:
    """The workers of one running service."""

    def __init__(self, shell: Shell, bus: Path, size: int) -> None:
        self.shell = shell
        self.bus = bus
        self.size = size

    def pids(self) -> list[int]:
        """Every worker that takes part, by its process id."""
        return sorted(int(path.stem) for path in self.bus.glob("*.sock") if _is_alive(path.stem))

    def are_complete(self) -> bool:
        """Whether all are there, each knows each, and nobody else is."""
        pids = self.pids()
        others = (path for path in self.bus.glob("*") if path.suffix != ".door")
        meeting = [path for path in others if not path.name.startswith(PREFIX)]
        return len(pids) == self.size == len(meeting) and all(
            _streams(pid, self.bus / f"{pid}.sock") >= self.size - 1 for pid in pids
        )

    def wait(self, deadline_s: float = DEADLINE_S) -> list[int]:
        """Wait until they are complete; the service gives up when its first workers cannot serve in time."""
        process = self.shell.process
        wait_until(lambda: self.are_complete() or process.poll() is not None, deadline_s)
        assert process.poll() is None, f"the service has ended with {process.returncode}"
        return self.pids()

    @contextlib.contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Hold all others up for a moment, so that whoever connects now has this worker."""
        others = [other for other in self.pids() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGCONT)

    def serves(self, pid: int) -> bool:
        """Whether this worker answers already. It may wait for what another has to say, so none is held up for long."""
        with self.only(pid), contextlib.suppress(TimeoutError):
            return self.shell.get("/livez", timeout=1.0).status == 200
        time.sleep(_AGAIN_S)
        return False

    def connections(self, pid: int) -> int:
        """How many connections this worker says are open in all."""
        with self.only(pid):
            return self.shell.connections()

    def worker_of(self, client_port: int) -> int:
        """To which worker the client with this port is connected; 0 when it is there no more."""
        client = f":{client_port:04X}"
        table = Path(f"/proc/{self.shell.process.pid}/net/tcp")  # of its network, which may be another than ours
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
        sockets = {f"socket:[{fields[9]}]" for fields in rows if fields[2].endswith(client)}
        for pid in self.pids():
            for fd in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    if os.readlink(fd) in sockets:
                        return pid
        return 0

    def kill(self, pid: int) -> None:
        """End a worker at once, and see that it is gone: until then it counts as one that takes part."""
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _is_alive(str(pid)))


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _streams(pid: int, path: Path) -> int:
    """How many others have connected to a worker: lines of /proc/net/unix with its path, beside its own."""
    listed = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    # Its own was bound under a name with which nobody takes it for ready.
    bound = str(path.with_name(f".{pid}"))
    return sum(1 for fields in listed if fields[-1] == bound and fields[5] == "03")


@contextlib.contextmanager
def several(kind: str, size: int, bus: Path, at: str = str(ROOT), **settings: str) -> Iterator[Processes]:
    """Start a service of so many workers, and wait until each knows each and serves."""
    variables = {"WORKERS": str(size), "WEBSOCKET_BUS": str(bus), "LOG_LEVEL": "info", **settings}
    with running(SEVERAL[kind], at=at, **variables) as shell:
        processes = Processes(shell, bus, size)
        for pid in processes.wait():
            wait_until(lambda: processes.serves(pid))  # noqa: B023
        yield processes
