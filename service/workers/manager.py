"""Several workers under one process: it starts them, watches them, replaces them, and stops them.

A worker is the service as it would run alone, but for two things: it listens on sockets that it is handed, and its
service manager is this process. So a worker that does not give a sign of life in time is stuck, and is replaced, while
the others serve. The first ones are forked from this process, which has imported by then what they need; the next ones
may be of another release, and are started anew. SIGHUP, or whoever asks on our socket and waits for the answer, has all
replaced by workers of the release that is current then, one after another: the next one stops only when its successor
serves. When this process ends, however it does, the workers see a pipe of its close, and stop as well.

Source: sd_notify(3), unix(7) on SCM_CREDENTIALS.
"""

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.core.status import together
from service.process.journal import fail
from service.process.listen import FDS_VARIABLE, STORED_VARIABLE
from service.process.logs import configure_logging
from service.process.notify import Notifier
from service.process.stops import Terminal, end, hold_signals, let_signals_through, stop_signals
from service.settings import APP_WATCHDOG_S, Settings
from service.workers.meeting import AT, LIFELINE_VARIABLE, Meeting
from service.workers.release import HERE, RELEASE_VARIABLE, Deployment, Release, ReleaseError
from service.workers.reload import DIRECTORY_VARIABLE, DONE, NAME

# How long a worker may be silent. It gives a sign of life twice as often.
WATCHDOG_S = 10.0
# How long it may take to begin to serve, if it is not an application with a time of its own.
START_S = 30.0
# Between the end of a worker and the start of its successor; twice as long after each that ended before it served: a
# service that cannot run must not keep the host busy.
RESTART_DELAY_S = 1.0
MAX_RESTART_DELAY_S = 30.0
# Beyond what the service itself waits for when it stops.
STOP_MARGIN_S = 5.0
# Stops a worker whose clients are to be served by others from then on.
PASS_ON = signal.SIGUSR1
# It has our number: a worker that inherits it takes the watchdog for another's.
_WATCHDOG_OF = "WATCHDOG_PID"
# What runs a worker that understands it.
MODULE_OF_CENTER = ["-m", "service"]
# What a terminal sends to all its processes; a worker that is started has no handlers for them at first.
_OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)
_credentials = struct.Struct("3i")
# What a worker says comes with at most two descriptors.
_ANCILLARY_BYTES = socket.CMSG_SPACE(_credentials.size) + socket.CMSG_SPACE(2 * struct.calcsize("i"))
# Of what workers say, what is for the service manager: sd_notify(3).
_FOR_THE_SERVICE_MANAGER = ("FDSTORE=1", "FDSTOREREMOVE=1", "BARRIER=1")

logger = logging.getLogger("service")


class _Forked:
    """A process that this one has forked, as `asyncio.subprocess.Process` is one that runs another program.

    Source: pidfd_open(2).
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.descriptor = os.pidfd_open(pid)

    async def wait(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.descriptor, ended.set)
        await ended.wait()
        loop.remove_reader(self.descriptor)
        os.close(self.descriptor)
        return self._code()

    def _code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class _Worker:
    """One worker process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process | _Forked, release: Release, now: float) -> None:
        self.process = process
        self.release = release
        self.ready = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.is_stopping = False
        self.deadline = now + _start_s(release)
        self.status = "starting"
        self._is_being_killed = False

    @property
    def fault(self) -> str:
        """What it has not done in time."""
        if self.is_stopping:
            return "has not stopped in time"
        if not self.ready.is_set():
            of_app = " (app.start)" if self.release.settings.app.callable is not None else ""
            return f"does not serve after {_start_s(self.release):g} s{of_app}"
        return "gave no sign of life for too long"

    def hear(self, message: str, now: float) -> None:
        """A sign of life, in the words of sd_notify(3)."""
        if not self.is_stopping:
            self.deadline = now + _watchdog_s(self.release)
        for line in message.splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                self.ready.set()
            elif name == "STATUS":
                self.status = value
            elif name == "EXTEND_TIMEOUT_USEC" and value.isdecimal():
                self.deadline = max(self.deadline, now + int(value) / 1_000_000)

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended.

        `Process.send_signal` first looks whether it has, and so takes its exit code away from asyncio.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it, whatever it does. An application first says where it hangs, if it still can: faulthandler."""
        if self._is_being_killed:
            self.send(signal.SIGKILL)
            return
        logger.error("worker %d %s; it is killed", self.process.pid, self.fault)
        self._is_being_killed = True
        self.send(signal.SIGKILL if self.release.settings.app.callable is None else signal.SIGABRT)


class Workers:
    """All workers of one service. A Python with `arguments` runs one of them, in the environment of a release."""

    def __init__(
        self,
        arguments: Sequence[str],
        deployment: Deployment,
        settings: Settings,
        sockets: Sequence[socket.socket],
        stored: Sequence[tuple[str, int]] = (),
    ) -> None:
        """`stored` is what workers before these have left, `service.process.listen.stored_descriptors`."""
        self._arguments = arguments
        self._deployment = deployment
        self._release = deployment.first(settings)
        """The release with which the next workers are started."""
        self._number = self._release.workers
        self._sockets = sockets
        self._stored = list(stored)
        self._meeting = Meeting()
        self.stops_by = signal.SIGTERM
        self._terminal = Terminal()
        """By which signal it was asked to stop; SIGINT says that this is a restart."""
        self._workers: dict[int, _Worker] = {}
        self._kept: set[asyncio.Task[None]] = set()
        self._posts = 0
        """How many workers are there, or are about to be."""
        self._complete = asyncio.Event()
        self._stopped = asyncio.Event()
        self._is_asked_to_reload = asyncio.Event()
        self._asking: list[socket.socket] = []
        """Programs that wait for the outcome of the next reload."""
        self._notifier = Notifier(os.environ)
        self._lifeline, self._our_life = os.pipe()
        self._has_failed = False
        self._forked: list[_Forked] = []

    def listen(self) -> None:
        """Hear what workers say. To be called before there are any."""
        self._directory = Path(tempfile.mkdtemp(prefix="service-"))
        self._ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._ears.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._ears.bind(str(self._directory / "notify"))

    def fork(self) -> bool:
        """Fork the first workers, which need not import all again that was imported by now, if their code is ours.

        Returns: whether this process is one of them.
        """
        if self._release.directory != HERE:
            return False
        _stay_with_this_code()
        gc.freeze()  # what is there is shared: to look for cycles in it would make a copy for each
        for _ in range(self._number):
            try:
                pid = os.fork()
            except OSError as error:
                logger.error("no worker can be forked: %s", error)
                break
            if pid == 0:
                for descriptor in (self._our_life, self._ears.detach(), *(each.descriptor for each in self._forked)):
                    os.close(descriptor)
                os.environ.pop(_WATCHDOG_OF, None)
                os.environ.update(self._variables(self._release))
                os.chdir(HERE)
                return True
            self._forked.append(_Forked(pid))
        return False

    async def run(self) -> bool:
        """Keep them running until SIGTERM or SIGINT, then stop them all.

        Returns: whether they could serve. When the first ones cannot, none is tried again.
        """
        loop = asyncio.get_running_loop()
        for stopping in stop_signals():
            loop.add_signal_handler(stopping, self._stop_all, stopping)
        loop.add_signal_handler(signal.SIGHUP, self._hear_a_hangup)
        let_signals_through()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory)
            ears = stack.enter_context(self._ears)
            loop.add_reader(ears, self._hear, ears)
            stack.callback(loop.remove_reader, ears)
            if runtime := os.environ.get(DIRECTORY_VARIABLE):
                door = stack.enter_context(_listening(Path(runtime) / NAME))
                loop.add_reader(door, self._let_in, door)
                stack.callback(loop.remove_reader, door)
            await self._serve()
        hold_signals()
        return not self._has_failed

    async def _serve(self) -> None:
        for _ in range(self._number):
            self._keep_one(self._release)
        tasks = [asyncio.create_task(duty) for duty in (self._tell_the_service_manager(), self._end_the_stuck())]
        reloads = asyncio.create_task(self._reload_when_asked())
        await self._stopped.wait()
        reloads.cancel()  # that its new worker does not serve any more is no fault
        self._notifier.stopping()
        for worker in tuple(self._workers.values()):
            self._stop(worker, self.stops_by)
        await asyncio.gather(*self._kept)
        for task in tasks:
            task.cancel()
        for connection in self._asking:
            connection.close()
        self._meeting.close()

    def _stop_all(self, by: signal.Signals) -> None:
        if not self._stopped.is_set():
            self.stops_by = by
            self._stopped.set()

    def _hear_a_hangup(self) -> None:
        if self._terminal.is_gone():
            self._stop_all(signal.SIGTERM)
        else:
            self._is_asked_to_reload.set()

    async def _tell_the_service_manager(self) -> None:
        await self._complete.wait()
        for name, descriptor in self._stored:
            os.close(descriptor)
            self._notifier.unstore(name)
        self._stored.clear()
        self._notifier.ready(self._status())
        await self._notifier.keep_alive(self._status)

    def _status(self) -> str:
        is_application = self._release.settings.app.callable is not None
        lines = (worker.status for worker in self._workers.values())
        return f"{len(self._workers)} workers: {together(lines, is_application)}"

    def _keep_one(self, release: Release) -> "asyncio.Future[_Worker | None]":
        """Start a worker, and another one whenever it ends though nobody has asked it to.

        The result is the first, or None where it cannot be started and is not needed.
        """
        first: asyncio.Future[_Worker | None] = asyncio.get_running_loop().create_future()
        self._posts += 1
        task = asyncio.create_task(self._keep(release, first))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return first

    async def _keep(self, release: Release, first: "asyncio.Future[_Worker | None]") -> None:
        delay_s = RESTART_DELAY_S
        while self._forked or not self._stopped.is_set():
            worker = await self._start(release)
            if not first.done():
                first.set_result(worker)
            if not await self._needs_a_successor(worker):
                self._posts -= 1  # at once: another one may have ended at the same moment
                return
            if worker is not None and worker.ready.is_set():
                delay_s = RESTART_DELAY_S
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), delay_s)
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)
            release = self._release

    async def _needs_a_successor(self, worker: _Worker | None) -> bool:
        """Wait until a worker ends; None is one that could not be started."""
        if worker is None:
            return not self._others_are_enough()
        code = await worker.process.wait()
        del self._workers[worker.process.pid]
        worker.has_ended.set()
        self._meeting.leave(worker.process.pid)
        self._let_go()
        if self._stopped.is_set() or self._others_are_enough():
            return False
        if self._complete.is_set() or worker.ready.is_set():
            logger.error("worker %d ended with %d; another one takes its place", worker.process.pid, code)
            return True
        logger.error("worker %d ended with %d before it could serve", worker.process.pid, code)
        self._has_failed = True
        self._stopped.set()
        return False

    def _others_are_enough(self) -> bool:
        """Whether a worker that has just ended need not be replaced: its successor is there, or was before it ended."""
        stopping = sum(worker.is_stopping for worker in self._workers.values())
        return self._posts - stopping > self._number

    async def _start(self, release: Release) -> _Worker | None:
        process = self._forked.pop() if self._forked else await self._execute(release)
        if process is None:
            return None
        worker = self._workers[process.pid] = _Worker(process, release, self._now())
        if self._stopped.is_set():
            self._stop(worker, self.stops_by)
        return worker

    async def _execute(self, release: Release) -> asyncio.subprocess.Process | None:
        fds = [listener.fileno() for listener in self._sockets]
        inherited = {name: value for name, value in release.environ.items() if name != _WATCHDOG_OF}
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        try:
            return await asyncio.create_subprocess_exec(
                release.python,
                *self._arguments,
                cwd=release.directory,
                pass_fds=[*fds, *(descriptor for _, descriptor in self._stored), self._lifeline],
                env={
                    **inherited,
                    **self._variables(release),
                    FDS_VARIABLE: " ".join(map(str, fds)),
                    STORED_VARIABLE: " ".join(f"{name}:{descriptor}" for name, descriptor in self._stored),
                },
            )
        except OSError as error:
            logger.error("no worker can be started: %s", error)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINALS)

    def _variables(self, release: Release) -> dict[str, str]:
        """What the environment of a worker has of its own."""
        return {
            LIFELINE_VARIABLE: str(self._lifeline),
            RELEASE_VARIABLE: str(release.number),
            "NOTIFY_SOCKET": str(self._directory / "notify"),
            "WATCHDOG_USEC": str(int(_watchdog_s(release) * 1_000_000)),
            "WEBSOCKET_BUS": release.settings.bus or str(self._directory / "bus"),
        }

    def _stop(self, worker: _Worker, by: signal.Signals) -> None:
        if not worker.is_stopping:
            worker.is_stopping = True
            worker.deadline = self._now() + _stop_s(worker)
            # One that does not serve yet has no answer to the others.
            worker.send(by if worker.ready.is_set() else signal.SIGTERM)

    def _hear(self, ears: socket.socket) -> None:
        # All that has come, before anybody is found silent: this process may have been the one that was held up.
        with contextlib.suppress(BlockingIOError):
            while True:
                message, ancillary, _, _ = ears.recvmsg(4096, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
                descriptors = array("i")
                for _, kind, data in ancillary:
                    if kind == socket.SCM_RIGHTS:
                        descriptors.frombytes(data)
                for _, kind, data in ancillary:
                    if kind == socket.SCM_CREDENTIALS:
                        pid, _, _ = _credentials.unpack(data)
                        self._hear_of(pid, message.decode(errors="replace"), list(descriptors))
        if sum(worker.ready.is_set() for worker in self._workers.values()) >= self._number:
            self._complete.set()

    def _hear_of(self, pid: int, message: str, descriptors: list[int]) -> None:
        if pid in self._workers and message.startswith(f"{AT}=") and descriptors:
            self._meeting.come(pid, message.partition("=")[2], descriptors.pop())
            self._let_go()
        elif pid in self._workers and message.startswith(_FOR_THE_SERVICE_MANAGER):
            try:
                self._notifier.transmit(message, descriptors)
            except OSError as error:
                logger.error("what worker %d says does not arrive at the service manager: %s", pid, error)
        elif pid in self._workers:
            worker, now = self._workers[pid], self._now()
            before = worker.deadline
            worker.hear(message, now)
            if worker.is_stopping and worker.deadline > before:
                self._notifier.extend(worker.deadline - now + STOP_MARGIN_S)
        for descriptor in descriptors:
            os.close(descriptor)

    def _let_go(self) -> None:
        """Let workers go on that wait for each other, if all are there; of those that stop, all that have not ended."""
        self._meeting.let_go(len(self._workers) if self._stopped.is_set() else self._posts)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _end_the_stuck(self) -> None:
        period_s = WATCHDOG_S / 10
        looked = self._now()
        while True:
            await asyncio.sleep(period_s)
            # From one look to the next, without a gap: a machine can be frozen at any instruction.
            now, before = self._now(), looked
            looked = now
            for worker in tuple(self._workers.values()):
                if now - before > 2 * period_s:
                    # We were held up ourselves, perhaps with the whole machine, and could hear nobody.
                    worker.deadline += now - before
                elif worker.deadline < now:
                    worker.kill()

    def _let_in(self, door: socket.socket) -> None:
        connection, _ = door.accept()
        self._asking.append(connection)
        self._is_asked_to_reload.set()

    async def _reload_when_asked(self) -> None:
        await self._complete.wait()
        while True:
            await self._is_asked_to_reload.wait()
            self._is_asked_to_reload.clear()
            with contextlib.ExitStack() as asking:
                connections = [asking.enter_context(connection) for connection in self._asking]
                self._asking.clear()
                try:
                    await self._reload()
                    outcome = DONE
                except ReleaseError as error:
                    outcome = str(error)
                    logger.error("%s", outcome)
                for connection in connections:
                    with contextlib.suppress(OSError):  # it waits no longer
                        connection.send(outcome.encode())

    async def _reload(self) -> None:
        """Put workers of the current release in the place of all others; the first has to prove that it can serve.

        Raises:
            ReleaseError
        """
        release = self._deployment.current(self._release)
        logger.info("replacing %d workers by %d, one after another", len(self._workers), release.workers)
        while True:
            await self._add(release)
            if release is not self._release:
                self._release = release
                configure_logging(release.settings.log)
            outdated = [worker for worker in self._workers.values() if worker.release is not release]
            if self._posts - len(outdated) >= release.workers:
                break
            if outdated and self._posts > self._number:  # otherwise one has ended by itself, and made room
                await self._end(outdated[0])
        self._number = release.workers
        # The old ones first, if any are left because there are to be fewer workers than before.
        rest = sorted(self._workers.values(), key=lambda worker: worker.release is release)
        for worker in rest[: self._posts - self._number]:
            await self._end(worker)
        logger.info(DONE)

    async def _add(self, release: Release) -> None:
        self._notifier.extend(_start_s(release) + STOP_MARGIN_S)
        new = await self._keep_one(release)
        if new is not None:
            outcomes = {asyncio.create_task(new.ready.wait()), asyncio.create_task(new.has_ended.wait())}
            _, pending = await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
        if new is None or not new.ready.is_set():
            fresh = sum(worker.release is release for worker in self._workers.values())
            already = f"{fresh} of {release.workers} are new already, " if fresh else ""
            raise ReleaseError(f"the new worker does not start; {already}the others stay as they are")

    async def _end(self, worker: _Worker) -> None:
        self._notifier.extend(_stop_s(worker) + STOP_MARGIN_S)
        passes_on = self._arguments == MODULE_OF_CENTER and worker.release.settings.app.callable is None
        self._stop(worker, PASS_ON if passes_on else signal.SIGTERM)
        await worker.has_ended.wait()


def _listening(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # a process that was killed has left it
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()
    return door


def _start_s(release: Release) -> float:
    """How long a worker may take to begin to serve."""
    app = release.settings.app
    return START_S if app.callable is None else app.start


def _watchdog_s(release: Release) -> float:
    """How long a worker may give no sign of life."""
    return WATCHDOG_S if release.settings.app.callable is None else APP_WATCHDOG_S


def _stop_s(worker: _Worker) -> float:
    """How long a worker may take to stop."""
    return worker.release.settings.drain.timeout + STOP_MARGIN_S


def _has_process_descriptors() -> bool:
    """Whether processes can be waited for by them: the kernel, or what confines us, may have none."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _stay_with_this_code() -> None:
    """What is imported from now on comes from where it is now, whatever links such as `current` lead to by then."""
    sys.path[:] = map(os.path.realpath, sys.path)
    for module in [*sys.modules.values()]:
        if isinstance(places := getattr(module, "__path__", None), list):
            places[:] = map(os.path.realpath, places)


def run_workers(
    module: str,
    settings: Settings,
    sockets: Sequence[socket.socket],
    stored: Sequence[tuple[str, int]] = (),
    may_fork: bool = False,
) -> bool:
    """Keep as many workers running as the settings ask for, until SIGTERM or SIGINT.

    With `may_fork` the first ones are forked from here. Returns: whether this process is one of these, with an
    environment of its own by now, and has yet to serve.
    """
    has_descriptors = _has_process_descriptors()
    if sys.version_info < (3, 12) and has_descriptors:
        # As asyncio does it from then on. A thread that waits for a process could be handed a stop that the main thread
        # holds back by then.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        workers = Workers(["-m", module], Deployment(os.environ), settings, sockets, stored)
    except ReleaseError as error:
        for listener in sockets:
            listener.close()
        fail(error)
    workers.listen()
    if may_fork and has_descriptors and workers.fork():
        return True
    try:
        could_serve = asyncio.run(workers.run())
        if could_serve and workers.stops_by == signal.SIGINT:
            end(0)  # at once: clients wait for the next process
    finally:
        for listener in sockets:
            listener.close()
    if not could_serve:
        sys.exit(1)
    return False


def end_with_manager(environ: Mapping[str, str]) -> None:
    """Stop, as if asked to, when the process that has started this worker is gone, however that ended.

    Nobody would end this worker any more, and it would keep the listening socket. To be called in the loop.
    """
    if lifeline := environ.get(LIFELINE_VARIABLE):
        loop, pipe = asyncio.get_running_loop(), int(lifeline)

        def stop() -> None:
            loop.remove_reader(pipe)
            logger.error("the process that watches the workers is gone; this one stops")
            signal.raise_signal(signal.SIGTERM)

        loop.add_reader(pipe, stop)
