"""The runner, `python -m service`: uvicorn, with what a service manager needs of it.

It reads its settings from the environment, listens on systemd's socket or its own, says when it is ready and that it
is alive, and stops with status 0. It runs the notification center, or the ASGI application that WEBSOCKET_APP names.
"""

from service.process.stops import hold_signals

if __name__ == "__main__":
    hold_signals()

import logging
import os

from service.process.begin import declared_settings_or_exit, ignore_hangups
from service.process.descriptor_store import stored_sets
from service.process.journal import fail
from service.process.listen import FDS_VARIABLE, ListenError, listening_sockets, name_of, stored_descriptors
from service.process.logs import configure_logging
from service.process.usage import take_option
from service.workers.manager import run_workers

logger = logging.getLogger("service")


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    hold_signals()  # also where another program calls this
    is_check = take_option(
        "python -m service",
        "Run the notification center, or your own ASGI application, on uvicorn. Its settings are the WEBSOCKET_ "
        "variables of the environment.",
        "--check",
        "import the application that WEBSOCKET_APP names, say what is wrong with it, and run nothing",
    )
    settings = declared_settings_or_exit(os.environ)
    # Each only where it is run: an application's environment has nothing of what the notification center needs.
    if settings.app.callable is None:
        from service.process.entry import check_or_exit

        if is_check:
            fail("there is no application to check: set WEBSOCKET_APP to module:attribute")
        check_or_exit(settings)
    elif is_check:
        from service.application.start import check

        check(settings)
    configure_logging(settings.log)
    is_worker = FDS_VARIABLE in os.environ
    ignore_hangups(is_worker)
    stored = stored_descriptors(os.environ)
    try:
        sockets = listening_sockets(settings, os.environ)
    except ListenError as error:
        fail(error)
    is_center = settings.app.callable is None
    if is_center:
        from service.fast.runner import run  # before workers are forked, which need it
    if settings.workers != 1 and not is_worker:
        if not run_workers("service", settings, sockets, stored, may_fork=is_center):
            return
        settings = declared_settings_or_exit(os.environ)
    logger.info("listening on %s", ", ".join(map(name_of, sockets)))
    if is_center:
        run(settings, sockets, list(stored_sets(stored)))
    else:
        from service.application.start import run as run_application

        run_application(settings, sockets)


if __name__ == "__main__":
    main()
