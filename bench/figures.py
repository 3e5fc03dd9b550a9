"""What a part of the benchmark has measured: figures, of which its tables are made and which are kept."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One figure of a case, in the order of the rounds.

    `reference` has the same of what the case is compared with, round by round: whatever else the machine does falls on
    both, so a ratio is steadier than the figure itself. `noise` is a share by which two runs may differ for no reason,
    where the part knows it and its rounds do not show it.
    """

    case: str
    name: str
    unit: str
    better: Literal["more", "less"]
    values: tuple[float, ...]
    reference: tuple[float, ...] = ()
    noise: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float:
        """To the reference in the same round; the median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(value / other for value, other in zip(self.values, self.reference, strict=True))


class Outcome(NamedTuple):
    """Of a part. `plan` says how thoroughly it was measured: figures of another plan are not compared with these."""

    text: str
    figures: Sequence[Figure]
    plan: str


def at_least(value: float, goal: float) -> str:
    """The verdict on what should be no less."""
    return "below its goal" if value < goal else "reached"


def at_most(value: float, goal: float) -> str:
    """The verdict on what should be no more."""
    return "above its goal" if value > goal else "reached"


def of(figures: Iterable[Figure]) -> dict[tuple[str, str], Figure]:
    """The figures by case and name."""
    return {(figure.case, figure.name): figure for figure in figures}
