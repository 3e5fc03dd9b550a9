"""Runs your application, or only looks whether it could be run."""

import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from math import ceil
from typing import Any, NoReturn

from service.application.load import ROOT_PATH_VARIABLE, ApplicationError, below, enter_directory, load
from service.process.base_options import base_options
from service.process.journal import prefix_stderr, say
from service.process.listen import BACKLOG
from service.process.logs import keep_requests_out
from service.process.stops import end, let_signals_through, stop_signals
from service.settings import Settings

# The first that ends requests at a time limit when it stops (`timeout_graceful_shutdown`).
OLDEST_UVICORN = (0, 22)

# The head of a request may be as long as nginx passes it on (`large_client_header_buffers`): all cookies of a domain in
# one line. The websockets library takes a fifth of that, and h11 little more than a tenth.
_MAX_HEAD_BYTES = 3 * 40 * 1024
_LIMITS_OF_HANDSHAKES = {"WEBSOCKETS_MAX_LINE_LENGTH": "40960", "WEBSOCKETS_MAX_NUM_HEADERS": "1000"}


def check(settings: Settings) -> NoReturn:
    """Import the application, and end with 0, or with 1 and what is wrong with it."""
    for stopping in stop_signals():
        signal.signal(stopping, signal.SIG_DFL)  # nothing has been found out yet: not with 0, and without a traceback
    let_signals_through()
    _loaded_or_exit(settings)
    end(0)


def run(settings: Settings, sockets: list[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT."""
    # SIGABRT comes from who misses a sign of life: where it hangs is then in the log.
    faulthandler.enable(sys.__stderr__ or 2)
    stops = stop_signals()
    _end_at_once(stops)
    # What the application starts, even while it is imported, must not inherit that they are held back.
    let_signals_through()
    for name, value in _LIMITS_OF_HANDSHAKES.items():
        os.environ.setdefault(name, value)
    deadline = _start_deadline(settings)
    application = _loaded_or_exit(settings)
    _end_at_once(stops)

    import uvicorn

    from service.application.connections import State, protocols
    from service.application.server import ApplicationServer

    keep_requests_out()
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Application startup failed. Exiting.")
    patience = settings.limits.header_timeout
    state = State(_share(settings), is_alone=settings.workers == 1, drain=settings.drain, patience=patience)
    options = {
        **base_options(settings),
        **protocols(),
        "interface": "asgi3",
        "log_level": settings.log.level,  # without one its connections log what nobody reads
        "h11_max_incomplete_event_size": _MAX_HEAD_BYTES,
        "limit_concurrency": state.limit + 1,  # uvicorn refuses the one that reaches it
        "ws_max_size": settings.limits.message_size,
        "ws_ping_interval": settings.ping.interval,
        "ws_ping_timeout": settings.ping.timeout,
    }
    config = uvicorn.Config(application, backlog=BACKLOG, log_config=None, **options)
    server = ApplicationServer(config, state, settings.drain.timeout, deadline.cancel)
    server.run(sockets)
    if server.has_failed:
        sys.exit(1)


def _end_at_once(stops: list[signal.Signals]) -> None:
    """End with status 0 when asked to stop: nothing has begun yet that would have to be finished."""
    for stopping in stops:
        signal.signal(stopping, lambda *_: os._exit(0))


def _start_deadline(settings: Settings) -> threading.Timer:
    """Ends the process that has not begun to serve in time; of several workers, their own manager does that."""

    def give_up() -> None:
        logging.getLogger("service").error(
            "the application does not serve after %d s (app.start), and is ended", settings.app.start
        )
        end(1)

    timer = threading.Timer(settings.app.start, give_up)
    timer.daemon = True
    if settings.workers == 1:
        timer.start()
    return timer


def _share(settings: Settings) -> int:
    """How many connections one worker may have, so that all have as many as there are to be."""
    workers = len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers
    return ceil(settings.limits.connections / workers)


def _loaded_or_exit(settings: Settings) -> Any:
    assert settings.app.callable is not None
    # What it writes is its own: line by line, and to stderr without a word on how severe it is.
    sys.stderr = sys.__stderr__
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        _refuse_uvicorn()
        application = load(settings.app.callable, enter_directory(os.environ))
    except ApplicationError as error:
        prefix_stderr()
        say(error)
        end(1)
    return below(os.environ.get(ROOT_PATH_VARIABLE, ""), application)


def _refuse_uvicorn() -> None:
    needed = ".".join(map(str, OLDEST_UVICORN))
    try:
        from uvicorn import __version__
    except ImportError as error:
        raise ApplicationError(
            f"uvicorn cannot be imported ({error}); add uvicorn>={needed} to the application's requirements"
        ) from None
    numbers = tuple(int(number) for number in __version__.split(".")[:2])
    if numbers < OLDEST_UVICORN:
        raise ApplicationError(
            f"uvicorn {__version__} is too old; ask for uvicorn>={needed} in the application's requirements"
        )
