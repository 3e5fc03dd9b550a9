"""What `wsbundle top` shows, drawn with rich, which only this module and its caller load."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from generator.host.quantities import duration, number, size, time
from generator.host.rates import SORTS, Rates, Stats, WorkerRates

_NEARLY, _FULL = 0.8, 0.95
# Those of workers and of hosts, behind what tells them apart.
_COLUMNS = ("connections", "in/s", "out/s", "waiting", "late", "CPU", "memory")
# In this order, where a terminal is narrow.
_WORKER_EXPENDABLE = ("host", "memory", "late", "waiting", "up", "pid", "out/s")
_HOST_EXPENDABLE = ("memory", "late", "waiting", "workers", "CPU", "out/s", "in/s")
_ANY_WIDTH = 10_000


def screen(title: str, stats: Stats, rates: Rates | None, sort: str, trouble: str = "") -> RenderableType:
    """One look at the service; `trouble` is why it does not answer now."""
    head, summary = _head(title, stats, trouble), _summary(stats, rates)
    workers = _Fitting(partial(_workers, stats, rates, sort), _WORKER_EXPENDABLE)
    hosts = Group("", _Fitting(partial(_hosts, stats, rates), _HOST_EXPENDABLE)) if "hosts" in stats else Group()
    return Group(head, "", summary, "", workers, hosts)


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
        silent = service["workers"] - service["workers_counted"]
        state, style = f"{silent} of {service['workers']} workers do not answer", "bold red"
    elif away := [host["host"] for host in stats.get("hosts", ()) if not host["up"]]:
        state, style = f"{', '.join(away)} away", "bold red"
    elif stale := [host["host"] for host in stats.get("hosts", ()) if "stale_since" in host]:
        state, style = f"a worker of {', '.join(stale)} does not answer", "bold red"
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
    if "connections_taken_over" in service:  # an earlier release does not count them
        grid.add_row("restarts", _kept(service, stats["words"]["connections_not_taken_over"]))
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


def _kept(service: Stats, words: Stats) -> str:
    """What came of the connections that another process had served: before a restart, or a worker before a reload."""
    kept, ended = service["connections_taken_over"], service["connections_not_taken_over"]
    whole = kept + sum(ended.values())
    if not whole:
        return "[dim]no connections from an earlier process[/]"
    why = "".join(f"   {words[reason]} [b]{count:,}[/]" for reason, count in ended.items() if count)
    return f"kept [b]{kept:,}[/] of {whole:,} connections{why}"


def _by_reason(counts: Stats, words: Stats, by_label: dict[str, float]) -> str:
    """The reasons that happened, the most frequent first."""
    happened = sorted(((count, label) for label, count in counts.items() if count), reverse=True)
    shown = [
        f"{label} {words[label]} [b]{count:,}[/]"
        + (f" [yellow](+{number(by_label[label])}/s)[/]" if by_label.get(label) else "")
        for count, label in happened
    ]
    return "   ".join(shown) or "[dim]none[/]"


class _Fitting:
    """A table with as many columns as fit: a number that is cut off is another number."""

    def __init__(self, table: Callable[[Sequence[str]], Table], expendable: Sequence[str]) -> None:
        self._table = table
        self._expendable = expendable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left_out: list[str] = []
        for name in ("", *self._expendable):
            left_out.append(name)
            table = self._table(left_out)
            if Measurement.get(console, options.update(max_width=_ANY_WIDTH), table).maximum <= options.max_width:
                break
        yield table


def _workers(stats: Stats, rates: Rates | None, sort: str, left_out: Sequence[str]) -> Table:
    workers = [(worker, rates.workers[worker["pid"]] if rates else WorkerRates()) for worker in stats["workers"]]
    rows = []
    for worker, rate in sorted(workers, key=SORTS[sort], reverse=True):
        up = _silence(stats, worker) or duration(stats["time"] - worker["start_time_seconds"])
        rows.append((worker["host"], str(worker["pid"]), up, *_cells(worker, rate)))
    return _table(("host", "pid", "up", *_COLUMNS), rows, left_out)


def _hosts(stats: Stats, rates: Rates | None, left_out: Sequence[str]) -> Table:
    """A row for each host, this one first; one that is away has a row for ten minutes."""
    rows = []
    for host in stats["hosts"]:
        rate = rates.hosts[host["id"]] if rates else WorkerRates()
        state = f"since {duration(stats['time'] - host['since'])}"
        state = _silence(stats, host) or state if host["up"] else f"[bold red]away {state}[/]"
        rows.append((host["host"], str(host["workers"]), state, *_cells(host, rate)))
    return _table(("host", "workers", "reached", *_COLUMNS), rows, left_out)


def _silence(stats: Stats, row: Stats) -> str:
    """That a worker, or one of a host, does not answer, whose figures are therefore old; nothing where it does."""
    if "stale_since" not in row:
        return ""
    return f"[bold red]no answer for {duration(stats['time'] - row['stale_since'])}[/]"


def _cells(row: Stats, rate: WorkerRates) -> tuple[str, ...]:
    """What a worker and a host have in common; dashes for one that has not said how it is."""
    connections = f"{row['connections']:,}"
    if "queue_bytes" not in row:
        return (connections, *"------")
    return (
        connections,
        number(rate.received),
        number(rate.routed),
        size(row["queue_bytes"]),
        time(row["loop_lag_seconds"]),
        "-" if rate.cpu is None else f"{rate.cpu:.0%}",
        size(row["memory_bytes"]),
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left_out: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    shown = [name not in left_out for name in columns]
    for name in compress(columns, shown):
        is_name = name == "host"  # which may be cut off where a number may not
        table.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name, overflow="ellipsis")
    for row in rows:
        table.add_row(*compress(row, shown))
    return table
