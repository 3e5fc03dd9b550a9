"""The figures of the service as JSON: what `wsbundle top` and the status page show.

One object: `format` is 1, `time` is now, since the epoch; `words` says what labels mean; `service` has every figure of
`service.core.figures` for all workers, by its name, and `workers` those of each. A figure with a label is an object by
label. A histogram has `within`, how many took up to each bound in seconds and more than the one before, and `seconds`,
how long all took.

With an engine, `hosts` has this host first and then each other one: its `id`, since when it is `up` or away, how many
`workers` are reached, how many of them say how they are, `workers_counted`, and their figures.

A worker that does not answer is not waited for again. Its last figures are shown, with `stale_since`, when it gave
them; so are those of a host of which a worker does not answer.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.core.figures import FORMAT, Host, Service, Times, Value
from service.core.plain_http import Answer, respond
from service.core.standing import Standing


def stats(service: Service) -> Answer:
    """All figures."""
    return respond(200, "application/json", msgspec.json.encode(_stats(service)), ("cache-control", "no-store"))


def _stats(service: Service) -> dict[str, Any]:
    whole = service.whole
    return {
        "format": FORMAT,
        "host": whole.host,
        "time": service.center.now(),
        "version": whole.version,
        "server": whole.server,
        "words": {figure.name: _by_text(figure.words) for figure in service.figures if figure.words},
        "service": {figure.name: _shown(figure.of(service)) for figure in service.figures},
        "workers": [
            *(_worker(service, worker) for worker in service.workers),
            *({**_worker(service, silent.was), "stale_since": silent.since} for silent in service.silent),
        ],
        **(
            {"hosts": [_this_host(service), *(_other(service, host) for host in service.hosts)]} if whole.abroad else {}
        ),
    }


def _worker(service: Service, worker: Standing) -> dict[str, Any]:
    return {"host": worker.host, "pid": worker.pid, "version": worker.version, **_figures(service, worker)}


def _figures(service: Service, standing: Standing) -> dict[str, Any]:
    """Of a worker, or of several as one."""
    figures = [figure for figure in service.figures if figure.worker is not None]
    return {figure.name: _shown(figure.of_worker(standing)) for figure in figures}


def _this_host(service: Service) -> dict[str, Any]:
    workers = 1 + len(service.center.hub.bus.others)
    return {
        "host": service.center.settings.engine.host or service.whole.host,
        "id": "",
        "up": True,
        "since": service.whole.since,
        "version": service.whole.version,
        "workers": workers,
        "workers_counted": len(service.workers),
        **_figures(service, service.whole),
        "connections": service.center.connections,
    }


def _other(service: Service, host: Host) -> dict[str, Any]:
    known = host.known
    return {
        "host": known.name,
        "id": known.id,
        "up": bool(known.workers),
        "since": known.since,
        "workers": len(known.workers),
        "workers_counted": host.counted,
        **({"version": host.whole.version, **_figures(service, host.whole)} if host.whole else {}),
        **({"stale_since": host.silent_since} if host.silent_since else {}),
        "connections": known.connections,
    }


def _by_text(words: Mapping[Any, str]) -> dict[str, str]:
    return {str(label): text for label, text in words.items()}


def _shown(value: Value) -> Any:
    return value._asdict() if isinstance(value, Times) else value
