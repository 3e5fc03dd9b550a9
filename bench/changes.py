"""What has changed since the last run that can be compared: figures that differ by more than their noise.

A figure counts as changed if all of this is so, by its ratios to the reference where it has one; the reference itself
has none but 1:

- the rounds of both runs lie apart, without the most extreme fifth at each end;
- the medians differ by more than three times the median absolute deviation of the rounds of either run;
- they differ by more than the part says is noise; if it says nothing, by more than a tenth, or by more than a quarter
  where a run has less than three rounds, which say little of their noise.

What was measured while other programs took more than a quarter of the CPUs is not compared.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.figures import Figure
from bench.page import bullets, paragraph
from bench.results import Kept, Run

LEAST, LEAST_OF_FEW_ROUNDS = 0.10, 0.25
BUSY = 0.25
_FEW_ROUNDS = 3
_DEVIATIONS = 3.0


class Change(NamedTuple):
    """A figure as it was and as it is."""

    before: Kept
    now: Kept

    @property
    def factor(self) -> float:
        return statistics.median(_counted(self.now.figure)) / statistics.median(_counted(self.before.figure))

    @property
    def is_worse(self) -> bool:
        return (self.factor < 1) == (self.now.figure.better == "more")


def report(earlier: Sequence[Kept], now: Sequence[Kept]) -> str:
    """What has changed, in words: by the runs that the figures are compared with, the worst first."""
    busy = {each.part: each.others for each in now if each.others > BUSY}
    pairs = [
        Change(before, each) for each in now if each.part not in busy and (before := last(earlier, each)) is not None
    ]
    by_run: dict[str, list[Change]] = {}
    for pair in filter(is_changed, pairs):
        by_run.setdefault(_since(pair), []).append(pair)
    named = sum(map(len, by_run.values()))
    said = [
        f"{part} is not compared: other programs took {others:.0%} of the CPUs meanwhile."
        for part, others in busy.items()
    ]
    if pairs:
        said.append(f"Changed by more than their noise: {named} of {len(pairs)} figures that were measured before.")
    elif not busy:
        said.append("Nothing to compare with: nothing was measured before on this machine with the same plan.")
    paragraphs = [paragraph(each) for each in said]
    for since, changes in by_run.items():
        ordered = sorted(changes, key=lambda change: (not change.is_worse, -abs(math.log(change.factor))))
        paragraphs += [paragraph(since), bullets(list(map(sentence, ordered)))]
    return "\n\n".join(paragraphs)


def last(earlier: Sequence[Kept], now: Kept) -> Kept | None:
    """The last line with the same figure, measured by the same plan on the same machine; its kernel may be another."""
    return next((each for each in reversed(earlier) if each.others <= BUSY and _key(each) == _key(now)), None)


def _key(kept: Kept) -> tuple[object, ...]:
    figure, machine = kept.figure, kept.run.machine
    # One without the reference, whose server failed or was not asked for, is not compared with one that has it.
    comparable = (figure.case, figure.name, figure.unit, bool(figure.reference))
    return kept.part, kept.plan, comparable, machine.processor, machine.cpus


def is_changed(change: Change) -> bool:
    """Whether two runs differ by more than their noise."""
    before, now = change.before.figure, change.now.figure
    olds, news = _counted(before), _counted(now)
    old, new = statistics.median(olds), statistics.median(news)
    if min(old, new) <= 0:  # no ratio
        return False
    least = LEAST if min(len(olds), len(news)) >= _FEW_ROUNDS else LEAST_OF_FEW_ROUNDS
    least = least if now.noise is None else now.noise
    lie_apart = _inner(olds)[-1] < _inner(news)[0] or _inner(news)[-1] < _inner(olds)[0]
    return (
        lie_apart
        and abs(new - old) > _DEVIATIONS * max(_deviation(olds), _deviation(news))
        and max(new / old, old / new) > 1 + least
    )


def _counted(figure: Figure) -> Sequence[float]:
    return figure.ratios if figure.reference else figure.values


def _inner(values: Iterable[float]) -> list[float]:
    ordered = sorted(values)
    left_out = len(ordered) // 5
    return ordered[left_out : len(ordered) - left_out]


def _deviation(values: Sequence[float]) -> float:
    median = statistics.median(values)
    return statistics.median(abs(value - median) for value in values)


def sentence(change: Change) -> str:
    """Both medians, their ratio, and the rounds that lie apart."""
    before, now = change.before.figure, change.now.figure
    verdict = "worse" if change.is_worse else "better"
    medians = f"{now.median:.4g} {now.unit}, was {before.median:.4g}"
    if now.reference:
        medians += f"; {now.ratio:.2f} times the reference, was {before.ratio:.2f}"
    rounds = f"rounds {_range(now)}, were {_range(before)}"
    return f"{verdict}: {change.now.part}: {now.case}: {now.name}: {medians}: {change.factor:.2f} times; {rounds}"


def _range(figure: Figure) -> str:
    lowest, highest = min(_counted(figure)), max(_counted(figure))
    return f"{lowest:.4g}" if len(figure.values) == 1 else f"{lowest:.4g} to {highest:.4g}"


def _since(pair: Change) -> str:
    """The run before, and in what it was another one besides the commit."""
    before, now = pair.before.run, pair.now.run
    state = "" if before.is_clean else " with changes"
    others = "".join(f"; {name} was {old}" for name, old in _others(before, now))
    return f"Since {before.time:%Y-%m-%d %H:%M} UTC, commit {before.commit[:10]}{state}{others}:"


def _others(before: Run, now: Run) -> Iterator[tuple[str, str]]:
    if before.machine.kernel != now.machine.kernel:
        yield "the kernel", before.machine.kernel
    for name, version in before.versions.items():
        if now.versions.get(name, version) != version:
            yield name, version
