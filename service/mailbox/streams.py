"""The mailboxes of several hosts: streams of their engine, Valkey or Redis, and a script that runs there.

Whatever has gathered while the engine confirmed what came before is sent in one write, and followed by one wait until
that is on its disk and, with Sentinels, on another server: nothing is told to be stored before.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from service.core.addresses import Address
from service.core.mail import Mail
from service.core.mailbox import (
    MAX_WAITING,
    MAX_WAITING_BYTES,
    SWEEP_PERIOD_S,
    Kept,
    Letter,
    Opened,
    Page,
    Position,
)
from service.engine.faults import EngineError, EngineUnreachableError
from service.mailbox import script
from service.mailbox.history import new_epoch
from service.mailbox.requirements import Server, explained
from service.mailbox.rights import NEVER_SYNCED
from service.settings import Engine, Mailbox

if TYPE_CHECKING:
    from service.engine.connection import Dialer, Stream

# What is sent at once.
BATCH = 500
_PATIENCE_S = 5.0
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_REFUSED_RETRY_S = 10.0

# What passes by itself, or when somebody makes room, and leaves the connection as good as it was.
_PASSING = ("OOM", "MISCONF", "NOREPLICAS")
# In an error of a script that had begun: what it did before stays done. Source: luaError in script_lua.c of valkey.io.
_WITHIN = "script: "

# By the command that waits for it.
_NOT_SAFE = {
    b"WAITAOF": f"what it stores is on its disk; {NEVER_SYNCED}",
    b"WAIT": "a second server has what it stores; is one there",
}

logger = logging.getLogger("service")


class _Work(NamedTuple):
    """What the engine is to do, who takes the outcome, and what it is if that was not done, or may have been."""

    call: script.Call
    then: Callable[[Any], None]
    otherwise: Any
    perhaps: Any


class Streams:
    """A `service.core.mailbox.Store`. To be made while the event loop runs."""

    def __init__(self, settings: Mailbox, engine: Engine, mail: Mail) -> None:
        self._settings = settings
        self._engine = engine
        self._mail = mail
        self._loop = asyncio.get_running_loop()
        self.holds = (0, 0)
        self._prefix = script.prefix(engine)
        self._known = ("", "", 0)
        """The run of the engine, the epoch, and the last offset that this worker has heard of there."""
        self._ahead = (time.time_ns() - time.monotonic_ns()) // 1000
        """Of the clock here is that of the engine, or a little less."""
        self._works: list[_Work] = []
        self._is_asking = False
        """Whether the engine is yet to answer."""
        self._waiting_bytes = 0
        self._owed: dict[Address, tuple[int, int]] = {}
        """What was acknowledged while the engine was away: by which reader, up to which offset."""
        self._wake = asyncio.Event()
        self._swept_at = 0.0
        self._lost_at = self._loop.time()
        self._is_away = False
        """For so long that nobody waits for it any more."""
        self._has_tried = asyncio.Event()
        self._refusal: EngineError | None = None
        self._told: set[str] = set()
        self.is_up = False
        self._is_closing = False
        mail.use(self, ())
        mail.is_unknown = True
        self._task = self._loop.create_task(self._run())

    async def ready(self) -> None:
        """Wait until it is known who has a mailbox; an engine that cannot be reached is waited for by nobody.

        Raises:
            EngineError: the engine refuses us.
        """
        await self._has_tried.wait()
        if self._refusal is not None:
            self._task.cancel()
            raise self._refusal

    @property
    def is_busy(self) -> bool:
        return self._is_asking or bool(self._works)

    @property
    def latest(self) -> int:
        return max(self._known[2], time.monotonic_ns() // 1000 + self._ahead - 1)

    @property
    def is_failing(self) -> bool:
        return bool(self._told)

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        size = len(letter.body)
        if len(self._works) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            then(Kept.FAILED)
            return
        self._waiting_bytes += size

        def written(kept: Kept) -> None:
            self._waiting_bytes -= size
            then(kept)

        self._add(_Work(script.keep(letter), written, Kept.FAILED, Kept.UNSURE))

    def open(self, box: Address, position: Position | None, then: Callable[[Opened | None], None]) -> None:
        self._add(_Work(script.open_box(box, position), then, None, None))

    def acknowledge(self, box: Address, reader: int, offset: int) -> None:
        def done(outcome: object) -> None:
            if outcome is False:
                self._owed[box] = (reader, offset)

        self._owed.pop(box, None)
        self._add(_Work(script.acknowledge(box, reader, offset), done, False, False))

    def touch(self, box: Address) -> None:
        self._add(_Work(script.touch(box), _nothing, None, None))

    def read(self, box: Address, after: int, most: int, size: int, then: Callable[[Page | None], None]) -> None:
        self._add(_Work(script.read_box(box, after, most, size), then, None, None))

    def list_boxes(self, then: Callable[[Collection[Address] | None], None]) -> None:
        self._add(_Work(script.list_boxes(), then, None, None))

    def _add(self, work: _Work) -> None:
        if self._is_away or self._is_closing:
            self._loop.call_soon(work.then, work.otherwise)
            return
        self._works.append(work)
        self._wake.set()

    async def close(self) -> None:
        """Store what is still to be stored, and leave."""
        self._is_closing = True
        self._wake.set()
        if self.is_up:
            await asyncio.wait([self._task], timeout=_PATIENCE_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail(self._works, [work.otherwise for work in self._works])

    # The connection

    async def _run(self) -> None:
        from service.engine.connection import Dialer  # nobody else needs the library

        dialer, tries = Dialer(self._engine), 0
        while not self._is_closing:
            self._refusal = None
            try:
                await self._use(dialer)
            except EngineError as error:
                self._refusal = error
                if self._has_tried.is_set():  # else the start fails, and says so
                    self._say(str(error))
            except (OSError, asyncio.TimeoutError, EngineUnreachableError) as error:
                self._say(str(error) or f"the engine at {dialer.where} does not answer")
            except Exception:  # a fault of ours must not end it for ever
                logger.exception("what the engine has answered for the mailboxes could not be acted on")
            tries = 0 if self.is_up else tries + 1
            self._lose()
            self._has_tried.set()
            if not self._is_closing:
                refused = self._refusal is not None
                await asyncio.sleep(_REFUSED_RETRY_S if refused else _RETRY_S[min(tries, len(_RETRY_S) - 1)])

    def _lose(self) -> None:
        """For a while what comes waits; after that nobody waits any more."""
        now = self._loop.time()
        if self.is_up:
            self.is_up, self._lost_at = False, now
        if now - self._lost_at >= self._engine.silence or not self._known[0]:
            self._is_away = True
            self._fail(self._works, [work.otherwise for work in self._works])

    def _fail(self, works: list[_Work], outcomes: list[Any]) -> None:
        failed = list(zip(works, outcomes, strict=True))
        works.clear()
        for work, outcome in failed:
            work.then(outcome)

    def _say(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.error("mailboxes: %s; until it can be used, what is sent to them is refused", what)

    async def _use(self, dialer: "Dialer") -> None:
        """Serve until the connection is lost."""
        stream, at = await dialer.connect()
        watch = self._loop.create_task(self._keep_to_the_master(dialer, stream, at))
        try:
            server = await Server.at(stream, self._engine, self._settings)
            await self._begin(stream, server)
            while self._works or not self._is_closing:
                await self._wait()
                works, self._works = self._works[:BATCH], self._works[BATCH:]
                if self._till_sweep_s() <= 0:
                    self._swept_at = self._loop.time()
                    works += [_Work(call, _nothing, None, None) for call in self._chores()]
                if works:
                    await self._carry_out(stream, server, works)
        finally:
            watch.cancel()
            stream.abort()

    def _chores(self) -> list[script.Call]:
        """What is due each second; an engine that is full is also asked whether it still is."""
        return [script.sweep(), script.try_to_store()] if self._told else [script.sweep()]

    async def _wait(self) -> None:
        """Until there is something to do."""
        if not self._works:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, self._till_sweep_s()))
        self._wake.clear()

    async def _keep_to_the_master(self, dialer: "Dialer", stream: "Stream", at: tuple[str, int]) -> None:
        """Leave a server that is not the master any more, even if it goes on answering."""
        while self._engine.sentinels:
            await asyncio.sleep(self._engine.silence)
            with contextlib.suppress(EngineUnreachableError, EngineError):
                if await dialer.find() != at:
                    stream.abort()
                    return

    def _till_sweep_s(self) -> float:
        return self._swept_at + SWEEP_PERIOD_S - self._loop.time()

    async def _begin(self, stream: "Stream", server: Server) -> None:
        calls = [script.try_all(), self._begin_call(server.run), script.list_boxes()]
        (said,) = await stream.ask([self._evalsha(calls, is_storing=False)])
        if isinstance(said, Exception):
            raise explained(said, stream.where, self._engine)
        heard = script.answer(said, calls)
        _, why, boxes = heard.outcomes
        _report_loss(stream, why)
        had_epoch = self._known[1]
        self._known = (server.run, heard.epoch, heard.last)
        self._mail.boxes.update(boxes)
        self._mail.is_unknown = False
        self.is_up, self._is_away = True, False
        if self._told:
            self._told.clear()
            logger.warning("mailboxes: the engine at %s is back", stream.where)
        if had_epoch and had_epoch != heard.epoch:
            self._anew()
        for box, (reader, offset) in tuple(self._owed.items()):
            self.acknowledge(box, reader, offset)
        self._mail.look_again()
        self._has_tried.set()

    def _begin_call(self, run: str) -> script.Call:
        return script.begin(run, self._settings.sync == "second", new_epoch(), self._known)

    def _anew(self) -> None:
        """Another epoch has begun: what clients know of their mailboxes holds no longer."""
        self._owed.clear()
        self._mail.lose()

    # What is asked

    def _evalsha(self, calls: list[script.Call], is_storing: bool) -> list[bytes]:
        words = script.arguments(self._prefix, self._settings, calls)
        return [b"EVALSHA", script.SHA[is_storing], b"0", *words]

    async def _carry_out(self, stream: "Stream", server: Server, works: list[_Work]) -> None:
        """Let the engine do all of it in order, and wait until that is safe."""
        runs: list[list[_Work]] = []
        for work in works:
            if not runs or runs[-1][0].call.is_storing != work.call.is_storing:
                runs.append([])
            runs[-1].append(work)
        commands = [self._evalsha([work.call for work in run], run[0].call.is_storing) for run in runs]
        began = self._loop.time()
        self._is_asking = True
        try:
            said = await stream.ask(commands + server.waits)
        except BaseException:
            self._fail(works, [work.perhaps for work in works])
            raise
        finally:
            self._is_asking = False
        self._mail.note_commit(self._loop.time() - began)
        doubts = _doubts(server, said[len(runs) :])
        is_safe = not doubts
        for doubt in doubts:
            self._say(f"the engine at {stream.where} does not confirm in time that {doubt}")
        fault: Exception | None = None
        for run, outcome in zip(runs, said, strict=False):
            if isinstance(outcome, Exception):
                fault = outcome
                is_undone = _WITHIN not in str(outcome)
                self._fail(run, [work.otherwise if is_undone else work.perhaps for work in run])
            else:
                self._report(stream, run, outcome, is_safe)
        if fault is not None:
            if not str(fault).startswith(_PASSING):
                raise explained(fault, stream.where, self._engine)
            self._say(f"the engine at {stream.where}: {fault}")
        elif is_safe and self._told and any(work.call.is_storing for work in works):
            self._told.clear()
            logger.warning("mailboxes: the engine at %s stores again", stream.where)

    def _report(self, stream: "Stream", works: list[_Work], said: Any, is_safe: bool) -> None:
        heard = script.answer(said, [work.call for work in works])
        run, epoch, last = self._known
        begin = self._begin_call(run)
        self._ahead = heard.now - time.monotonic_ns() // 1000
        self.holds = heard.messages, heard.bytes
        self._known = (run, heard.epoch, max(last, heard.last) if heard.epoch == epoch else heard.last)
        if heard.epoch != epoch:
            self._anew()
            # Whoever began it may not have known what was lost.
            self._add(_Work(begin, partial(_report_loss, stream), None, None))
        self._mail.note_expired(heard.expired)
        for work, outcome in zip(works, heard.outcomes, strict=True):
            is_unsure = not is_safe and isinstance(outcome, Kept) and outcome.is_stored
            work.then(Kept.UNSURE if is_unsure else outcome)
        for box in heard.news:
            self._mail.tell(box)
        self._mail.settle(heard.settled)


def _report_loss(stream: "Stream", why: str | None) -> None:
    if why:
        logger.warning("mailboxes: the engine at %s: %s; recipients are told so", stream.where, why)


def _doubts(server: Server, said: list[Any]) -> list[str]:
    """Why what was stored may not be safe, by what the engine says to those that wait for it."""
    confirmed = [each[0] if isinstance(each, list) else each for each in said]
    pairs = zip(server.waits, confirmed, strict=False)
    return [_NOT_SAFE[wait[0]] for wait, number in pairs if not isinstance(number, int) or number < 1]


def _nothing(outcome: object) -> None:
    """Nobody waits for it."""
