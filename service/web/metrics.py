"""The service's figures for Prometheus, read from the center when somebody asks: counting costs nothing beside it.

The labels come from tables of ours and never from a client, so that the number of series is constant.
Source of the names: "Metric and label naming" of Prometheus.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.core import close_codes, drops
from service.core.center import Center
from service.core.close_codes import CloseReason
from service.core.plain_http import REFUSALS, Answer, respond
from service.core.session import SessionV0
from service.core.session_v1 import SessionV1
from service.core.tally import Label, Tally
from service.web.publish import STATUSES

_PROTOCOLS = (SessionV0.protocol, SessionV1.protocol)
# Those of `service.fast.handshake` as well: no WebSocket that RFC 6455 knows.
_REFUSED = sorted({400, 408, 426, 431, *(refusal.status for refusal in REFUSALS)})
_CLOSED = sorted({value.code for value in vars(close_codes).values() if isinstance(value, CloseReason)})
_LIMITS = ("connections", "connections_per_address", "message_size", "messages_per_second", "bytes_per_second", "queue")


# The library reads this from /proc/stat, which the rendered unit hides, and without it tells nothing about the process.
# Asked for once: the start of the process must not seem to change.
_BOOTED_AT = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def metrics(center: Center, tallies: Sequence[Tally]) -> Answer:
    """All figures, in the text format 0.0.4 of Prometheus; `tallies` are those of the workers that have told theirs."""
    # The library has one registry for everybody who loads it: what others put there would be public here.
    registry = CollectorRegistry()
    registry.register(_CenterCollector(center, tallies))
    registry.register(_Processes([str(os.getpid()), *center.hub.bus.others]))
    return respond(200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


class _Process(ProcessCollector):
    def _boot_time(self) -> float:
        return _BOOTED_AT


class _Processes(Collector):
    """The workers as one process: Prometheus asks one of them, each time another one."""

    def __init__(self, pids: Iterable[str]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for family in _Process(pid=partial(str, pid), registry=None).collect():
                values = [each.samples[0].value for each in (families.get(family.name), family) if each is not None]
                # The youngest tells that some worker was started anew.
                value = max(values) if family.name == "process_start_time_seconds" else sum(values)
                family.samples = [family.samples[0]._replace(value=value)]
                families[family.name] = family
        return families.values()


class _CenterCollector(Collector):
    def __init__(self, center: Center, tallies: Sequence[Tally]) -> None:
        self._center = center
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        center, tally, limits = self._center, Tally(), self._center.settings.limits
        for each in self._tallies:
            tally.add(each)
        workers, told = 1 + len(center.hub.bus.others), len(self._tallies)
        yield GaugeMetricFamily("wsbundle_workers", "Workers that serve.", workers)
        yield GaugeMetricFamily("wsbundle_workers_counted", "Workers whose figures are in these.", told)
        yield GaugeMetricFamily("wsbundle_connections", "Open WebSockets.", center.connections)
        yield GaugeMetricFamily("wsbundle_draining", "1 while the service is about to stop.", int(center.draining))
        yield _counters(
            "connections_accepted", "Handshakes that became a WebSocket.", "protocol", _PROTOCOLS, tally.accepted
        )
        yield _counters("handshakes_refused", "Handshakes that were refused.", "status", _REFUSED, tally.refused)
        yield _counters("connections_closed", "WebSockets that the service closed.", "code", _CLOSED, tally.closed)
        yield CounterMetricFamily("wsbundle_messages_routed", "Messages that had a recipient.", tally.routed)
        yield _counters("messages_dropped", "Messages that went nowhere.", "reason", drops.ALL, tally.dropped)
        yield _counters("publications", "Requests to publish a message.", "status", STATUSES, tally.published)
        limit = GaugeMetricFamily("wsbundle_limit", "The settings below `limits`.", labels=["limit"])
        for name in _LIMITS:
            limit.add_metric([name], getattr(limits, name))
        yield limit


def _counters(
    name: str, meaning: str, label: str, values: Iterable[Label], counts: Mapping[Label, int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"wsbundle_{name}", meaning, labels=[label])
    for value in values:
        family.add_metric([str(value)], counts.get(value, 0))
    return family
