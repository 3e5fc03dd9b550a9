"""What it costs to keep a message: CPU of all threads, the delay of the event loop, and how fast a box is read.

    python -m bench.mailbox [--sync second] [--quick]

Messages of 250 bytes to 1,000 mailboxes, on the disk of the working directory; then the same in an engine there.
"""

import argparse
import asyncio
import contextlib
import datetime
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import load
from bench.figures import Figure, Outcome, of
from bench.hosts import engine_program, engine_version
from bench.page import bullets, paragraph, table
from bench.programs import MissingError
from bench.servers import SERVERS, running
from service.core.addresses import Address
from service.core.center import Center
from service.core.identity import Identity
from service.core.mail import WINDOW, Reader
from service.core.mailbox import Item, Kept, Kind, Letter, Opened, Store
from service.mailbox.disk import Disk
from service.mailbox.streams import Streams
from service.settings import Engine, Mailbox, Settings

BODY = b'"' + b"x" * 248 + b'"'
BOXES = [Address(f"box-{number}") for number in range(1000)]
WINDOWS = (1, 8, 64, 256)
REPLAYED = 1000
REPLAYS = 5
# What is aimed at: CPU us of a message at 64 a turn, ms that the loop is late more than without, messages a second.
CPU_GOAL_US, LATE_GOAL_MS, REPLAY_GOAL = 20.0, 1.0, 50_000
# The same of a message in the engine, all processes together.
ENGINE_GOAL_US = 60.0
# What a message stored at 64 a turn takes, in times of one that a worker delivers to a client, with 16 in flight.
DELIVERY_GOAL = 4.0
# It makes an engine wait for its disk, whatever its version.
KEEPS_ALL = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
# How much two runs differ for no reason, as a share: what a disk stores, and how late a loop is at worst.
_OF_A_DISK, _OF_A_TAIL = 0.5, 1.0


class Costs(NamedTuple):
    """By messages of one turn: CPU us of each, how many a second; how late the loop is, in ms; items read a second."""

    cpu_us: dict[int, float]
    a_second: dict[int, float]
    late_without: float
    late: float
    replays: list[float]


def center() -> Center:
    """Of one worker, without clients."""

    def nobody(token: str) -> Identity:
        raise NotImplementedError

    return Center(
        Settings(),
        nobody,
        clock=time.monotonic,
        now=time.time,
        soon=lambda act: asyncio.get_running_loop().call_soon(act),
        draw_address=lambda: "temporary",
        draw_secret=lambda: "secret",
    )


async def opened(store: Store, box: Address) -> Opened:
    found: asyncio.Future[Opened | None] = asyncio.get_running_loop().create_future()
    store.open(box, None, found.set_result)
    answer = await found
    assert answer is not None
    return answer


async def store(where: Store, boxes: list[Address]) -> None:
    """One message to each of these, which come in one turn of the loop."""
    done, left = asyncio.Event(), len(boxes)

    def kept(outcome: Kept) -> None:
        nonlocal left
        assert outcome is Kept.STORED
        left -= 1
        if not left:
            done.set()

    for box in boxes:
        where.keep(Letter(box, Address("sender"), Kind.JSON, BODY), kept)
    await done.wait()


async def storing(where: Store, a_turn: int, turns: int, pids: Sequence[int] = ()) -> tuple[float, float]:
    """So many messages in each turn, the next when these are stored.

    Returns: CPU us of each, that of these processes included, and how many a second.
    """
    began, cpu = time.perf_counter(), _cpu_seconds(pids)
    for turn in range(turns):
        start = turn * a_turn % 1000
        await store(where, (BOXES + BOXES)[start : start + a_turn])
    messages = turns * a_turn
    return (_cpu_seconds(pids) - cpu) / messages * 1e6, messages / (time.perf_counter() - began)


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Of this process and others, with all their threads. Source: clock_getcpuclockid(3), by the formula of Linux."""
    return time.process_time() + sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


async def late_ms(disk: Disk | None, seconds: float) -> float:
    """How late the loop is at p99, while 2,000 messages a second are stored, 20 every 10 ms."""
    late: list[float] = []
    tasks: set[asyncio.Task[None]] = set()
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        if disk is not None:
            task = asyncio.create_task(store(disk, BOXES[:20]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for _ in range(10):
            now = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - now - 0.001)
    await asyncio.gather(*tasks)
    return sorted(late)[len(late) * 99 // 100] * 1000


class Hearer:
    """A client that confirms each window at once."""

    def __init__(self) -> None:
        self.heard = 0
        self.done = asyncio.Event()
        self.reader: Reader

    def hear(self, item: Item) -> None:
        self.heard += 1
        if self.heard % WINDOW == 0:
            asyncio.get_running_loop().call_soon(self.reader.acknowledge, item.offset)
        if self.heard == REPLAYED:
            self.done.set()

    def lose_mail(self) -> None:
        raise NotImplementedError


async def replay(disk: Disk) -> float:
    """A box of a thousand messages, from its first to its last one. Returns: messages a second."""
    box = Address("replayed")
    await opened(disk, box)
    for _ in range(REPLAYED // 100):
        await store(disk, [box] * 100)
    hearer = Hearer()
    found = await opened(disk, box)
    began = time.perf_counter()
    hearer.reader = Reader(disk, box, hearer, 1 << 30, found)
    hearer.reader.look()
    await hearer.done.wait()
    return REPLAYED / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _disk(directory: Path, sync: str) -> AsyncIterator[Disk]:
    """A store that has all boxes."""
    settings = Mailbox(keep="disk", directory=str(directory), sync=sync, messages=1_000_000, bytes=1 << 30)  # type: ignore[arg-type]
    disk = Disk(settings, center().mail)
    for box in BOXES:
        await opened(disk, box)
    yield disk
    await disk.close()


async def measure(directory: Path, sync: str, turns: int, seconds: float) -> Costs:
    """Everything, one after another."""
    async with _disk(directory, sync) as disk:
        stored = {a_turn: await storing(disk, a_turn, turns) for a_turn in WINDOWS}
        return Costs(
            {a_turn: cpu_us for a_turn, (cpu_us, _) in stored.items()},
            {a_turn: a_second for a_turn, (_, a_second) in stored.items()},
            await late_ms(None, seconds),
            await late_ms(disk, seconds),
            [await replay(disk) for _ in range(REPLAYS)],
        )


async def _stored_us(directory: Path, sync: str, turns: int) -> float:
    async with _disk(directory, sync) as disk:
        return (await storing(disk, 64, turns))[0]


def beside_a_delivery(sync: str, rounds: int, turns: int, seconds: float) -> Figure:
    """CPU us of a message that is stored; the reference is one that a worker delivers, from WebSocket to WebSocket.

    Raises:
        MissingError: there is no compiler.
    """
    stored, delivered = [], []
    with running(SERVERS["fast"]) as server, tempfile.TemporaryDirectory(dir=".") as directory:
        for number in range(rounds):
            stored.append(asyncio.run(_stored_us(Path(directory) / str(number), sync, turns)))
            delivered.append(1e6 / load.route(server, 16, seconds).per_server_second)
    return Figure(
        case="64 a turn, beside a delivery",
        name="CPU of a message",
        unit="us",
        better="less",
        values=tuple(stored),
        reference=tuple(delivered),
    )


def _of_a_delivery(sync: str, turns: int, rounds: int, seconds: float) -> tuple[str, list[Figure]]:
    try:
        figure = beside_a_delivery(sync, rounds, turns, seconds)
    except MissingError as error:
        return f"beside a delivery: not measured: {error}", []
    said = (
        f"64 a turn: {figure.ratio:.1f} times what a worker takes to deliver a message, from WebSocket to WebSocket "
        f"and 16 in flight; goal {DELIVERY_GOAL:.0f}, {_verdict(figure.ratio <= DELIVERY_GOAL)}"
    )
    return said, [figure]


@contextlib.contextmanager
def _engine(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An engine that listens at the socket `engine` there.

    Raises:
        MissingError: there is none on this machine.
    """
    words = [engine_program(), "--port", "0", "--unixsocket", str(home / "engine"), "--dir", str(home), *KEEPS_ALL]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as engine:
        try:
            yield engine
        finally:
            engine.kill()


async def in_engine(home: Path, turns: int) -> float:
    """CPU us of a message at 64 a turn that an engine keeps, all processes together.

    Raises:
        MissingError
    """
    with _engine(home) as engine:
        settings = Mailbox(keep="engine", messages=1_000_000, bytes=1 << 30, total=1 << 40)
        where = Engine(url=f"unix://{home / 'engine'}", name="bench")
        streams = Streams(settings, where, center().mail)
        await streams.ready()
        for box in BOXES:
            await opened(streams, box)
        cpu_us, _ = await storing(streams, 64, turns, [engine.pid])
        await streams.close()
        return cpu_us


def _of_engine(turns: int) -> tuple[str, list[Figure]]:
    try:
        with tempfile.TemporaryDirectory(dir=".") as directory:
            cpu_us = asyncio.run(in_engine(Path(directory).resolve(), turns))
    except MissingError as error:
        return f"in an engine: not measured: {error}", []
    reached = _verdict(cpu_us <= ENGINE_GOAL_US)
    said = f"in {engine_version()}, 64 a turn: {cpu_us:.0f} us of all processes; goal {ENGINE_GOAL_US:.0f}, {reached}"
    return said, [_cost("64 a turn, in an engine", cpu_us)]


def _cost(case: str, cpu_us: float) -> Figure:
    return Figure(case=case, name="CPU of a message", unit="us", better="less", values=(cpu_us,))


def _figures(costs: Costs) -> Iterator[Figure]:
    for a_turn in WINDOWS:
        case = f"{a_turn} a turn"
        yield _cost(case, costs.cpu_us[a_turn])
        a_second = (costs.a_second[a_turn],)
        yield Figure(case=case, name="stored", unit="messages/s", better="more", values=a_second, noise=_OF_A_DISK)
    for case, late in (("while messages are stored", costs.late), ("while none is stored", costs.late_without)):
        yield Figure(case=case, name="the loop is late", unit="ms", better="less", values=(late,), noise=_OF_A_TAIL)
    yield Figure(case="a mailbox", name="read", unit="messages/s", better="more", values=tuple(costs.replays))


def report(sync: str = "turn", quick: bool = False) -> Outcome:
    """All of it."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        turns, seconds = (30, 0.5) if quick else (300, 5.0)
        costs = asyncio.run(measure(Path(directory) / "mailbox", sync, turns, seconds))
    of_delivery, figures_of_delivery = _of_a_delivery(sync, turns, *((1, 0.5) if quick else (5, 2.0)))
    of_engine, figures_of_engine = _of_engine(turns)
    figures = [*_figures(costs), *figures_of_delivery, *figures_of_engine]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    found = of(figures)
    cpu_us = {a_turn: found[f"{a_turn} a turn", "CPU of a message"].median for a_turn in WINDOWS}
    stored = {a_turn: found[f"{a_turn} a turn", "stored"].median for a_turn in WINDOWS}
    rows = [[str(a_turn), f"{cpu_us[a_turn]:.0f}", f"{stored[a_turn]:.0f}"] for a_turn in WINDOWS]
    read, more_late = found["a mailbox", "read"].median, costs.late - costs.late_without
    sentences = [
        f"64 a turn: {cpu_us[64]:.0f} us of CPU; goal {CPU_GOAL_US:.0f}, {_verdict(cpu_us[64] <= CPU_GOAL_US)}",
        f"the loop is late by {costs.late:.1f} ms at p99 while 2,000 messages a second are stored, and by "
        f"{costs.late_without:.1f} ms without; goal {LATE_GOAL_MS:.0f} ms more, {_verdict(more_late <= LATE_GOAL_MS)}",
        f"a mailbox of {REPLAYED} messages is read at {read:.0f} messages a second; goal {REPLAY_GOAL}, "
        f"{_verdict(read >= REPLAY_GOAL)}",
        of_delivery,
        of_engine,
    ]
    circumstances = paragraph(f"{today}, mailbox.sync: {sync}; messages of 250 bytes to {len(BOXES)} mailboxes.")
    header = ("messages a turn", "CPU us of each", "a second")
    text = "\n\n".join((circumstances, table(header, rows), bullets(sentences)))
    return Outcome(text, figures, f"mailbox.sync: {sync}, {turns} turns, {seconds} s")


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mailbox")
    parser.add_argument("--sync", choices=("turn", "second"), default="turn")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    print(report(options.sync, options.quick).text)


if __name__ == "__main__":
    main()
