"""Several workers under one process: it starts them, watches them, replaces them, and stops them.

A worker is the service as it would run alone, but for two things: it listens on sockets that it is handed, and its
service manager is this process. So a worker that does not give a sign of life in time is stuck, and is replaced, while
the others serve. SIGHUP replaces all, one after another: the next one stops only when its successor serves. When this
process ends, however it does, the workers see a pipe of its close, and stop as well.

Source: sd_notify(3), unix(7) on SCM_CREDENTIALS.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.process.listen import FDS_VARIABLE
from service.process.notify import Notifier
from service.settings import Settings

# How long a worker may be silent. It gives a sign of life twice as often.
WATCHDOG_S = 10.0
# How long it may take to begin to serve.
START_S = 30.0
# Between the end of a worker and the start of its successor; twice as long after each that ended before it served: a
# service that cannot run must not keep the host busy.
RESTART_DELAY_S = 1.0
MAX_RESTART_DELAY_S = 30.0
# Beyond what the service itself waits for when it stops.
STOP_MARGIN_S = 5.0
# By which a worker is handed the pipe that tells it of our end.
LIFELINE_VARIABLE = "WEBSOCKET_LIFELINE_FD"
_credentials = struct.Struct("3i")

logger = logging.getLogger("service")


class _Worker:
    """One worker process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, now: float) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.is_stopping = False
        self.deadline = now + START_S
        self.status = "starting"

    def hear(self, message: str, now: float) -> None:
        """A sign of life, in the words of sd_notify(3)."""
        if not self.is_stopping:
            self.deadline = now + WATCHDOG_S
        for line in message.splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                self.ready.set()
            elif name == "STATUS":
                self.status = value


class Workers:
    """All workers of one service. `command` starts one of them."""

    def __init__(
        self, command: Sequence[str], settings: Settings, number: int, sockets: Sequence[socket.socket]
    ) -> None:
        self._command = command
        self._settings = settings
        self._number = number
        self._sockets = sockets
        self._workers: dict[int, _Worker] = {}
        self._kept: set[asyncio.Task[None]] = set()
        self._posts = 0
        """How many workers are there, or are about to be."""
        self._complete = asyncio.Event()
        self._stopped = asyncio.Event()
        self._hangup = asyncio.Event()
        self._notifier = Notifier(os.environ)
        self._lifeline, self._our_life = os.pipe()
        self._has_failed = False

    async def run(self) -> bool:
        """Keep them running until SIGTERM or SIGINT, then stop them all.

        Returns: whether they could serve. When the first ones cannot, none is tried again.
        """
        loop = asyncio.get_running_loop()
        for stopping in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stopping, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        with tempfile.TemporaryDirectory(prefix="service-") as directory, contextlib.ExitStack() as stack:
            self._directory = Path(directory)
            ears = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            ears.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ears.bind(str(self._directory / "notify"))
            loop.add_reader(ears, self._hear, ears)
            await self._serve()
            loop.remove_reader(ears)
        return not self._has_failed

    async def _serve(self) -> None:
        for _ in range(self._number):
            self._keep_one()
        duties = (self._tell_the_service_manager(), self._end_the_stuck(), self._replace_on_hangup())
        tasks = [asyncio.create_task(duty) for duty in duties]
        await self._stopped.wait()
        self._notifier.stopping()
        for worker in tuple(self._workers.values()):
            self._stop(worker)
        await asyncio.gather(*self._kept)
        for task in tasks:
            task.cancel()

    async def _tell_the_service_manager(self) -> None:
        await self._complete.wait()
        self._notifier.ready(self._status())
        await self._notifier.keep_alive(self._status)

    def _status(self) -> str:
        states = ", ".join(worker.status for worker in self._workers.values())
        return f"{len(self._workers)} workers: {states}"

    def _keep_one(self) -> "asyncio.Future[_Worker]":
        """Start a worker, and another one whenever it ends though nobody has asked it to; the result is the first."""
        first: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._posts += 1
        task = asyncio.create_task(self._keep(first))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return first

    async def _keep(self, first: "asyncio.Future[_Worker]") -> None:
        delay_s = RESTART_DELAY_S
        while not self._stopped.is_set():
            worker = await self._start()
            if worker is not None:
                if not first.done():
                    first.set_result(worker)
                if not await self._needs_a_successor(worker):
                    self._posts -= 1  # at once: another one may have ended at the same moment
                    return
                if worker.ready.is_set():
                    delay_s = RESTART_DELAY_S
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), delay_s)
            delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)

    async def _needs_a_successor(self, worker: _Worker) -> bool:
        """Wait until a worker ends."""
        code = await worker.process.wait()
        del self._workers[worker.process.pid]
        worker.has_ended.set()
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

    async def _start(self) -> _Worker | None:
        fds = [listener.fileno() for listener in self._sockets]
        # WATCHDOG_PID is this process: a worker that inherits it takes the watchdog for another's.
        inherited = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                pass_fds=[*fds, self._lifeline],
                env={
                    **inherited,
                    FDS_VARIABLE: " ".join(map(str, fds)),
                    LIFELINE_VARIABLE: str(self._lifeline),
                    "NOTIFY_SOCKET": str(self._directory / "notify"),
                    "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
                    "WEBSOCKET_BUS": self._settings.bus or str(self._directory / "bus"),
                },
            )
        except OSError as error:
            logger.error("no worker can be started: %s", error)
            return None
        worker = self._workers[process.pid] = _Worker(process, self._now())
        if self._stopped.is_set():
            self._stop(worker)
        return worker

    def _stop(self, worker: _Worker) -> None:
        if not worker.is_stopping:
            worker.is_stopping = True
            worker.deadline = self._now() + self._settings.drain.timeout + STOP_MARGIN_S
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()

    def _hear(self, ears: socket.socket) -> None:
        # All that has come, before anybody is found silent: this process may have been the one that was held up.
        with contextlib.suppress(BlockingIOError):
            while True:
                message, ancillary, _, _ = ears.recvmsg(4096, socket.CMSG_SPACE(_credentials.size))
                for level, kind, data in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                        pid, _, _ = _credentials.unpack(data)
                        if pid in self._workers:
                            self._workers[pid].hear(message.decode(errors="replace"), self._now())
        if sum(worker.ready.is_set() for worker in self._workers.values()) >= self._number:
            self._complete.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _end_the_stuck(self) -> None:
        period_s = WATCHDOG_S / 10
        while True:
            looked = self._now()
            await asyncio.sleep(period_s)
            now = self._now()
            for worker in tuple(self._workers.values()):
                if now - looked > 2 * period_s:
                    # We were held up ourselves, and have heard nobody meanwhile.
                    worker.deadline += now - looked
                elif worker.deadline < now:
                    logger.error("worker %d gave no sign of life for too long; it is killed", worker.process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        worker.process.kill()

    async def _replace_on_hangup(self) -> None:
        await self._complete.wait()
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            logger.info("replacing %d workers, one after another", len(self._workers))
            for old in tuple(self._workers.values()):
                # One that has ended meanwhile has a successor of its own.
                if not old.has_ended.is_set() and not await self._replace(old):
                    logger.error("the new worker does not start; the others stay as they are")
                    break
            else:
                logger.info("all workers have been replaced")

    async def _replace(self, old: _Worker) -> bool:
        new = await self._keep_one()
        outcomes = {asyncio.create_task(new.ready.wait()), asyncio.create_task(new.has_ended.wait())}
        _, pending = await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if not new.ready.is_set():
            return False
        self._stop(old)
        await old.has_ended.wait()
        return True


def run_workers(module: str, settings: Settings, sockets: Sequence[socket.socket]) -> None:
    """Keep as many workers running as the settings ask for, until SIGTERM or SIGINT."""
    number = len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers
    could_serve = asyncio.run(Workers([sys.executable, "-m", module], settings, number, sockets).run())
    for listener in sockets:
        listener.close()
    if not could_serve:
        sys.exit(1)


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
