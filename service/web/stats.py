"""The figures of the service as JSON: what `wsbundle top` and the status page show.

One object: `format` is 1, `time` is now, since the epoch; `words` says what labels mean; `service` has every figure of
`service.core.figures` for all workers, by its name, and `workers` those of each. A figure with a label is an object by
label. A histogram has `within`, how many took up to each bound in seconds and more than the one before, and `seconds`,
how long all took.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.core.figures import FORMAT, Service, Times, Value
from service.core.plain_http import Answer, respond


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
            {
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                **{
                    figure.name: _shown(figure.of_worker(worker))
                    for figure in service.figures
                    if figure.worker is not None
                },
            }
            for worker in service.workers
        ],
    }


def _by_text(words: Mapping[Any, str]) -> dict[str, str]:
    return {str(label): text for label, text in words.items()}


def _shown(value: Value) -> Any:
    return value._asdict() if isinstance(value, Times) else value
