"""`python -m service.workers.reload`: asks the process that watches the workers to replace them, and waits.

It exits with 0 when all of them have been replaced, and with 1 and the reason when the new ones cannot serve. It is
`ExecReload=` of the unit, so that `systemctl reload` reports the outcome; a signal would have no answer.
"""

import os
import signal

if __name__ == "__main__":
    for stopping in (signal.SIGTERM, signal.SIGINT):
        # From systemd, which stops the service or starts it anew: nobody waits for the outcome any more. An end by
        # the signal, or with a status, would make the unit `failed`.
        signal.signal(stopping, lambda *_: os._exit(0))

import socket
import sys

from service.process.journal import prefix_stderr
from service.process.usage import take_no_arguments

# Where that process listens, in the runtime directory of its unit. Source: systemd.exec(5), "RuntimeDirectory=".
DIRECTORY_VARIABLE = "RUNTIME_DIRECTORY"
NAME = "manager"
DONE = "all workers have been replaced"


def main() -> None:
    """Ask, and wait for the answer, which is all that is ever said."""
    take_no_arguments(
        "python -m service.workers.reload",
        f"Replace the workers of the service whose ${DIRECTORY_VARIABLE} is in the environment, and wait for it.",
    )
    prefix_stderr()
    path = f"{os.environ.get(DIRECTORY_VARIABLE, '')}/{NAME}"
    try:
        with socket.socket(socket.AF_UNIX) as manager:
            manager.connect(path)
            answer = b"".join(iter(lambda: manager.recv(4096), b"")).decode()
    except OSError as error:
        sys.exit(f"the service cannot be asked at {path}: {error.strerror}")
    if answer != DONE:
        sys.exit(answer or "the service has ended before its workers were replaced")


if __name__ == "__main__":
    main()
