"""What the service manager is told."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.process.notify import Notifier


class Manager:
    """A service manager that listens on a socket of its own."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))
        self._socket.settimeout(60)

    def heard(self) -> str:
        """The next message."""
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@wsbundle-test-{os.getpid()}"
    manager = Manager(address)
    yield manager
    manager.close()


def test_time_is_asked_for_in_microseconds(manager: Manager) -> None:
    Notifier({"NOTIFY_SOCKET": manager.address}).extend(1.5)
    assert manager.heard() == "EXTEND_TIMEOUT_USEC=1500000"


def test_ready_is_told_with_a_status(manager: Manager) -> None:
    Notifier({"NOTIFY_SOCKET": manager.address}).ready("0 connections")
    assert manager.heard() == "READY=1\nSTATUS=0 connections"


def test_stopping_is_told(manager: Manager) -> None:
    Notifier({"NOTIFY_SOCKET": manager.address}).stopping()
    assert manager.heard() == "STOPPING=1\nSTATUS=stopping"


def test_signs_of_life_come_twice_as_often_as_asked(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000000"})
    statuses = iter("abc")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(notifier.keep_alive(lambda: next(statuses)))
    assert pauses == [10, 10, 10]
    assert [manager.heard() for _ in pauses] == [f"WATCHDOG=1\nSTATUS={status}" for status in "abc"]


def test_signs_of_life_come_every_ten_seconds_where_a_manager_waits_for_longer(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000"})
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(notifier.keep_alive(lambda: "well"))
    assert pauses == [10]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "²"},
        {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_manager_that_asks_for_no_sign_of_life_gets_none(environ: dict[str, str]) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", **environ}).watchdog_s is None
    asyncio.run(Notifier({"NOTIFY_SOCKET": "/nowhere", **environ}).keep_alive(lambda: "never asked"))


def test_a_watchdog_for_this_process_is_heeded() -> None:
    assert Notifier({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 20


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "100000"})
    notifier.ready("x")
    notifier.stopping()
    asyncio.run(notifier.keep_alive(lambda: "never asked"))


def test_a_manager_that_is_gone_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}).ready("x")
    assert caplog.messages == ["cannot notify /nowhere/notify: [Errno 2] No such file or directory"]
