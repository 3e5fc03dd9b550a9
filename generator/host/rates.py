"""What happened between two answers of `/stats`: rates per second, and delivery times. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

Stats = Mapping[str, Any]
# Counts that fall only when the service is restarted: another worker goes on with those of one that goes.
_COUNTS = ("messages_received", "messages_routed")


class WorkerRates(Struct, frozen=True):
    """Of one worker, or those of a host, per second; `cpu` is a share of one core. None where that is not known."""

    received: float | None = None
    routed: float | None = None
    cpu: float | None = None


class Rates(Struct, frozen=True):
    """Per second; delivery times in seconds, None where no delivery was timed."""

    accepted: float
    received: float
    routed: float
    dropped: float
    bytes_in: float
    bytes_out: float
    refused: dict[str, float]
    closed: dict[str, float]
    p50: float | None
    p99: float | None
    workers: dict[int, WorkerRates]
    hosts: dict[str, WorkerRates]
    """By what the engine knows them by; nothing without one."""


SORTS: dict[str, Callable[[tuple[Stats, WorkerRates]], float]] = {
    "connections": lambda worker: worker[0]["connections"],
    "in": lambda worker: worker[1].received or 0.0,
    "out": lambda worker: worker[1].routed or 0.0,
    "cpu": lambda worker: worker[1].cpu or 0.0,
    "memory": lambda worker: worker[0]["memory_bytes"],
}
"""By what workers can be ordered, the largest first."""


def rates(now: Stats, before: Stats) -> Rates | None:
    """None when the service was restarted in between."""
    seconds: float = now["time"] - before["time"]
    s, o = now["service"], before["service"]
    if seconds <= 0 or any(s[name] < o[name] for name in _COUNTS):
        return None

    def per_second(count: float, earlier: float) -> float:
        return max(0.0, count - earlier) / seconds

    def by_label(name: str) -> dict[str, float]:
        return {label: per_second(count, o[name].get(label, 0)) for label, count in s[name].items()}

    def of_each(rows: str, key: str) -> dict[Any, WorkerRates]:
        earlier = {row[key]: row for row in before.get(rows, ())}
        return {row[key]: one(row, earlier.get(row[key], {})) for row in now.get(rows, ())}

    def one(row: Stats, earlier: Stats) -> WorkerRates:
        counts = (*_COUNTS, "cpu_seconds")
        if not row.keys() & earlier.keys() >= {*counts} or "stale_since" in row:
            return WorkerRates()
        return WorkerRates(*(per_second(row[name], earlier[name]) for name in counts))

    return Rates(
        accepted=sum(by_label("connections_accepted").values()),
        received=per_second(s["messages_received"], o["messages_received"]),
        routed=per_second(s["messages_routed"], o["messages_routed"]),
        dropped=sum(by_label("messages_dropped").values()),
        bytes_in=by_label("bytes")["in"],
        bytes_out=by_label("bytes")["out"],
        refused=by_label("handshakes_refused"),
        closed=by_label("connections_closed"),
        p50=quantile(0.5, s["delivery_seconds"], o["delivery_seconds"]),
        p99=quantile(0.99, s["delivery_seconds"], o["delivery_seconds"]),
        workers=of_each("workers", "pid"),
        hosts=of_each("hosts", "id"),
    )


def quantile(share: float, now: Stats, before: Stats) -> float | None:
    """Of a histogram, as Prometheus does it: within a bucket, all are taken to be spread evenly."""
    counts: dict[str, int] = {bound: count - before["within"].get(bound, 0) for bound, count in now["within"].items()}
    rank, lower = share * sum(counts.values()), 0.0
    if rank <= 0:
        return None
    for bound, count in counts.items():
        upper = lower if bound == "+Inf" else float(bound)
        if rank <= count:
            return lower + (upper - lower) * rank / count
        rank, lower = rank - count, upper
    return lower
