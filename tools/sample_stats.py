"""Ten minutes of a service that never was, for the pictures: the answers of `/stats`, one for each second."""

import math
import random
from typing import Any

BEGAN_AT = 1_764_331_200.0  # 2025-11-28 12:00 UTC
SECONDS = 600
# The seconds in which it was restarted, and did not answer.
_RESTART = (150, 151)
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_WORDS = {
    "handshakes_refused": {"401": "no valid token", "403": "foreign page", "429": "too many of one address"},
    "connections_closed": {
        "1011": "internal error or keepalive ping timeout",
        "4009": "address in use",
        "4101": "slow consumer",
    },
    "connections_not_taken_over": {"gone": "its client had gone"},
}
_LIMITS = {"connections": 1000, "connections_per_address": 20, "message_size": 65536, "queue": 1048576}


class _Worker:
    """What one of the two has counted."""

    def __init__(self, pid: int, share: float, since: float, cpu_s: float) -> None:
        self.pid = pid
        self.share = share
        self.since = since
        self.counts = dict.fromkeys(("messages_received", "messages_routed", "in", "out"), 0)
        self.cpu_s = cpu_s * share
        self.memory = 46_000_000


def answers() -> list[dict[str, Any]]:
    """A quiet morning, a restart, a crowd that comes, and a client or two that read too slowly."""
    chance, began_at = random.Random(8), BEGAN_AT - 273_600
    workers = (_Worker(2114, 0.52, began_at, 900.0), _Worker(2115, 0.48, began_at, 900.0))
    refused, closed = dict.fromkeys(_WORDS["handshakes_refused"], 0), dict.fromkeys(_WORDS["connections_closed"], 0)
    within, took, accepted, dropped = {**{str(each): 0 for each in _BOUNDS}, "+Inf": 0}, 0.0, 61_000, 310
    refused["403"], closed["1011"] = 27, 41
    told: list[dict[str, Any]] = []
    taken_over = 0
    for second in range(SECONDS):
        if second in _RESTART:
            taken_over, accepted, dropped, took = told[-1]["service"]["connections"], 0, 0, 0.0
            refused, closed, within = (dict.fromkeys(each, 0) for each in (refused, closed, within))
            began_at = BEGAN_AT + second
            workers = (_Worker(5381, 0.52, began_at, 1.0), _Worker(5382, 0.48, began_at, 1.0))
            continue
        crowd = 1 / (1 + math.exp((300 - second) / 30))
        connections = round(420 + 15 * math.sin(second / 40) + 260 * crowd + chance.gauss(0, 2))
        busy = 0.55 + 0.7 * crowd + 0.08 * math.sin(second / 11) + chance.gauss(0, 0.03)
        is_rough = 318 < second < 352
        if is_rough:
            refused["429"] += chance.randrange(3)
            closed["4101"] += chance.random() < 0.25
        refused["403"] += chance.random() < 0.03
        closed["1011"] += chance.random() < 0.04
        accepted += chance.randrange(3) + (4 if 270 < second < 330 else 0)
        dropped += chance.randrange(4)
        for _ in range(20):
            seconds = chance.lognormvariate(-7.9 + (1.6 if is_rough else 0.25 * crowd), 0.7)
            within[next((str(bound) for bound in _BOUNDS if seconds <= bound), "+Inf")] += 1
            took += seconds
        rows: list[dict[str, Any]] = []
        for worker in workers:
            messages = round(1450 * busy * worker.share + chance.gauss(0, 20))
            worker.counts["messages_received"] += messages
            worker.counts["messages_routed"] += round(messages * 1.6)
            worker.counts["in"] += messages * 212
            worker.counts["out"] += round(messages * 1.6) * 231
            worker.cpu_s += 0.34 * busy * worker.share * 2 + chance.gauss(0, 0.01)
            rows.append(
                {
                    "host": "ws.example.com",
                    "pid": worker.pid,
                    "version": "0.1.0",
                    "connections": round(connections * worker.share),
                    "messages_received": worker.counts["messages_received"],
                    "messages_routed": worker.counts["messages_routed"],
                    "queue_bytes": round(380_000 * chance.random()) if is_rough else 0,
                    "loop_lag_seconds": (0.018 if is_rough else 0.002) + 0.002 * chance.random(),
                    "memory_bytes": worker.memory + connections * 3200 + round(200_000 * busy),
                    "cpu_seconds": worker.cpu_s,
                    "start_time_seconds": worker.since,
                }
            )
        told.append(
            {
                "format": 1,
                "host": "ws.example.com",
                "time": BEGAN_AT + second,
                "version": "0.1.0",
                "server": "uvicorn",
                "words": _WORDS,
                "service": {
                    "workers": 2,
                    "workers_counted": 2,
                    "draining": 0,
                    "connections": sum(row["connections"] for row in rows),
                    "connections_accepted": {"v0": accepted // 3, "nc.v1": accepted - accepted // 3},
                    "connections_taken_over": taken_over,
                    "connections_not_taken_over": {"gone": 0},
                    "handshakes_refused": dict(refused),
                    "connections_closed": dict(closed),
                    "messages_received": sum(row["messages_received"] for row in rows),
                    "messages_routed": sum(row["messages_routed"] for row in rows),
                    "messages_dropped": {"nobody": dropped},
                    "bytes": {way: sum(worker.counts[way] for worker in workers) for way in ("in", "out")},
                    "delivery_seconds": {"within": dict(within), "seconds": took},
                    "queue_bytes": sum(row["queue_bytes"] for row in rows),
                    "loop_lag_seconds": max(row["loop_lag_seconds"] for row in rows),
                    "memory_bytes": sum(row["memory_bytes"] for row in rows),
                    "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
                    "start_time_seconds": began_at,
                    "limit": _LIMITS,
                },
                "workers": rows,
            }
        )
    return told
