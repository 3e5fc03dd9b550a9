"""The clock of a center goes on, whatever fails."""

import pytest

from service.process import ticker
from service.process.ticker import Ticker
from tests.service.centers import World
from tests.service.transports import in_a_loop, until


@in_a_loop
async def test_a_call_that_fails_keeps_no_other_one_from_its_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "PERIOD_S", 0.0)
    world, done = World(), []
    alice = world.v1("alice")
    for call in (lambda: done.append(1 / 0), lambda: done.append(1.0)):
        world.center.deadlines[call] = world.time
    Ticker(world.center).wake()
    await until(lambda: done)
    assert "what was due could not be done" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    alice.session.end()
