"""Connections wait in the descriptor store from one process to the next, each with its state, and none twice."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.process import descriptor_store
from service.process.descriptor_store import PER_MESSAGE, PREFIX, StoredSet, put, stored_sets
from service.process.notify import Notifier
from tests.service.service_manager import ServiceManager, managing


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with managing(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def notifier(manager: ServiceManager) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.path})


class Crowd:
    """Clients of a process: the ends of their connections, theirs and ours."""

    def __init__(self, stack: ExitStack, number: int) -> None:
        pairs = [socket.socketpair() for _ in range(number)]
        self.theirs = [stack.enter_context(theirs) for theirs, _ in pairs]
        self.ours = [stack.enter_context(ours) for _, ours in pairs]
        self.states = [b"state %d" % index * (index % 3) for index in range(number)]

    def put(self, notifier: Notifier, environ: dict[str, str], before: bytes = b"") -> int:
        return put(list(zip(self.states, self.ours, strict=True)), notifier, environ, before)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def passed(manager: ServiceManager) -> list[StoredSet]:
    """What the next process finds, as systemd passes it."""
    return list(stored_sets([(name, os.dup(descriptor)) for name, descriptor in manager.stored]))


def _said(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def clients_of(sets: list[StoredSet], at_most: int = 1_000_000) -> list[tuple[bytes, bytes]]:
    """Read so many messages: the state of each client, and what it has sent."""
    found = []
    for stored in sets:
        for some in stored.read():
            for state, connection in some:
                with connection:
                    found.append((state, _said(connection)))
            if (at_most := at_most - 1) == 0:
                break
        stored.close()
    return found


@pytest.mark.parametrize("number", [0, 1, PER_MESSAGE, PER_MESSAGE + 1, 3 * PER_MESSAGE])
def test_the_next_process_has_every_connection_with_its_state_in_order(
    number: int, manager: ServiceManager, notifier: Notifier, tmp_path: Path, stack: ExitStack
) -> None:
    crowd = Crowd(stack, number)
    assert crowd.put(notifier, {"RUNTIME_DIRECTORY": str(tmp_path)}) == number
    assert len(manager.stored) == (2 if number else 0)
    assert os.listdir(tmp_path) == ["notify"]
    for index, theirs in enumerate(crowd.theirs):
        theirs.send(b"%d" % index)
    for ours in crowd.ours:
        ours.close()
    assert clients_of(passed(manager)) == [(state, b"%d" % index) for index, state in enumerate(crowd.states)]


def test_a_process_that_dies_half_way_leaves_the_rest_to_the_next_and_nothing_is_read_twice(
    manager: ServiceManager, notifier: Notifier, stack: ExitStack
) -> None:
    crowd = Crowd(stack, 3 * PER_MESSAGE)
    crowd.put(notifier, {})
    for theirs in crowd.theirs:
        theirs.send(b"x")
    assert len(clients_of(passed(manager), at_most=1)) == PER_MESSAGE
    assert [state for state, _ in clients_of(passed(manager))] == crowd.states[PER_MESSAGE:]
    assert clients_of(passed(manager)) == []


def test_what_is_to_be_known_first_is_read_before_any_client(
    manager: ServiceManager, notifier: Notifier, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setattr(descriptor_store, "PER_MESSAGE", 1)
    crowd = Crowd(stack, 600)
    crowd.put(notifier, {}, before=b"followers")
    sets = passed(manager)
    assert len(sets) > 1
    assert {stored.before for stored in sets} == {b"followers"}
    assert sorted(state for state, _ in clients_of(sets)) == sorted(crowd.states)


def test_a_set_of_a_release_before_has_nothing_that_is_to_be_known_first(
    manager: ServiceManager, notifier: Notifier, stack: ExitStack
) -> None:
    crowd = Crowd(stack, 3)
    crowd.put(notifier, {})
    manager.stored = [(f"{PREFIX}0123456789abcdef", descriptor) for _, descriptor in manager.stored]
    (stored,) = passed(manager)
    assert stored.before == b""
    assert [state for state, _ in clients_of([stored])] == crowd.states


def test_more_than_a_queue_holds_takes_another_set(
    manager: ServiceManager, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor_store, "PER_MESSAGE", 1)
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            theirs.send(b"x" * 600)
            assert put([(b"%d" % index, ours) for index in range(600)], notifier, {}) == 600
        assert len(manager.stored) > 2
        states = [state for state, _ in clients_of(passed(manager))]
    assert sorted(states, key=int) == [b"%d" % index for index in range(600)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notifier.settle, "__defaults__", (0.05,))


@pytest.mark.usefixtures("impatient")
def test_what_systemd_has_not_confirmed_is_not_kept_even_if_it_has_it(
    manager: ServiceManager, notifier: Notifier, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    manager.answers = False
    crowd = Crowd(stack, PER_MESSAGE + 1)
    assert crowd.put(notifier, {}) == 0
    assert "systemd does not keep the clients: no answer within 0.05 s" in caplog.text
    assert all(ours.fileno() >= 0 for ours in crowd.ours)
    assert clients_of(passed(manager)) == []


def test_without_room_for_states_nothing_is_kept(
    notifier: Notifier, tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(stack, 1)
    assert crowd.put(notifier, {"RUNTIME_DIRECTORY": str(tmp_path / "none")}) == 0
    assert "systemd does not keep the clients: " in caplog.text


def test_without_a_manager_nothing_is_kept(tmp_path: Path, stack: ExitStack) -> None:
    assert Crowd(stack, 1).put(Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}), {}) == 0


def a_set(message: bytes, states: bytes, connections: list[int]) -> list[tuple[str, int]]:
    """A set as somebody else may have stored it."""
    queue, entrance = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with entrance, tempfile.TemporaryFile(buffering=0) as file:
        file.write(states)
        socket.send_fds(entrance, [message], connections)
        return [(f"{PREFIX}x", queue.detach()), (f"{PREFIX}x", os.dup(file.fileno()))]


@pytest.mark.parametrize(
    ("message", "states", "number", "said"),
    [
        (descriptor_store._encode([1, 0, [3, 3]]), b"abcdef", 1, "1 clients have 2 states"),
        (descriptor_store._encode([1, 0, [3]]), b"abcdef", 2, "2 clients have 1 states"),
        (descriptor_store._encode([1, 4, [3]]), b"abcdef", 1, "the file of states ends too early; 1 of them are"),
        (descriptor_store._encode([1, 0, [2**62]]), b"abcdef", 1, "the file of states ends too early"),
        (descriptor_store._encode([1, -1, [3]]), b"abcdef", 1, "cannot be read: Expected `int` >= 0"),
        (descriptor_store._encode([2, 0, [3]]), b"abcdef", 1, "cannot be read: Invalid enum value 2"),
        (descriptor_store._encode([1, 0, [3], "more"]), b"abcdef", 1, "cannot be read"),
        (b"\xc1", b"abcdef", 1, "cannot be read: MessagePack data is malformed"),
    ],
)
def test_a_client_whose_state_is_not_certain_has_none(
    message: bytes, states: bytes, number: int, said: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(stack, number)
    descriptors = a_set(message, states, [ours.fileno() for ours in crowd.ours])
    for theirs in crowd.theirs:
        theirs.send(b"x")
    assert clients_of(list(stored_sets(descriptors))) == [(b"", b"x")] * number
    assert said in caplog.text


def test_what_is_no_connection_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryFile() as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        message = descriptor_store._encode([1, 0, [1, 1]])
        descriptors = a_set(message, b"ab", [file.fileno(), datagrams.fileno()])
    assert clients_of(list(stored_sets(descriptors))) == []
    assert caplog.text.count("a descriptor is not a connection; it is closed") == 2


def test_what_is_no_set_is_closed_and_named(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        directory = os.open("/", os.O_RDONLY)
        assert list(stored_sets([(f"{PREFIX}1", ours.detach()), (f"{PREFIX}2", directory)])) == []
        assert theirs.recv(1) == b""
    assert f"{PREFIX}1 is not a set of clients as this release stores them" in caplog.text
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(directory)
