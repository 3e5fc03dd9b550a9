"""Lines of the file of results, as a run would add them."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from bench.figures import Figure
from bench.machine import Machine
from bench.results import FORMAT, Kept, Run

MACHINE = Machine(processor="a processor", cpus=2, kernel="Linux 6.18.44")


def run(day: int, machine: Machine = MACHINE, versions: Mapping[str, str] = {"uvicorn": "0.54.0"}) -> Run:
    time = datetime.datetime(2026, 11, day, 14, 3, tzinfo=datetime.timezone.utc)
    return Run(time=time, commit=f"{day:040}", is_clean=True, machine=machine, versions=dict(versions))


def figure(
    *values: float,
    reference: Sequence[float] = (),
    better: Literal["more", "less"] = "more",
    noise: float | None = None,
    case: str = "fast, W=1",
) -> Figure:
    return Figure(
        case=case,
        name="done per CPU second",
        unit="1/s",
        better=better,
        values=values,
        reference=tuple(reference),
        noise=noise,
    )


def kept(figure: Figure, run: Run, plan: str = "full", part: str = "servers", others: float = 0.05) -> Kept:
    return Kept(format=FORMAT, run=run, part=part, plan=plan, others=others, figure=figure)
