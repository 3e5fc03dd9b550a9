"""What it costs to keep a message: CPU of all threads, the delay of the event loop, and how fast a box is read.

    python -m bench.mailbox [--sync second]

Messages of 250 bytes to 1,000 mailboxes, on the disk of the working directory.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from service.core.addresses import Address
from service.core.center import Center
from service.core.identity import Identity
from service.core.mail import WINDOW, Reader
from service.core.mailbox import Item, Kept, Kind, Letter, Opened
from service.mailbox.disk import Disk
from service.settings import Mailbox, Settings

BODY = b'"' + b"x" * 248 + b'"'
BOXES = [Address(f"box-{number}") for number in range(1000)]
TURNS = 300
REPLAYED = 1000


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


async def opened(disk: Disk, box: Address) -> Opened:
    found: asyncio.Future[Opened | None] = asyncio.get_running_loop().create_future()
    disk.open(box, None, found.set_result)
    answer = await found
    assert answer is not None
    return answer


async def store(disk: Disk, boxes: list[Address]) -> None:
    """One message to each of these, which come in one turn of the loop."""
    done, left = asyncio.Event(), len(boxes)

    def kept(outcome: Kept) -> None:
        nonlocal left
        assert outcome is Kept.STORED
        left -= 1
        if not left:
            done.set()

    for box in boxes:
        disk.keep(Letter(box, Address("sender"), Kind.JSON, BODY), kept)
    await done.wait()


async def storing(disk: Disk, a_turn: int) -> str:
    """So many messages in each turn, the next when these are stored."""
    began, cpu = time.perf_counter(), time.process_time()
    for turn in range(TURNS):
        start = turn * a_turn % 1000
        await store(disk, (BOXES + BOXES)[start : start + a_turn])
    messages = TURNS * a_turn
    cpu_us = (time.process_time() - cpu) / messages * 1e6
    return f"{a_turn:4} a turn: {cpu_us:6.1f} us of CPU each, {messages / (time.perf_counter() - began):8.0f} a second"


async def lags(disk: Disk | None, seconds: float = 5.0) -> str:
    """How late the loop is, while 2,000 messages a second are stored, 20 every 10 ms."""
    late: list[float] = []
    tasks: set[asyncio.Task[None]] = set()
    ends = time.perf_counter() + seconds
    while (now := time.perf_counter()) < ends:
        if disk is not None:
            task = asyncio.create_task(store(disk, BOXES[:20]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for _ in range(10):
            now = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - now - 0.001)
    await asyncio.gather(*tasks)
    late.sort()
    return f"p50 {late[len(late) // 2] * 1000:.2f} ms, p99 {late[len(late) * 99 // 100] * 1000:.2f} ms"


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


async def replay(disk: Disk) -> str:
    """A box of a thousand messages, from its opening to the last one."""
    box = Address("replayed")
    await opened(disk, box)
    for _ in range(REPLAYED // 100):
        await store(disk, [box] * 100)
    hearer = Hearer()
    began = time.perf_counter()
    found = await opened(disk, box)
    reading = time.perf_counter()
    hearer.reader = Reader(disk, box, hearer, 1 << 30, found)
    hearer.reader.look()
    await hearer.done.wait()
    ended = time.perf_counter()
    return f"{REPLAYED / (ended - reading):.0f} a second, {REPLAYED / (ended - began):.0f} with the opening of the box"


async def measure(directory: Path, sync: str) -> None:
    settings = Mailbox(keep="disk", directory=str(directory), sync=sync, messages=1_000_000, bytes=1 << 30)  # type: ignore[arg-type]
    of_worker = center()
    disk = Disk(settings, of_worker.mail)
    for box in BOXES:
        await opened(disk, box)
    for a_turn in (1, 8, 64, 256):
        print("storing,", await storing(disk, a_turn))
    print("loop late, nothing stored:", await lags(None))
    print("loop late, 2,000 a second stored:", await lags(disk))
    for _ in range(3):
        print("replay:", await replay(disk))
    await disk.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mailbox")
    parser.add_argument("--sync", choices=("turn", "second"), default="turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as directory:
        asyncio.run(measure(Path(directory) / "mailbox", options.sync))


if __name__ == "__main__":
    main()
