"""`make soak` in small, and servers with which it must fail."""

import pytest

from tests.soak import run_soak
from tests.soak.run_soak import PARTS, Plan, SoakError, churn, idle, stuck

SMALL = Plan(idle=200, rest_s=8, warm_up=50, mortals=200, batches=2)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_crowd_of_a_few_hundred_leaves_nothing_behind(part: str) -> None:
    PARTS[part](SMALL)


@pytest.mark.slow
def test_a_service_that_remembers_who_has_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_soak, "SERVER", "-m tests.soak.leaky_server")
    with pytest.raises(SoakError, match="objects more"):
        churn(SMALL)


@pytest.mark.slow
def test_a_connection_that_costs_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_soak, "MOST_KIB_PER_CONNECTION", 1.0)
    with pytest.raises(SoakError, match="KiB each"):
        idle(SMALL)


@pytest.mark.slow
def test_a_queue_that_is_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run_soak.ADMIT_ALL, "WEBSOCKET_MAX_QUEUE", str(2**29))
    with pytest.raises(SoakError, match="KiB more at most"):
        stuck(SMALL)
