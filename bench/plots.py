"""What docs/performance.md begins with, derived from the tables of the page itself: three sentences and the plots.

    python -m bench.plots

writes them anew, as `make docs` and `make bench ARGS=--write` do. So they show what the page says, whenever that was
measured.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from bench.page import PAGE, bullets, cells, part_of, replaced
from bench.programs import HERE

_WIDTH, _MARGIN, _TOP, _ROW, _BAR, _BELOW = 800, 24, 120, 25, 15, 48
_LABELS, _GAP, _FOR_VALUE = 266, 20, 48
_BASELINE = 11.5  # of text, from the top of its bar
_REFERENCE = "(reference)"
_KINDS = {
    "main": "the fast shell",
    "own": "two workers, and our other servers",
    "other": "others",
    "floor": "nothing but recv and send, in C",
}


class Panel(NamedTuple):
    """A column of a table as bars.

    `column` is its name, after those of columns before it where a table has several of that name.
    """

    heading: str
    column: tuple[str, ...]
    better: Literal["more", "less"]


class Plot(NamedTuple):
    """A picture beside the page, of the table of one part."""

    file: str
    part: str
    title: str
    subtitle: str
    panels: tuple[Panel, ...]


_TO_REFERENCE = "per second of the server's CPU time, as a multiple of uvicorn as the guide has it (dotted line)."
PLOTS = (
    Plot(
        "performance-messages.svg",
        "servers",
        "Messages for the same CPU time",
        f"Messages {_TO_REFERENCE}",
        (
            Panel("one in flight (W=1)", ("W=1: messages/s", "ratio"), "more"),
            Panel("16 in flight (W=16)", ("W=16: messages/s", "ratio"), "more"),
        ),
    ),
    Plot(
        "performance-connections.svg",
        "servers",
        "Handshakes for the same CPU time, and memory",
        f"Handshakes {_TO_REFERENCE}",
        (
            Panel("handshakes", ("handshakes/s", "ratio"), "more"),
            Panel("KiB per idle connection", ("KiB per idle connection",), "less"),
        ),
    ),
)


class Row(NamedTuple):
    """A server, and its figure for each panel as the table has it."""

    label: str
    kind: str
    is_reference: bool
    figures: list[str]

    @property
    def weight(self) -> str:
        return "strong" if self.kind == "main" else "plain"


def rows(page: str, plot: Plot) -> list[Row]:
    """The table of a plot; ours are those before the reference, and the one in bold is the one to look at."""
    header, *lines = cells(part_of(page, plot.part))
    columns = [_place(header, panel.column) for panel in plot.panels]
    found, kind = [], "own"
    for line in lines:
        is_reference = line[0].endswith(_REFERENCE)
        kind = "other" if is_reference else kind
        label = _label(line[0])
        shown = "main" if line[0].startswith("**") else "floor" if label == "floor" else kind
        found.append(Row(label, shown, is_reference, [line[column] for column in columns]))
    return found


def _place(header: list[str], column: tuple[str, ...]) -> int:
    place = 0
    for name in column:
        place = header.index(name, place)
    return place


def _label(title: str) -> str:
    """Without what the table says besides: how it is started, and what it is for."""
    return re.sub(r", `[^`]*`$|: .*| \(.*\)$|\*\*|`", "", title)


def drawn(page: str, plot: Plot) -> str:
    """The picture of a plot."""
    found = rows(page, plot)
    height = _TOP + len(found) * _ROW + _BELOW
    panels = [
        {"heading": panel.heading, "better": panel.better, "x": x}
        for panel, x in zip(plot.panels, _places(plot), strict=True)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("plot.svg").render(
        width=_WIDTH,
        height=height,
        margin=_MARGIN,
        top=_TOP,
        bottom=height - _BELOW,
        bar_height=_BAR,
        title=plot.title,
        subtitle=plot.subtitle,
        description=" ".join(_described(plot, found)),
        panels=panels,
        labels=[
            {"text": row.label, "weight": row.weight, "y": _y(number) + _BASELINE} for number, row in enumerate(found)
        ],
        bars=list(_bars(plot, found)),
        references=list(_references(plot, found)),
        legend=list(_legend()),
    )


def _panel_width(plot: Plot) -> int:
    return (_WIDTH - 2 * _MARGIN - _LABELS - _GAP * (len(plot.panels) - 1)) // len(plot.panels)


def _places(plot: Plot) -> list[int]:
    return [_MARGIN + _LABELS + number * (_panel_width(plot) + _GAP) for number in range(len(plot.panels))]


def _y(number: int) -> int:
    return _TOP + number * _ROW + (_ROW - _BAR) // 2


def _length(figure: str) -> float | None:
    try:
        return float(figure)
    except ValueError:  # not measured
        return None


def _bars(plot: Plot, found: list[Row]) -> Iterator[dict[str, Any]]:
    for panel, x in enumerate(_places(plot)):
        scale = _scale(plot, found, panel)
        for number, row in enumerate(found):
            length = _length(row.figures[panel])
            value = "not measured" if length is None else row.figures[panel]
            width = round(scale * (length or 0), 1)
            bar = {"kind": row.kind, "x": x, "y": _y(number), "width": width}
            yield {
                **bar,
                "value": value,
                "weight": row.weight,
                "end": x + width + 7,
                "baseline": _y(number) + _BASELINE,
            }


def _scale(plot: Plot, found: list[Row], panel: int) -> float:
    """Pixels for one: the longest bar leaves room for its value."""
    longest = max((_length(row.figures[panel]) or 0 for row in found), default=0)
    return (_panel_width(plot) - _FOR_VALUE) / longest if longest else 0.0


def _references(plot: Plot, found: list[Row]) -> Iterator[float]:
    """Where the bar of the reference ends, in panels of ratios to it."""
    for number, (panel, x) in enumerate(zip(plot.panels, _places(plot), strict=True)):
        for row in found:
            if row.is_reference and panel.column[-1] == "ratio":
                yield round(x + _scale(plot, found, number) * (_length(row.figures[number]) or 0), 1)


def _legend() -> Iterator[dict[str, Any]]:
    x = _MARGIN
    for kind, text in _KINDS.items():
        yield {"kind": kind, "x": x, "text": text}
        x += 36 + round(6.2 * len(text))


def _described(plot: Plot, found: list[Row]) -> Iterator[str]:
    """The same for who does not see it."""
    yield plot.subtitle
    for number, panel in enumerate(plot.panels):
        values = ", ".join(f"{row.label} {row.figures[number]}" for row in found)
        yield f"{panel.heading}, {panel.better} is better: {values}."


def summary(page: str) -> str:
    """What an operator takes home from the row in bold."""
    header, *lines = cells(part_of(page, "servers"))
    (best,) = (line for line in lines if line[0].startswith("**"))

    def figure(*column: str) -> float:
        return float(best[_place(header, column)])

    one, many, again = "W=1: messages/s", "W=16: messages/s", "handshakes/s"
    kib, handshake_us = figure("KiB per idle connection"), figure(again, "CPU us")
    return bullets(
        [
            f"Without nginx in front, one worker on one CPU passes on {_rounded(figure(one))} messages a second if "
            f"each waits for the previous one, and {_rounded(figure(many))} if 16 are in flight: with the same CPU "
            f"time {figure(one, 'ratio'):.1f} and {figure(many, 'ratio'):.1f} times as many as uvicorn as the "
            "hand-written guide sets it up.",
            f"A client that is connected and silent takes {kib:.1f} KiB of the service's memory, so 10,000 take "
            f"{kib * 10_000 / 1024:.0f} MiB.",
            f"A client that connects costs as much CPU time as {handshake_us / figure(one, 'CPU us'):.0f} messages; "
            f"when all come back at once, one worker takes {_rounded(figure(again))} of them a second.",
        ]
    )


def _rounded(value: float) -> str:
    """To three digits: the others differ from run to run."""
    return f"{round(value, 3 - len(f'{value:.0f}')):,.0f}"


def derived(page: str) -> dict[str, str]:
    """The page and its pictures, by their names in docs/, as the tables of the page have them."""
    return {
        PAGE.name: replaced(page, "summary", summary(page)),
        **{plot.file: drawn(page, plot) for plot in PLOTS},
    }


def main(page: Path) -> None:
    """Write what is stale, of this page and the plots beside it."""
    for name, text in derived(page.read_text(encoding="utf-8")).items():
        file = page.with_name(name)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")


if __name__ == "__main__":
    main(PAGE)
