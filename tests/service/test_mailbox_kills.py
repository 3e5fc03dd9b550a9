"""Whatever is killed, and whenever: what a sender was told to be stored is found again, once, in order."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from tests.service.mailbox_crowd import Crowd
from tests.service.processes import several
from tests.service.shells import COMMANDS, running
from tests.service.test_mailbox_conformance import Kept

# More of both with `make kills`.
MESSAGES = int(os.environ.get("MAILBOX_MESSAGES", "4000"))
KILLS = int(os.environ.get("MAILBOX_KILLS", "5"))
SENDERS = [f"sender-{number}" for number in range(4)]
RECIPIENTS = [f"recipient-{number}" for number in range(4)]
ROOMY = {
    "WEBSOCKET_MAILBOX_MESSAGES": "1000000",
    "WEBSOCKET_MAILBOX_BYTES": str(1024**3),
    "WEBSOCKET_MAX_MESSAGES_PER_SECOND": "100000",
    "WEBSOCKET_MAX_BYTES_PER_SECOND": str(64 * 1024**2),
}


async def wait_for(crowd: Crowd, told: float) -> None:
    while crowd.told_in_all < told:
        await crowd.news.wait()
        crowd.news.clear()
    await asyncio.sleep(random.uniform(0, 0.2))


async def kill_workers(kept: Kept, crowd: Crowd, bus: Path) -> None:
    """Kill one of three workers again and again, and at last let everything be fetched."""
    with several("runner", 3, bus, **kept.settings(**ROOMY)) as processes:
        crowd.url = processes.shell.url
        async with everybody(crowd):
            for kill in range(KILLS):
                await wait_for(crowd, (kill + 0.5) * MESSAGES / KILLS)
                if pids := processes.pids():
                    os.kill(random.choice(pids), signal.SIGKILL)
            await wait_for(crowd, MESSAGES)


async def kill_services(kept: Kept, crowd: Crowd, bus: Path) -> None:
    """Kill a service of one process, and start it again."""
    with running(COMMANDS["runner"], **kept.settings(**ROOMY)) as shell:
        crowd.url = shell.url
        await crowd.open_all()
        shell.process.kill()
    async with everybody(crowd):
        for kill in range(KILLS):
            with running(COMMANDS["runner"], **kept.settings(**ROOMY)) as shell:
                crowd.url = shell.url
                await wait_for(crowd, (kill + 0.5) * MESSAGES / KILLS)
                shell.process.kill()
        with running(COMMANDS["runner"], **kept.settings(**ROOMY)) as shell:
            crowd.url = shell.url
            await wait_for(crowd, MESSAGES)
            await crowd.finish()


@contextlib.asynccontextmanager
async def everybody(crowd: Crowd) -> AsyncIterator[None]:
    """Senders send and recipients receive; at the end everything that was told is fetched."""
    if not crowd.positions:
        await crowd.open_all()
    crowd.start()
    yield
    await crowd.finish()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_workers, kill_services])
def test_what_was_told_to_be_stored_survives_every_kill(
    tmp_path: Path, kill: Callable[[Kept, Crowd, Path], Coroutine[None, None, None]]
) -> None:
    kept = Kept(tmp_path)
    tokens = {name: kept.token(name) for name in (*SENDERS, *RECIPIENTS)}
    crowd = Crowd("", tokens, SENDERS, RECIPIENTS)
    asyncio.run(kill(kept, crowd, tmp_path / "bus"))
    print(f"{crowd.told_in_all} told stored, {KILLS} kills")
    assert crowd.told_in_all >= MESSAGES
    assert crowd.faults() == []
