"""Whichever side of a handover is killed, and at whatever step: each client is served or cut off, and nobody believes
in an address that none has.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.core.close_codes import RESTART
from service.core.frames import SUBPROTOCOL
from service.workers.reload import DONE
from tests.service import dying
from tests.service.service_manager import Unit, managing
from tests.service.shells import DEADLINE_S, Client, wait_until
from tests.service.test_reload import Deployment

pytestmark = pytest.mark.slow

CLIENTS = 24
# So many connect anew, to ask: each worker gets some of them.
ASKING = 6
NOBODY = 114
FAILED = "the new worker does not start"

# Of the worker that is replaced, and of the one that gets its clients.
LEAVING = (
    "service.fast.passing:freeze:after",
    "service.core.moves:Moves.announce:after",
    "service.core.moves:Moves.prepare:before",
    "service.core.moves:Moves.left:after",
    "service.core.moves:Moves.finish:after",
    "service.fast.passing:_write:before",
    "service.fast.passing:_write:after",
    "service.fast.passing:_read_bytes:after",
)
COMING = (
    "service.core.moves:Moves._expect:after",
    "service.fast.passing:_read:after",
    "service.fast.handover:Taking.take:after",
    "service.fast.handover:Taking.finish:before",
    "service.fast.handover:Taking.finish:after",
)
# Of the process that stops for a restart, and of the one that follows.
KEEPING = (
    "service.fast.restart:settle:after",
    "service.fast.restart:leave:after",
    "service.process.descriptor_store:_pack:after",
    "service.process.notify:Notifier.store:before",
    "service.process.notify:Notifier.store:after",
    "service.process.notify:Notifier.settle:after",
    "service.fast.restart:keep_clients:after",
)
TAKING_BACK = (
    "service.fast.restart:take_clients_back:before",
    "service.process.descriptor_store:StoredSet._receive:after",
    "service.fast.handover:Taking.take:after",
    "service.process.notify:Notifier.unstore:before",
    "service.process.notify:Notifier.unstore:after",
    "service.fast.handover:Taking.finish:before",
    "service.fast.handover:Taking.finish:after",
)


@contextlib.contextmanager
def clients(url: str) -> Iterator[dict[str, Client]]:
    with ExitStack() as stack:
        there = {f"client-{number}": stack.enter_context(Client(url)) for number in range(CLIENTS)}
        for name, client in there.items():
            client.register(name)
        yield there


def who_is_served(there: dict[str, Client]) -> set[str]:
    """Of all others the connection has ended: each is told so, and none is left without an answer."""
    served = set()
    for name, client in there.items():
        with contextlib.suppress(ConnectionClosed):
            client.hears_nothing_but_itself()
            served.add(name)
    return served


def believed_in(url: str, names: list[str]) -> set[str]:
    """To whom a message leaves, whichever worker is asked."""
    found: set[str] = set()
    for _ in range(ASKING):
        with connect(url, proxy=None, subprotocols=[SUBPROTOCOL]) as asking:  # type: ignore[list-item]
            asking.recv(DEADLINE_S)
            asking.send(json.dumps({"type": "hello", "id": 0}))
            asking.recv(DEADLINE_S)
            for name in names:
                message = {"type": "send", "id": 1, "recipient_uuid": name, "message": 1, "ack": "accepted"}
                asking.send(json.dumps(message))
                answer = json.loads(asking.recv(DEADLINE_S))
                if answer["type"] == "ok":
                    found.add(name)
                else:
                    assert answer["code"] == NOBODY, answer
    return found


def mark_of(directory: Path) -> int:
    """The process that has come to the step."""
    mark = directory / "mark"
    wait_until(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


def stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("step", LEAVING + COMING)
@pytest.mark.parametrize("dies", ["it", "the other"])
def test_at_a_reload(step: str, dies: str, tmp_path: Path) -> None:
    variables = dying.environment(tmp_path, step, "killed" if dies == "it" else "stopped")
    with ExitStack() as stack:
        deployment = Deployment(tmp_path / "deployment", "runner", stack, **variables)
        workers = deployment.workers
        old = workers.pids()
        with clients(workers.shell.url) as there:
            workers.shell.process.send_signal(signal.SIGHUP)
            pid = mark_of(tmp_path)
            assert (pid in old) == (step in LEAVING)
            if dies == "the other":
                wait_until(lambda: stands_still(pid))
                for other in [each for each in workers.pids() if (each in old) != (pid in old)]:
                    workers.kill(other)
                os.kill(pid, signal.SIGCONT)
            wait_until(lambda: DONE in workers.shell.log() or FAILED in workers.shell.log())
            workers.wait()
            served = who_is_served(there)
            assert believed_in(workers.shell.url, list(there)) == served
            print(f"{step}, {dies}: {len(served)} of {CLIENTS} are served on")
        assert "Traceback" not in workers.shell.log()


def test_clients_that_can_stay_no_more_leave_when_a_worker_that_does_not_answer_has_been_killed(tmp_path: Path) -> None:
    variables = dying.environment(tmp_path, "service.core.moves:Moves.announce:before", "stopped")
    with ExitStack() as stack:
        deployment = Deployment(tmp_path / "deployment", "runner", stack, **variables)
        workers = deployment.workers
        with clients(workers.shell.url) as there:
            old = workers.pids()
            workers.shell.process.send_signal(signal.SIGHUP)
            leaving = mark_of(tmp_path)
            (stuck,) = {*old} - {leaving}
            with_it = {name for name, client in there.items() if workers.worker_of(client.port) == leaving}
            os.kill(stuck, signal.SIGSTOP)
            os.kill(leaving, signal.SIGCONT)
            wait_until(lambda: DONE in workers.shell.log())
            workers.wait()
            assert with_it
            assert who_is_served(there) == with_it
        assert f"worker {stuck} gave no sign of life for too long; it is killed" in workers.shell.log()
        assert "Traceback" not in workers.shell.log()


@pytest.mark.parametrize("step", KEEPING + TAKING_BACK)
def test_at_a_restart(step: str, tmp_path: Path) -> None:
    variables = dying.environment(tmp_path, step, "killed")
    with managing(tmp_path / "notify") as manager, contextlib.closing(Unit(tmp_path, manager)) as unit:
        unit.start(**(variables if step in KEEPING else {}))
        with clients(unit.url) as there:
            unit.end(signal.SIGINT)
            if step in TAKING_BACK:
                process = unit.begin(**variables)
                assert mark_of(tmp_path) == process.pid
                process.wait(DEADLINE_S)
            assert (tmp_path / "mark").exists()
            unit.start()
            served = who_is_served(there)
            assert believed_in(unit.url, list(there)) == served
            print(f"{step}: {len(served)} of {CLIENTS} are served on")
        assert manager.stored == []
    assert "Traceback" not in unit.log.read_text()


@pytest.mark.parametrize("step", [*LEAVING[1::4], *COMING[1:3]])
def test_the_process_that_watches_them_at_a_reload(step: str, tmp_path: Path) -> None:
    """They stop, as they always do without it, and leave nothing behind."""
    variables = dying.environment(tmp_path, step, "orphaned")
    with ExitStack() as stack:
        workers = Deployment(tmp_path / "deployment", "runner", stack, **variables).workers
        with clients(workers.shell.url) as there:
            workers.shell.process.send_signal(signal.SIGHUP)
            assert workers.shell.process.wait(DEADLINE_S) == -signal.SIGKILL
            assert {client.close_code() for client in there.values()} == {RESTART.code}
        wait_until(lambda: not dying.processes(tmp_path))
        assert list(workers.bus.glob("*")) == []
        assert "Traceback" not in workers.shell.log()


# Of the process that watches the workers, when it stops for a restart, and of the one that follows.
STOPPING = (
    "service.workers.manager:Workers._stop:after",
    "service.workers.meeting:Meeting.come:before",
    "service.workers.meeting:Meeting.let_go:after",
)
STARTING = (
    "service.workers.manager:_Forked.__init__:after",
    "service.workers.manager:Workers._start:after",
    "service.workers.meeting:Meeting.come:before",
    "service.workers.meeting:Meeting.let_go:after",
)


@pytest.mark.parametrize("step", [*STOPPING, *KEEPING[3:5]])
def test_the_process_that_watches_them_at_a_restart(step: str, tmp_path: Path) -> None:
    """systemd kills the workers as well, if they have not ended by then."""
    variables = dying.environment(tmp_path, step, "killed" if step in STOPPING else "orphaned")
    with managing(tmp_path / "notify") as manager, contextlib.closing(Unit(tmp_path, manager, WORKERS="2")) as unit:
        unit.start(**variables)
        with clients(unit.url) as there:
            assert unit.end(signal.SIGINT) == -signal.SIGKILL
            for pid in dying.processes(tmp_path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            are_served_by_the_next(unit, there, tmp_path)


@pytest.mark.parametrize("step", [*STARTING, *TAKING_BACK[1:5:3]])
def test_the_process_that_watches_them_after_a_restart(step: str, tmp_path: Path) -> None:
    """Nothing kills the workers: they stop by themselves."""
    variables = dying.environment(tmp_path, step, "killed" if step in STARTING else "orphaned")
    with managing(tmp_path / "notify") as manager, contextlib.closing(Unit(tmp_path, manager, WORKERS="2")) as unit:
        unit.start()
        with clients(unit.url) as there:
            assert unit.end(signal.SIGINT) == 0
            assert unit.begin(**variables).wait(DEADLINE_S) == -signal.SIGKILL
            served = are_served_by_the_next(unit, there, tmp_path)
            assert step not in STARTING[:2] or len(served) == CLIENTS  # an orphan takes none


def are_served_by_the_next(unit: Unit, there: dict[str, Client], directory: Path) -> set[str]:
    """Who has not gone with the processes that have come of an environment with this directory."""
    wait_until(lambda: not dying.processes(directory))
    unit.start()
    served = who_is_served(there)
    assert believed_in(unit.url, list(there)) == served
    print(f"{len(served)} of {CLIENTS} are served on")
    assert unit.manager.stored == []
    assert "Traceback" not in unit.log.read_text()
    return served
