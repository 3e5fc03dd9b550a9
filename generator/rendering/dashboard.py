"""A dashboard for Grafana: a panel for each figure that the service declares, and its limits from deploy.yaml as lines.

Where a figure stands is said here; what it is, and which series it has, follows from `service.core.figures`.
Source: "Dashboard JSON model" of Grafana; 36 is the schema of Grafana 9, and later ones read it.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from generator.config.schema import Deploy
from service.core.figures import FIGURES, Figure

SCHEMA = 36
# Of 24 columns; each row of panels has its title above.
_WIDTH, _HEIGHT = 8, 8
ROWS: dict[str, tuple[str, ...]] = {
    "Traffic": (
        *("connections", "messages_received", "messages_routed", "bytes", "delivery_seconds", "queue_bytes"),
        *("publications", "messages_dropped"),
    ),
    "Refused and closed": ("connections_accepted", "handshakes_refused", "connections_closed"),
    "Mailbox": ("mailbox_stored", "mailbox_expired"),
    "Other hosts": (
        *("engine_up", "engine_hosts", "engine_links", "engine_link_ends", "engine_beat_seconds"),
        *("engine_unacknowledged_bytes", "engine_batches"),
    ),
    "Workers": (
        *("workers", "workers_counted", "loop_lag_seconds", "memory_bytes", "cpu_seconds", "start_time_seconds"),
        "draining",
    ),
}
"""Every figure but the limits, which are lines in others. One that is declared and not placed here comes last."""
_LIMITED = {"connections": "connections"}
"""Figures that a setting below `limits` bounds."""
_PROCESS = {
    "Open files": ("process_open_fds", "process_max_fds"),
    "Memory of all workers": ("process_resident_memory_bytes",),
    "CPU of all workers": ("process_cpu_seconds_total",),
}
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(deploy: Deploy) -> str:
    """The JSON text that Grafana imports."""
    model = {
        "uid": f"wsbundle-{deploy.name}"[:40],
        "title": f"WebSocket service {deploy.name}",
        "tags": ["wsbundle"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(deploy.name)},
        "annotations": {"list": []},
        "panels": list(_placed(deploy)),
    }
    # With an indent, the standard library writes JSON in Python: half of the time of this.
    return msgspec.json.format(msgspec.json.encode(model), indent=1).decode() + "\n"


def queries(text: str) -> Iterator[str]:
    """Every query of a dashboard."""
    for panel in json.loads(text)["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def _variables(job: str) -> list[dict[str, Any]]:
    instances = f'label_values(wsbundle_workers{{job="{job}"}}, instance)'
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "instance",
            "type": "query",
            "label": "Host",
            "datasource": _DATASOURCE,
            "refresh": 2,
            "query": {"query": instances, "refId": "instances"},
            "definition": instances,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _placed(deploy: Deploy) -> Iterator[dict[str, Any]]:
    """All panels in their places, numbered."""
    known = {figure.name: figure for figure in FIGURES if figure.name != "limit" and _has(deploy, figure)}
    rest = tuple(name for name in known if name not in {each for names in ROWS.values() for each in names})
    number, top = 1, 0
    rows = {
        title: [panel for name in names if name in known for panel in _panels(known[name], deploy)]
        for title, names in ROWS.items()
    }
    rows["Processes"] = [_of_processes(title, series, deploy.name) for title, series in _PROCESS.items()]
    rows["Further figures"] = [panel for name in rest for panel in _panels(known[name], deploy)]
    for title, panels in rows.items():
        if not panels:
            continue
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _at(0, top, 24, 1),
        }
        number, top = number + 1, top + 1
        for place, panel in enumerate(panels):
            down, right = divmod(place, 24 // _WIDTH)
            yield {**panel, "id": number, "gridPos": _at(right * _WIDTH, top + down * _HEIGHT, _WIDTH, _HEIGHT)}
            number += 1
        top += -(-len(panels) // (24 // _WIDTH)) * _HEIGHT


def _has(deploy: Deploy, figure: Figure) -> bool:
    """Whether the service of a deployment has a figure."""
    return deploy.engine.url is not None or not figure.needs_engine


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panels(figure: Figure, deploy: Deploy) -> Iterator[dict[str, Any]]:
    """One for all workers together, one for each of them, or both."""
    title = figure.name.replace("_", " ").capitalize()
    if figure.by_worker != "only":
        limit = getattr(deploy.limits, _LIMITED[figure.name]) if figure.name in _LIMITED else None
        yield _panel(title, figure.help, _unit(figure), list(_targets(figure, deploy.name)), limit)
    if figure.by_worker:
        series, legend = figure.series_by_worker, "{{instance}} {{worker}}"
        targets = [(_rate(series, figure.kind, deploy.name), legend)]
        yield _panel(f"{title} by worker", figure.help, _unit(figure), targets)


def _targets(figure: Figure, job: str) -> Iterator[tuple[str, str]]:
    if figure.kind == "histogram":
        for quantile in (0.5, 0.99):
            buckets = f"sum by (instance, le) (rate({figure.series}_bucket{_selector(job)}[$__rate_interval]))"
            yield f"histogram_quantile({quantile}, {buckets})", f"{{{{instance}}}} p{quantile * 100:.0f}"
    else:
        legend = "{{instance}}" + (f" {{{{{figure.label}}}}}" if figure.label else "")
        yield _rate(figure.series, figure.kind, job), legend


def _rate(series: str, kind: str, job: str) -> str:
    selected = f"{series}{_selector(job)}"
    return f"rate({selected}[$__rate_interval])" if kind == "counter" else selected


def _selector(job: str) -> str:
    return f'{{job="{job}",instance=~"$instance"}}'


def _unit(figure: Figure) -> str:
    """As Grafana names it: a counter is shown by the second."""
    if figure.name == "start_time_seconds":
        return "dateTimeFromNow"  # of milliseconds; the query is multiplied below
    unit = "bytes" if "bytes" in figure.name else "s" if figure.name.endswith("seconds") else "short"
    return {"bytes": "Bps", "s": "short", "short": "cps"}[unit] if figure.kind == "counter" else unit


def _of_processes(title: str, series: tuple[str, ...], job: str) -> dict[str, Any]:
    unit = "bytes" if "bytes" in series[0] else "short"
    targets = [
        (_rate(each, "counter" if each.endswith("_total") else "gauge", job), f"{{{{instance}}}} {each}")
        for each in series
    ]
    return _panel(title, "As the kernel has it.", unit, targets)


def _panel(
    title: str, meaning: str, unit: str, targets: list[tuple[str, str]], limit: int | None = None
) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, *([{"color": "red", "value": limit}] if limit is not None else [])]
    scale = 1000 if unit == "dateTimeFromNow" else 1
    return {
        "type": "timeseries",
        "title": title,
        "description": meaning,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "legendFormat": legend,
                "expr": f"{scale} * {expr}" if scale != 1 else expr,
            }
            for number, (expr, legend) in enumerate(targets)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": None if scale != 1 else 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"lineWidth": 1, "fillOpacity": 8, "thresholdsStyle": {"mode": "line" if limit else "off"}},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }
