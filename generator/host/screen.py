"""What `wsbundle top` shows, drawn with rich, which only this module and its caller load."""

from collections.abc import Sequence
from itertools import compress

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from generator.host.quantities import duration, number, size, time
from generator.host.rates import SORTS, Rates, Stats, WorkerRates

_NEARLY, _FULL = 0.8, 0.95
_COLUMNS = ("host", "pid", "up", "connections", "in/s", "out/s", "waiting", "late", "CPU", "memory")
# In this order, where a terminal is narrow.
_EXPENDABLE = ("host", "memory", "late", "waiting", "up", "pid", "out/s")
_ANY_WIDTH = 10_000


def screen(title: str, stats: Stats, rates: Rates | None, sort: str, trouble: str = "") -> RenderableType:
    """One look at the service; `trouble` is why it does not answer now."""
    head, summary = _head(title, stats, trouble), _summary(stats, rates)
    return Group(head, "", summary, "", _Workers(stats, rates, sort))


def keys(sort: str) -> Text:
    """The line that says what can be pressed."""
    return Text.assemble(("q", "bold"), " quit   ", ("s", "bold"), f" sort by {sort}", style="dim")


def _head(title: str, stats: Stats, trouble: str) -> Text:
    service = stats["service"]
    state, style = "running", "green"
    if trouble:
        state, style = trouble, "bold red"
    elif service["draining"]:
        state, style = "stopping", "yellow"
    elif service["workers_counted"] < service["workers"]:
        state, style = f"{service['workers'] - service['workers_counted']} workers do not answer", "bold red"
    about = (
        f"wsbundle {stats['version']}, {stats['server']}, up {duration(stats['time'] - service['start_time_seconds'])}"
    )
    return Text.assemble((title, "bold"), "  ", (f"● {state}", style), "  ", (about, "dim"))


def _summary(stats: Stats, rates: Rates | None) -> Table:
    service = stats["service"]
    limit = service["limit"]["connections"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row(
        "connections", _against(service["connections"], limit, f"+{number(rates.accepted)}/s" if rates else "")
    )
    if rates is not None:
        grid.add_row(
            "messages",
            f"in [b]{number(rates.received)}[/]/s   out [b]{number(rates.routed)}[/]/s   "
            f"dropped {number(rates.dropped)}/s   {size(rates.bytes_in)}/s in   {size(rates.bytes_out)}/s out",
        )
        grid.add_row(
            "delivery",
            f"p50 [b]{time(rates.p50)}[/]   p99 [b]{time(rates.p99)}[/]   "
            f"waiting {size(service['queue_bytes'])}   loop late by {time(service['loop_lag_seconds'])}",
        )
    for name, figure, by_label in (
        ("refused", "handshakes_refused", rates.refused if rates else {}),
        ("closed", "connections_closed", rates.closed if rates else {}),
    ):
        grid.add_row(name, _by_reason(service[figure], stats["words"][figure], by_label))
    if "engine_up" in service:
        hosts = f"{service['engine_hosts']} other host{'s' if service['engine_hosts'] != 1 else ''}"
        state = "up" if service["engine_up"] else "[bold red]away[/]"
        grid.add_row("engine", f"{state}, {hosts} reached, beat {time(service['engine_beat_seconds'])}")
    return grid


def _against(connections: int, limit: int, more: str) -> Table:
    share = connections / limit
    style = "red" if share >= _FULL else "yellow" if share >= _NEARLY else "green"
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=limit, completed=min(connections, limit), width=30, complete_style=style, finished_style=style
    )
    row.add_row(bar, f"[b]{connections:,}[/] of {limit:,}", Text(more, style="dim"))
    return row


def _by_reason(counts: Stats, words: Stats, by_label: dict[str, float]) -> str:
    """The reasons that happened, the most frequent first."""
    happened = sorted(((count, label) for label, count in counts.items() if count), reverse=True)
    shown = [
        f"{label} {words[label]} [b]{count:,}[/]"
        + (f" [yellow](+{number(by_label[label])}/s)[/]" if by_label.get(label) else "")
        for count, label in happened
    ]
    return "   ".join(shown) or "[dim]none[/]"


class _Workers:
    """A row for each worker, with as many columns as fit: a number that is cut off is another number."""

    def __init__(self, stats: Stats, rates: Rates | None, sort: str) -> None:
        self._of = stats, rates, sort

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left_out: list[str] = []
        for name in ("", *_EXPENDABLE):
            left_out.append(name)
            table = _workers(*self._of, left_out)
            if Measurement.get(console, options.update(max_width=_ANY_WIDTH), table).maximum <= options.max_width:
                break
        yield table


def _workers(stats: Stats, rates: Rates | None, sort: str, left_out: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    shown = [name not in left_out for name in _COLUMNS]
    for name in compress(_COLUMNS, shown):
        table.add_column(name, justify="left" if name == "host" else "right", no_wrap=True)
    workers = [(worker, rates.workers[worker["pid"]] if rates else WorkerRates()) for worker in stats["workers"]]
    for worker, rate in sorted(workers, key=SORTS[sort], reverse=True):
        row = (
            worker["host"],
            str(worker["pid"]),
            duration(stats["time"] - worker["start_time_seconds"]),
            f"{worker['connections']:,}",
            number(rate.received),
            number(rate.routed),
            size(worker["queue_bytes"]),
            time(worker["loop_lag_seconds"]),
            "-" if rate.cpu is None else f"{rate.cpu:.0%}",
            size(worker["memory_bytes"]),
        )
        table.add_row(*compress(row, shown))
    return table
