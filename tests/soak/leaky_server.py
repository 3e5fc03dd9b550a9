"""`soak_server`, which remembers of each client that has left a little."""

import signal
from collections.abc import Callable
from typing import Any

import service.__main__
from service.core.session import Session
from tests.soak import soak_server


def leaking(end: Callable[..., None]) -> Callable[..., None]:
    graves: list[object] = []

    def end_and_keep(session: Session, *reason: Any) -> None:
        end(session, *reason)
        graves.append(["a monument of", session.addresses])

    return end_and_keep


if __name__ == "__main__":
    Session.end = leaking(Session.end)  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR2, soak_server.tell)
    service.__main__.main()
