"""Run programs side by side, bounded in time: one loop over their output, no threads.

A reader is a generator that yields the programs to run and is sent their output, so that its code reads from top to
bottom while all readers wait together. After the imports that rendering needs anyway, `subprocess` would add 3 ms to
every render and threads more; a pipe and poll(2) are enough here.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from types import ModuleType
from typing import Generic, NoReturn, TypeVar

import msgspec

TIME_LIMIT_S = 10.0
_OUTPUT_LIMIT = 1 << 20
MINIMAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program(msgspec.Struct, frozen=True):
    """A program to run; `arguments` starts with its absolute path. It sees no environment but this one."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = {}


class Call(msgspec.Struct, frozen=True):
    """A function to run in a fork of this process; its result is the output.

    A library that reads its own format costs half as much here as in a new interpreter, and still can neither hang
    us nor change us.
    """

    function: Callable[[], str]


class Outcome(msgspec.Struct, frozen=True):
    """The result. `output` is stdout and stderr as they came; `failure` says why there is no result at all."""

    status: int
    output: str
    failure: str | None = None


Job = Program | Call
R = TypeVar("R")
Running = Generator[Job, Outcome, R]


class _Child:
    def __init__(self, job: Job, deadline: float) -> None:
        self.deadline = deadline
        self.output = bytearray()
        self.reading, writing = os.pipe()
        try:
            self.pid = _spawn(job, writing) if isinstance(job, Program) else _fork(job, writing)
        except BaseException:
            os.close(self.reading)
            raise
        finally:
            os.close(writing)

    def take(self) -> bool:
        """Read its output. Whether there may be more."""
        chunk = os.read(self.reading, 1 << 16)
        self.output += chunk[: _OUTPUT_LIMIT - len(self.output)]
        return bool(chunk)

    def end(self) -> Outcome | None:
        """Wait for the end of a child that closed its output; None when it stays on past its time."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.reading)
                code = os.waitstatus_to_exitcode(status)
                # As by the kernel, when memory runs out: it has said nothing of what it was to read.
                failure = f"was ended by {signal.Signals(-code).name}" if code < 0 else None
                return Outcome(code, self.output.decode(errors="replace"), failure)
            if monotonic() > self.deadline:
                return None
            sleep(0.001)

    def kill(self) -> None:
        """End it and whatever it started, which is in its process group."""
        os.killpg(self.pid, signal.SIGKILL)
        os.close(self.reading)
        os.waitpid(self.pid, 0)


def _spawn(program: Program, writing: int) -> int:
    return os.posix_spawn(
        program.arguments[0],
        list(program.arguments),
        {"PATH": MINIMAL_PATH, "LC_ALL": "C.UTF-8", **program.environment},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writing, 1),
            (os.POSIX_SPAWN_DUP2, writing, 2),
        ],
        setpgroup=0,
        setsigdef=[signal.SIGPIPE],
    )


def _fork(call: Call, writing: int) -> int:
    pid = os.fork()
    if not pid:
        _in_child(call, writing)
    with suppress(OSError):  # the child does the same, whichever is first
        os.setpgid(pid, pid)
    return pid


def _in_child(call: Call, writing: int) -> NoReturn:
    # Whatever happens, nothing of the parent's may run here: no handlers, no flushing of its buffers.
    status = 70
    try:
        os.setpgid(0, 0)
        for stream in (1, 2):
            os.dup2(writing, stream)
        text = call.function()
        status = 0
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    try:
        with open(writing, "wb", closefd=False) as out:
            out.write(text.encode(errors="replace"))
    finally:
        os._exit(status)


def side_by_side(tasks: Sequence[Running[R]], time_limit_s: float = TIME_LIMIT_S) -> list[R]:
    """Drive all tasks at once and give what they return, in their order.

    Each job has `time_limit_s`; one that takes longer is killed, and its task is informed.
    """
    loop = _Loop(tasks, time_limit_s)
    try:
        return loop.run()
    finally:
        loop.kill_all()


class _Loop(Generic[R]):
    def __init__(self, tasks: Sequence[Running[R]], time_limit_s: float) -> None:
        self.tasks = tasks
        self.time_limit_s = time_limit_s
        self.results: dict[int, R] = {}
        self.children: dict[int, tuple[int, _Child]] = {}  # by the descriptor that its output comes from
        self.poll = select.poll()

    def run(self) -> list[R]:
        for index in range(len(self.tasks)):
            self.advance(index, None)
        while self.children:
            nearest = min(child.deadline for _, child in self.children.values())
            for reading, _ in self.poll.poll(max(0.0, nearest - monotonic()) * 1000 + 1):
                if not self.children[reading][1].take():
                    self.finish(reading, self.children[reading][1].end())
            for reading, (_, child) in list(self.children.items()):
                if child.deadline <= monotonic():
                    self.finish(reading, None)
        return [self.results[index] for index in range(len(self.tasks))]

    def advance(self, index: int, outcome: Outcome | None) -> None:
        """Send a task what came of its job, and start the next one that it asks for."""
        try:
            job = next(self.tasks[index]) if outcome is None else self.tasks[index].send(outcome)
        except StopIteration as stop:
            self.results[index] = stop.value
            return
        try:
            child = _Child(job, monotonic() + self.time_limit_s)
        except OSError as error:
            self.advance(index, Outcome(-1, "", failure=f"could not be started: {error.strerror}"))
            return
        self.children[child.reading] = index, child
        self.poll.register(child.reading, select.POLLIN)

    def finish(self, reading: int, outcome: Outcome | None) -> None:
        """The job is over; without an outcome its time is."""
        index, child = self.children.pop(reading)
        self.poll.unregister(reading)
        if outcome is None:
            child.kill()
            outcome = Outcome(-1, "", failure=f"did not answer within {self.time_limit_s:g} s")
        self.advance(index, outcome)

    def kill_all(self) -> None:
        for _, child in self.children.values():
            child.kill()


# Every program that was looked for since this was cleared, and where it is.
LOOKED_FOR: dict[str, str | None] = {}


def find_program(name: str) -> str | None:
    """Where a program is: along PATH, and in the sbin beside each bin, which an ordinary user's PATH leaves out."""
    LOOKED_FOR[name] = _along_path(name)
    return LOOKED_FOR[name]


def _along_path(name: str) -> str | None:
    for entry in os.environ.get("PATH", "").split(":"):
        for directory in (entry, entry.removesuffix("/bin") + "/sbin") if entry.endswith("/bin") else (entry,):
            if directory and os.access(f"{directory}/{name}", os.X_OK):
                return f"{directory}/{name}"
    return None


def stand_in_for(modules: Sequence[str]) -> None:
    """In a fork: what these modules define is an empty class each, where importing them costs more than the reading.

    What a parser refuses with stand-ins it must be asked again without them: they can only make it refuse.
    """
    for name in modules:
        sys.modules[name] = _StandIn(name)


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})
