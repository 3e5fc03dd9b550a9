"""The figures of the service as Prometheus reads them, asked of the workers when somebody asks."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.core.figures import PREFIX, Figure, Service, Times, Value
from service.core.plain_http import Answer, respond

_START, _CPU = "process_start_time_seconds", "process_cpu_seconds"


def metrics(service: Service) -> Answer:
    """All figures, in the text format 0.0.4 of Prometheus."""
    # The library has one registry for everybody who loads it: what others put there would be public here.
    registry = CollectorRegistry()
    registry.register(_Figures(service))
    # The youngest tells that some worker was started anew. Each worker says when it began: computed here, it would be
    # another number in each of them, and seem to change whenever Prometheus asks another one.
    youngest = max(worker.since for worker in service.workers)
    # The CPU time of those that have gone counts as well: a sum over the living would fall when one is replaced.
    values = {_START: youngest, _CPU: service.whole.tally.cpu_s}
    registry.register(_Processes([str(os.getpid()), *service.center.hub.bus.others], values))
    return respond(200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


class _Process(ProcessCollector):
    def _boot_time(self) -> float:
        # The library reads it from /proc/stat, which the rendered unit hides, and at 0 tells nothing about the process.
        return 1.0


class _Processes(Collector):
    """The workers as one process: Prometheus asks one of them, each time another one.

    What is not in `values`, by the name of its family, is the sum over all of them.
    """

    def __init__(self, pids: Iterable[str], values: Mapping[str, float]) -> None:
        self._pids = pids
        self._values = values

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for family in _Process(pid=partial(str, pid), registry=None).collect():
                values = [each.samples[0].value for each in (families.get(family.name), family) if each is not None]
                value = self._values.get(family.name, sum(values))
                family.samples = [family.samples[0]._replace(value=value)]
                families[family.name] = family
        return families.values()


class _Figures(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        whole = self._service.whole
        build = GaugeMetricFamily(f"{PREFIX}build_info", "Always 1; what runs.", labels=["version", "server"])
        build.add_metric([whole.version, whole.server], 1)
        yield build
        for figure in self._service.figures:
            if figure.by_worker != "only":
                yield _family(figure, figure.of(self._service))
            if figure.by_worker:
                yield self._by_worker(figure)

    def _by_worker(self, figure: Figure) -> Metric:
        family = _KINDS[figure.kind](figure.series_by_worker, f"{figure.help} By worker.", labels=["worker"])
        for each in self._service.workers:
            value = figure.of_worker(each)
            assert not isinstance(value, Mapping | Times)
            family.add_metric([str(each.pid)], value)
        return family


_KINDS: Mapping[str, type[GaugeMetricFamily | CounterMetricFamily]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
}


def _family(figure: Figure, value: Value) -> Metric:
    if isinstance(value, Times):
        buckets = list(zip(value.within, accumulate(value.within.values()), strict=True))
        return HistogramMetricFamily(figure.series, figure.help, buckets=buckets, sum_value=value.seconds)
    kind = _KINDS[figure.kind]
    if not isinstance(value, Mapping):
        return kind(figure.series, figure.help, value)
    family = kind(figure.series, figure.help, labels=[figure.label])
    for label, number in value.items():
        family.add_metric([label], number)
    return family
