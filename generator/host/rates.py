"""What happened between two answers of `/stats`: rates per second, and delivery times. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

Stats = Mapping[str, Any]
# Counts that fall when the service is restarted, and never otherwise: a worker that is replaced leaves its own behind.
_COUNTS = ("messages_received", "messages_routed")


class WorkerRates(Struct, frozen=True):
    """Of one worker, per second; `cpu` is a share of one core. None where it was not there before."""

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

    earlier = {worker["pid"]: worker for worker in before["workers"]}
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
        workers={
            worker["pid"]: WorkerRates(
                per_second(worker["messages_received"], earlier[worker["pid"]]["messages_received"]),
                per_second(worker["messages_routed"], earlier[worker["pid"]]["messages_routed"]),
                per_second(worker["cpu_seconds"], earlier[worker["pid"]]["cpu_seconds"]),
            )
            if worker["pid"] in earlier
            else WorkerRates()
            for worker in now["workers"]
        },
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
