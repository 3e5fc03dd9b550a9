"""Several workers under one process: it starts them, watches them, replaces them, and stops them.

A worker is the service as it would run alone, but for two things: it listens on sockets that it is handed, and its
service manager is this process. So a worker that does not give a sign of life in time is stuck, and is replaced, while
the others serve. SIGHUP replaces all, one after another: the next one stops only when its successor serves.

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
from collections.abc import Sequence
from pathlib import Path

from service.listen import FDS_VARIABLE
from service.notify import Notifier
from service.settings import Settings

# How long a worker may be silent. It gives a sign of life twice as often.
WATCHDOG_S = 10.0
# How long it may take to begin to serve.
START_S = 30.0
# Between the end of a worker and the start of its successor: a service that cannot run must not keep the host busy.
RESTART_DELAY_S = 1.0
# Beyond what the service itself waits for when it stops.
STOP_MARGIN_S = 5.0
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
        self._complete = asyncio.Event()
        self._stopped = asyncio.Event()
        self._hangup = asyncio.Event()
        self._notifier = Notifier(os.environ)

    async def run(self) -> None:
        """Keep them running until SIGTERM or SIGINT, then stop them all."""
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

    async def _serve(self) -> None:
        for _ in range(self._number):
            self._keep_one()
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({stopped, asyncio.create_task(self._complete.wait())}, return_when=asyncio.FIRST_COMPLETED)
        self._notifier.ready(self._status())
        alive = asyncio.create_task(self._notifier.keep_alive(self._status))
        duties = [asyncio.create_task(self._end_the_stuck()), asyncio.create_task(self._replace_on_hangup())]
        await stopped
        self._notifier.stopping()
        for worker in tuple(self._workers.values()):
            self._stop(worker)
        await asyncio.gather(*self._kept)
        for task in (alive, *duties):
            task.cancel()

    def _status(self) -> str:
        states = ", ".join(worker.status for worker in self._workers.values())
        return f"{len(self._workers)} workers: {states}"

    def _keep_one(self, is_successor: bool = False) -> "asyncio.Future[_Worker]":
        """Start a worker, and another one whenever it ends though nobody has asked it to; the result is the first."""
        first: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep(first, is_successor))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return first

    async def _keep(self, first: "asyncio.Future[_Worker]", is_successor: bool) -> None:
        while not self._stopped.is_set():
            worker = await self._start()
            if not first.done():
                first.set_result(worker)
            code = await worker.process.wait()
            del self._workers[worker.process.pid]
            worker.has_ended.set()
            if worker.is_stopping or (is_successor and not worker.ready.is_set()):
                return
            logger.error("worker %d ended with %d; another one takes its place", worker.process.pid, code)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), RESTART_DELAY_S)

    async def _start(self) -> _Worker:
        fds = [listener.fileno() for listener in self._sockets]
        # WATCHDOG_PID is this process: a worker that inherits it takes the watchdog for another's.
        inherited = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        process = await asyncio.create_subprocess_exec(
            *self._command,
            pass_fds=fds,
            env={
                **inherited,
                FDS_VARIABLE: " ".join(map(str, fds)),
                "NOTIFY_SOCKET": str(self._directory / "notify"),
                "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000)),
                "WEBSOCKET_BUS": self._settings.bus or str(self._directory / "bus"),
            },
        )
        worker = self._workers[process.pid] = _Worker(process, asyncio.get_running_loop().time())
        return worker

    def _stop(self, worker: _Worker) -> None:
        if not worker.is_stopping:
            worker.is_stopping = True
            worker.deadline = asyncio.get_running_loop().time() + self._settings.drain.timeout + STOP_MARGIN_S
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()

    def _hear(self, ears: socket.socket) -> None:
        message, ancillary, _, _ = ears.recvmsg(4096, socket.CMSG_SPACE(_credentials.size))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, _, _ = _credentials.unpack(data)
                if pid in self._workers:
                    self._workers[pid].hear(message.decode(errors="replace"), asyncio.get_running_loop().time())
        if sum(worker.ready.is_set() for worker in self._workers.values()) >= self._number:
            self._complete.set()

    async def _end_the_stuck(self) -> None:
        while True:
            await asyncio.sleep(WATCHDOG_S / 10)
            now = asyncio.get_running_loop().time()
            for worker in tuple(self._workers.values()):
                if worker.deadline < now:
                    logger.error("worker %d gave no sign of life for too long; it is killed", worker.process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        worker.process.kill()

    async def _replace_on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            logger.info("replacing %d workers, one after another", len(self._workers))
            for old in tuple(self._workers.values()):
                if not await self._replace(old):
                    logger.error("the new worker does not start; the others stay as they are")
                    break
            else:
                logger.info("all workers have been replaced")

    async def _replace(self, old: _Worker) -> bool:
        new = await self._keep_one(is_successor=True)
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
    asyncio.run(Workers([sys.executable, "-m", module], settings, number, sockets).run())
