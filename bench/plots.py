"""What docs/performance.md begins with, derived from the tables of the page itself: a few sentences and the plots.

    python -m bench.plots

writes them anew, as `make docs` and `make bench ARGS=--write` do. So they show what the page says, whenever that was
measured.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from bench.page import PAGE, bullets, cells, part_of, replaced
from bench.programs import HERE

_WIDTH, _MARGIN, _TOP, _ROW, _BAR, _BELOW = 800, 24, 120, 25, 15, 48
_GAP, _FOR_VALUE = 20, 48
_CHARACTER = 7.1  # of a label, in a wide font
_BASELINE = 11.5  # of text, from the top of its bar
_REFERENCE = "(reference)"
_KINDS = {
    "main": "as it is installed",
    "own": "ours otherwise",
    "other": "others",
    "floor": "nothing but recv and send, in C",
}
_OTHERS = ("uvicorn", "websockets", "Node", "nginx")


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
    Plot(
        "performance-deployed.svg",
        "deployed",
        "The whole way, as deployed",
        "Microseconds of CPU time of all processes, nginx included.",
        (
            Panel("one in flight", ("W=1: CPU us",), "less"),
            Panel("16 in flight", ("W=16: CPU us",), "less"),
            Panel("a handshake", ("handshake: CPU us",), "less"),
        ),
    ),
)


class Row(NamedTuple):
    """A server, and its figure for each panel as the table has it."""

    label: str
    kind: str
    is_reference: bool
    figures: list[str]


class Scale(NamedTuple):
    """Where the bars of a panel begin, and how many pixels are one."""

    x: int
    one: float

    def length(self, figure: str) -> float:
        return round(self.one * (_number(figure) or 0.0), 1)


def rows(page: str, plot: Plot) -> list[Row]:
    """The table of a plot; what is in bold there is in the strongest colour here."""
    header, *lines = cells(part_of(page, plot.part))
    columns = [_place(header, panel.column) for panel in plot.panels]
    return [
        Row(_label(line[0]), kind_of(line[0]), line[0].endswith(_REFERENCE), [line[column] for column in columns])
        for line in lines
    ]


def _place(header: list[str], column: tuple[str, ...]) -> int:
    place = 0
    for name in column:
        place = header.index(name, place)
    return place


def _label(title: str) -> str:
    """Without what the table says besides: how it is started, and what it is for."""
    return re.sub(r", `[^`]*`$|: .*| \(.*\)$|\*\*|`", "", title)


def kind_of(title: str) -> str:
    """What a server is, as the legend has it; by its title in the table."""
    if title.startswith("**"):
        return "main"
    label = _label(title)
    return "floor" if label == "floor" else "other" if label.startswith(_OTHERS) else "own"


def _number(figure: str) -> float | None:
    try:
        return float(figure)
    except ValueError:  # not measured
        return None


def drawn(page: str, plot: Plot) -> str:
    """The picture of a plot."""
    found = rows(page, plot)
    scales = _scales(plot, found)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("plot.svg").render(
        width=_WIDTH,
        height=_TOP + len(found) * _ROW + _BELOW,
        margin=_MARGIN,
        top=_TOP,
        bottom=_TOP + len(found) * _ROW,
        bar_height=_BAR,
        title=plot.title,
        subtitle=plot.subtitle,
        description=" ".join(_described(plot, found)),
        panels=[
            {"heading": panel.heading, "better": panel.better, "x": scale.x}
            for panel, scale in zip(plot.panels, scales, strict=True)
        ],
        labels=[{"text": row.label, "kind": row.kind, "y": _y(number) + _BASELINE} for number, row in enumerate(found)],
        bars=[bar for number, scale in enumerate(scales) for bar in _bars(number, scale, found)],
        references=[
            round(scale.x + scale.length(row.figures[number]), 1)
            for number, (panel, scale) in enumerate(zip(plot.panels, scales, strict=True))
            for row in found
            if row.is_reference and panel.column[-1] == "ratio"
        ],
        legend=list(_legend(found)),
    )


def _scales(plot: Plot, found: list[Row]) -> list[Scale]:
    """The labels take what they need; the panels share the rest, each with room for the value of its longest bar."""
    labels = round(max(len(row.label) for row in found) * _CHARACTER) + _GAP
    width = (_WIDTH - 2 * _MARGIN - labels - _GAP * (len(plot.panels) - 1)) // len(plot.panels)
    scales = []
    for number in range(len(plot.panels)):
        longest = max(_number(row.figures[number]) or 0.0 for row in found)
        one = (width - _FOR_VALUE) / longest if longest else 0.0
        scales.append(Scale(_MARGIN + labels + number * (width + _GAP), one))
    return scales


def _y(number: int) -> int:
    return _TOP + number * _ROW + (_ROW - _BAR) // 2


def _bars(panel: int, scale: Scale, found: list[Row]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(found):
        figure = row.figures[panel]
        length = scale.length(figure)
        yield {
            "kind": row.kind,
            "x": scale.x,
            "y": _y(number),
            "width": length,
            "value": "not measured" if _number(figure) is None else figure,
            "end": round(scale.x + length + 7, 1),
            "baseline": _y(number) + _BASELINE,
        }


def _legend(found: list[Row]) -> Iterator[dict[str, Any]]:
    x = _MARGIN
    for kind, text in _KINDS.items():
        if any(row.kind == kind for row in found):
            yield {"kind": kind, "x": x, "text": text}
            x += 36 + round(6.2 * len(text))


def _described(plot: Plot, found: list[Row]) -> Iterator[str]:
    """The same for who does not see it."""
    yield plot.subtitle
    for number, panel in enumerate(plot.panels):
        values = ", ".join(f"{row.label} {row.figures[number]}" for row in found)
        yield f"{panel.heading}, {panel.better} is better: {values}."


def summary(page: str) -> str:
    """What an operator takes home, and the plots of what was measured."""
    sentences = [_of_messages(page), *_of_the_whole_way(page), *_of_connections(page)]
    plots = [f"![{plot.title}: the figures are in the table below]({plot.file})" for plot in measured(page)]
    return "\n\n".join([bullets(sentences), *plots])


def measured(page: str) -> list[Plot]:
    """The plots whose part is on the page."""
    return [plot for plot in PLOTS if cells(part_of(page, plot.part))]


def _of_messages(page: str) -> str:
    figure = _figures(page, "servers", "**fast shell**")
    one, many = figure("W=1: messages/s"), figure("W=16: messages/s")
    return (
        f"Without nginx in front, one worker on one CPU passes on {_rounded(one)} messages a second if each waits for "
        f"the previous one, and {_rounded(many)} if 16 are in flight: with the same CPU time "
        f"{figure('W=1: messages/s', 'ratio'):.1f} and {figure('W=16: messages/s', 'ratio'):.1f} times as many as "
        "uvicorn as the hand-written guide sets it up."
    )


def _of_the_whole_way(page: str) -> Iterator[str]:
    if not cells(part_of(page, "deployed")):
        return
    ours = _figures(page, "deployed", "**as deployed, TLS**")
    others = _figures(page, "deployed", "uvicorn and nginx as the guide has them, TLS")
    one, many = "W=1: CPU us", "W=16: CPU us"
    yield (
        f"As deployed, through nginx and with TLS, a message takes {ours(one):.1f} us of CPU time in all, or "
        f"{ours(many):.1f} us if 16 are in flight: with the same CPU time {others(one) / ours(one):.1f} and "
        f"{others(many) / ours(many):.1f} times as many as uvicorn and nginx as the guide has them."
    )


def _of_connections(page: str) -> Iterator[str]:
    figure = _figures(page, "servers", "**fast shell**")
    kib, again = figure("KiB per idle connection"), figure("handshakes/s")
    messages = figure("handshakes/s", "CPU us") / figure("W=1: messages/s", "CPU us")
    yield (
        f"A client that is connected and silent takes {kib:.1f} KiB of the service's memory, so 10,000 take "
        f"{kib * 10_000 / 1024:.0f} MiB."
    )
    yield (
        f"A client that connects costs as much CPU time as {messages:.0f} messages; when all come back at once, one "
        f"worker takes {_rounded(again)} of them a second."
    )


def _figures(page: str, part: str, title: str) -> Callable[..., float]:
    """The figures of a row, by the name of their column as in `Panel`.

    Raises:
        ValueError: there is no such row.
    """
    header, *lines = cells(part_of(page, part))
    row = next((line for line in lines if line[0].startswith(title)), None)
    if row is None:
        raise ValueError(f"the table of {part} has no row {title}; measure it without --only")
    return lambda *column: float(row[_place(header, column)])


def _rounded(value: float) -> str:
    """To three digits: the others differ from run to run."""
    return f"{round(value, 3 - len(f'{value:.0f}')):,.0f}"


def derived(page: str) -> dict[str, str]:
    """The page and its pictures, by their names in docs/, as the tables of the page have them."""
    return {
        PAGE.name: replaced(page, "summary", summary(page)),
        **{plot.file: drawn(page, plot) for plot in measured(page)},
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
