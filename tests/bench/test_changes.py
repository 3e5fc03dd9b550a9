"""What counts as changed between two runs, and how it is said."""

import random

import pytest

from bench import changes
from bench.changes import BUSY, Change, last, report
from bench.figures import Figure
from bench.machine import Machine
from tests.bench.results_of import MACHINE, figure, kept, run

OLD, NEW = run(27), run(28)


def is_changed(before: Figure, now: Figure) -> bool:
    return changes.is_changed(Change(kept(before, OLD), kept(now, NEW)))


def said(before: list[Figure], now: list[Figure]) -> str:
    return " ".join(report([kept(each, OLD) for each in before], [kept(each, NEW) for each in now]).split())


def noisy(generator: random.Random, median: float, rounds: int, noise: float) -> list[float]:
    return [median * generator.gauss(1, noise) for _ in range(rounds)]


def test_the_same_figures_are_not_named() -> None:
    figures = [figure(3.0, 3.1, 2.9, case="a"), figure(7.0, case="b")]
    assert said(figures, figures) == "Changed by more than their noise: 0 of 2 figures that were measured before."


def test_the_one_that_is_worse_by_30_percent_is_named() -> None:
    before = [figure(100.0, 101.0, 99.0, case=f"case {number}") for number in range(5)]
    now = [*before[:3], figure(70.0, 71.0, 69.0, case="case 3"), before[4]]
    assert said(before, now) == (
        "Changed by more than their noise: 1 of 5 figures that were measured before. "
        "Since 2026-11-27 14:03 UTC, commit 0000000000: "
        "- worse: servers: case 3: done per CPU second: 70 1/s, was 100: 0.70 times; rounds 69 to 71, were 99 to 101"
    )


@pytest.mark.parametrize("rounds", [3, 5, 15])
def test_noise_alone_is_not_named(rounds: int) -> None:
    generator = random.Random(16)
    before, now = ([noisy(generator, 100, rounds, 0.03) for _ in range(300)] for _ in range(2))
    named = [1 for old, new in zip(before, now, strict=True) if is_changed(figure(*old), figure(*new))]
    assert named == []


@pytest.mark.parametrize("rounds", [3, 5, 15])
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_30_percent_are_found_in_noise(rounds: int, factor: float) -> None:
    generator = random.Random(16)
    pairs = [(noisy(generator, 100, rounds, 0.03), noisy(generator, 100 * factor, rounds, 0.03)) for _ in range(300)]
    assert all(is_changed(figure(*old), figure(*new)) for old, new in pairs)


def test_a_machine_that_is_slower_as_a_whole_changes_no_ratio() -> None:
    before = figure(300.0, 310.0, 290.0, reference=(100.0, 100.0, 100.0))
    now = figure(150.0, 155.0, 145.0, reference=(50.0, 50.0, 50.0))
    assert not is_changed(before, now)
    assert is_changed(figure(*before.values), figure(*now.values))


def test_a_ratio_is_said_with_both_of_its_medians() -> None:
    before = figure(300.0, 300.0, 300.0, reference=(100.0, 100.0, 100.0))
    now = figure(200.0, 200.0, 200.0, reference=(50.0, 50.0, 50.0))
    assert "better: servers: fast, W=1: done per CPU second: 200 1/s, was 300; 4.00 times the reference, was 3.00" in (
        said([before], [now])
    )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (figure(100, 101, 135), figure(130, 131, 132)),  # the rounds overlap
        (figure(100, 110, 120), figure(129, 139, 149)),  # less than three deviations
        (figure(100, 100, 100), figure(109, 109, 109)),  # less than a tenth
        (figure(100), figure(124)),  # less than a quarter, of one round
        (figure(100, 100, 100), figure(124)),
        (figure(100, noise=0.8), figure(160, noise=0.8)),  # less than the part knows to be noise
        (figure(0), figure(1)),
    ],
)
def test_less_than_the_noise_is_no_change(before: Figure, now: Figure) -> None:
    assert not is_changed(before, now)
    assert not is_changed(now, before)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (figure(100, 101, 135, 102, 103), figure(130, 131, 132, 133, 131)),  # one round of five does not count
        (figure(100, 110, 120), figure(131, 141, 151)),
        (figure(100, 100, 100), figure(112, 112, 112)),
        (figure(100), figure(126)),
        (figure(100, noise=0.8), figure(190, noise=0.8)),
        (figure(100, noise=0.05), figure(106, noise=0.05)),
    ],
)
def test_more_than_the_noise_is_a_change(before: Figure, now: Figure) -> None:
    assert is_changed(before, now)
    assert is_changed(now, before)


@pytest.mark.parametrize(
    ("better", "now", "verdict"),
    [("more", 50.0, "worse"), ("more", 200.0, "better"), ("less", 50.0, "better"), ("less", 200.0, "worse")],
)
def test_it_is_said_whether_it_is_better(better: str, now: float, verdict: str) -> None:
    before, after = (figure(value, better=better) for value in (100.0, now))  # type: ignore[arg-type]
    assert f"- {verdict}: servers" in said([before], [after])


def test_the_worst_is_named_first() -> None:
    before = [figure(100, case=case) for case in "abc"]
    told = said(before, [figure(200, case="a"), figure(70, case="b"), figure(40, case="c")])
    assert told.index("servers: c") < told.index("servers: b") < told.index("servers: a")


def test_a_run_is_compared_with_the_last_one() -> None:
    earlier = [kept(figure(value), run(day)) for day, value in ((25, 50.0), (26, 100.0))]
    now = kept(figure(101.0), NEW)
    assert last(earlier, now) == earlier[1]


def test_what_was_measured_beside_other_work_is_not_compared() -> None:
    quiet, busy = (kept(figure(value), OLD, others=others) for value, others in ((100.0, BUSY), (50.0, BUSY + 0.01)))
    assert last([quiet, busy], kept(figure(100), NEW)) == quiet
    of_render = kept(figure(50), NEW, part="render")
    assert report([quiet, kept(figure(100), OLD, part="render")], [kept(figure(40), NEW, others=0.64), of_render]) == (
        "servers is not compared: other programs took 64% of the CPUs meanwhile.\n\n"
        "Changed by more than their noise: 1 of 1 figures that were measured before.\n\n"
        "Since 2026-11-27 14:03 UTC, commit 0000000000:\n\n"
        "- worse: render: fast, W=1: done per CPU second: 50 1/s, was 100: 0.50 times; rounds 50, were 100"
    )


OTHER_MACHINE = Machine(processor="another processor", cpus=2, kernel=MACHINE.kernel)
MORE_CPUS = Machine(processor=MACHINE.processor, cpus=4, kernel=MACHINE.kernel)


@pytest.mark.parametrize(
    "other",
    [
        kept(figure(50), OLD, plan="quick"),
        kept(figure(50), OLD, part="render"),
        kept(figure(50, case="nchan, W=1"), OLD),
        kept(figure(50, reference=(10.0,)), OLD),
        kept(figure(50), run(27, OTHER_MACHINE)),
        kept(figure(50), run(27, MORE_CPUS)),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(other: object) -> None:
    now = kept(figure(100), NEW)
    assert report([other], [now]) == (  # type: ignore[list-item]
        "Nothing to compare with: nothing was measured before on this machine with the same plan."
    )


def test_what_else_was_another_is_said_beside_the_commit() -> None:
    old_kernel = Machine(processor=MACHINE.processor, cpus=2, kernel="Linux 6.1.0")
    before = kept(figure(50), run(27, old_kernel, {"uvicorn": "0.53.0", "node": "20.20.2", "redis": "7.0"}))
    now = kept(figure(100), run(28, versions={"uvicorn": "0.54.0", "node": "20.20.2"}))
    assert "; the kernel was Linux 6.1.0; uvicorn was 0.53.0:" in " ".join(report([before], [now]).split())
