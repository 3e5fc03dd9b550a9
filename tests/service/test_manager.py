"""Several workers, as real processes, are one notification center; and the process that keeps them keeps them."""

import asyncio
import contextlib
import errno
import gc
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import App, Settings
from service.workers import manager
from service.workers.manager import RESTART_DELAY_S, Workers, _Worker
from service.workers.meeting import LIFELINE_VARIABLE
from service.workers.release import Deployment, Release
from tests.service.processes import OURS, SEVERAL, Processes, several
from tests.service.shells import DEADLINE_S, HANDSHAKE, ROOT, TEXT, Client, Peer, running, wait_until
from tests.service.test_v1_conformance import Caller
from tests.service.transports import in_a_loop


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    return tmp_path / "bus"


@pytest.fixture(params=SEVERAL)
def pair(request: pytest.FixtureRequest, bus: Path) -> Iterator[tuple[Processes, int, int]]:
    """A service of two workers, and both."""
    with several(request.param, 2, bus) as workers:
        first, second = workers.pids()
        yield workers, first, second
        assert "Traceback" not in workers.shell.log()


@contextlib.contextmanager
def caller(workers: Processes, pid: int, uuid: str | None = None, **hello: object) -> Iterator[Caller]:
    """A client of nc.v1 in this worker, of which the others know."""
    with contextlib.ExitStack() as stack:
        with workers.only(pid):
            client = stack.enter_context(Caller(workers.shell))
        if uuid is not None:
            client.greeting = client.ask("hello", uuid=uuid, **hello)
        yield client


@contextlib.contextmanager
def old_client(workers: Processes, pid: int, uuid: str) -> Iterator[Client]:
    """A client of v0 in this worker."""
    with contextlib.ExitStack() as stack:
        with workers.only(pid):
            client = stack.enter_context(workers.shell.client())
        client.register(uuid)
        yield client


def until_known(client: Caller, *uuids: str) -> None:
    """Wait until the worker of a client has heard of these addresses."""
    wait_until(lambda: len(client.ask("presence", uuids=list(uuids))["online"]) == len(uuids))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", SEVERAL)
def test_every_client_reaches_every_other_one(kind: str, size: int, bus: Path) -> None:
    with several(kind, size, bus) as workers, contextlib.ExitStack() as stack:
        old = {f"old {pid}": stack.enter_context(old_client(workers, pid, f"old {pid}")) for pid in workers.pids()}
        new = {f"new {pid}": stack.enter_context(caller(workers, pid, f"new {pid}")) for pid in workers.pids()}
        for sender, client in new.items():
            for recipient in (*old, *new):
                assert client.ask("send", recipient_uuid=recipient, message=f"from {sender}")["online"] == 1
        for sender, elder in old.items():
            for recipient in (*old, *new):
                elder.send_to(recipient, f"from {sender}")
        everybody = sorted(f"from {sender}" for sender in (*old, *new))
        assert [sorted(client.hear()["message"] for _ in everybody) for client in new.values()] == [everybody] * size
        heard = [sorted(json.loads(elder.receive())["message"] for _ in everybody) for elder in old.values()]
        assert heard == [everybody] * size
        assert all(client.hears_nothing() for client in new.values())


def test_receipts_groups_and_presence_know_no_workers(pair: tuple[Processes, int, int]) -> None:
    workers, first, second = pair
    with caller(workers, first, "alice") as alice:
        assert alice.ask("presence", uuids=["bob"], watch=True)["online"] == []
        with caller(workers, second, "bob") as bob:
            assert alice.hear() == {"type": "presence", "uuid": "bob", "state": "online"}
            until_known(bob, "alice")
            accepted = bob.ask("send", recipient_uuid="alice", message=1, ack="delivered")
            assert (accepted["online"], accepted["receipts"]) == (1, 1)
            alice.tell("ack", key=alice.hear()["key"])
            assert bob.hear() == {"type": "delivered", "id": accepted["id"], "recipient_uuid": "alice"}
            for party in (alice, bob):
                party.ask("join", group="friends")
            wait_until(lambda: alice.ask("send", group="friends", message="hi")["online"] == 1)
            assert bob.hear()["group"] == "friends"
            accepted = alice.ask("send", recipient_uuid="bob", message=1, ack="delivered")
        outcomes = [alice.hear(), alice.hear()]
        assert {"type": "lost", "id": accepted["id"], "recipient_uuid": "bob"} in outcomes
        assert {"type": "presence", "uuid": "bob", "state": "offline"} in outcomes


def test_nobody_takes_the_address_of_a_living_client_of_another_worker(pair: tuple[Processes, int, int]) -> None:
    workers, first, second = pair
    with caller(workers, first, "alice") as alice, caller(workers, second) as mallory:
        until_known(mallory, "alice")
        assert mallory.ask("hello", uuid="alice")["code"] == 113
        with workers.only(second):
            eve = workers.shell.client()
        with eve:
            eve.send_to("alice", "connected")
            assert eve.close_code() == 4009
        mallory.ask("send", recipient_uuid="alice", message="still yours")
        assert alice.hear()["message"] == "still yours"


def test_a_client_comes_back_by_its_secret_in_another_worker(pair: tuple[Processes, int, int]) -> None:
    workers, first, second = pair
    with caller(workers, first, "alice") as old, caller(workers, second) as new:
        until_known(new, "alice")
        assert new.ask("hello", uuid="alice", resume=old.greeting["resume"])["uuid"] == "alice"
        assert old.close_code() == 4010


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in SEVERAL if kind != "uvicorn"])
def test_the_address_of_a_dead_client_of_another_worker_is_given_away(kind: str, bus: Path) -> None:
    # Not plain uvicorn: ASGI has no pings that could be sent when they are needed.
    with several(kind, 2, bus) as workers, contextlib.ExitStack() as stack:
        first, second = workers.pids()
        with workers.only(first):
            dead = stack.enter_context(Peer(workers.shell.port))
            dead.send_frame(TEXT, b'{"recipient_uuid": "alice", "message": "connected"}')
            assert dead.read_frame()
        back = stack.enter_context(caller(workers, second))
        until_known(back, "alice")
        assert back.ask("hello", uuid="alice")["type"] == "ok"


def test_the_limit_of_connections_holds_for_all_workers_together(bus: Path) -> None:
    with several("runner", 2, bus, WEBSOCKET_MAX_CONNECTIONS="2") as workers:
        first, second = workers.pids()
        with caller(workers, first, "a"), caller(workers, second, "b") as b:
            until_known(b, "a")
            for pid in (first, second):
                with workers.only(pid), Peer(workers.shell.port) as refused:
                    assert refused.status == 503
        wait_until(lambda: workers.connections(first) == workers.connections(second) == 0)


def test_the_limit_of_one_address_holds_for_all_workers_together(bus: Path) -> None:
    with several("runner", 2, bus, WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS="1") as workers:
        first, second = workers.pids()
        with _from_afar(workers, first) as here:
            assert here.recv(12).endswith(b"101")
            with _from_afar(workers, second) as refused:
                assert refused.recv(12).endswith(b"429")
        wait_until(lambda: workers.connections(second) == 0)
        with _from_afar(workers, second) as there:
            assert there.recv(12).endswith(b"101")


def _from_afar(workers: Processes, pid: int) -> socket.socket:
    """A client in this worker whose address a proxy tells; its answer is there."""
    with workers.only(pid):
        client = socket.create_connection(("127.0.0.1", workers.shell.port), DEADLINE_S)
        client.sendall(HANDSHAKE + b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
        client.recv(1, socket.MSG_PEEK)
    time.sleep(0.1)  # the others have heard of it
    return client


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEVERAL)
def test_each_worker_may_be_killed_in_turn(kind: str, bus: Path) -> None:
    with several(kind, 3, bus) as workers:
        for number, killed in enumerate(workers.pids()):
            before = workers.pids()
            kept = [pid for pid in before if pid != killed]
            with caller(workers, kept[0], f"alice {number}") as alice, caller(workers, kept[1]) as bob:
                with caller(workers, killed, f"gone {number}"):
                    until_known(alice, f"gone {number}")
                    workers.kill(killed)
                    assert bob.ask("send", recipient_uuid=f"alice {number}", message=1)["online"] == 1
                    assert alice.hear()["message"] == 1
                    wait_until(lambda: alice.ask("presence", uuids=[f"gone {number}"])["online"] == [])  # noqa: B023
                    assert alice.ask("send", recipient_uuid=f"gone {number}", message=1)["code"] == 114
                    [new] = set(workers.wait()) - set(before)
                    # It waits for what the others have to say, who must not be held up before.
                    wait_until(lambda: workers.serves(new))  # noqa: B023
                with caller(workers, new, f"gone {number}") as back:
                    assert bob.ask("send", recipient_uuid=f"gone {number}", message=2)["online"] == 1
                    assert back.hear()["message"] == 2
                    assert back.ask("send", recipient_uuid=f"alice {number}", message=3)["online"] == 1
                    assert alice.hear()["message"] == 3
                    for pid in workers.pids():
                        assert workers.connections(pid) == 3


def counts(workers: Processes) -> dict[tuple[str, ...], float]:
    """Every count of `/metrics` but those of single workers."""
    families = text_string_to_metric_families(workers.shell.get("/metrics").body.decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        if family.type in ("counter", "histogram") and "_worker_" not in family.name
        for sample in family.samples
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_no_count_falls_when_a_worker_dies_is_stuck_or_is_replaced(kind: str, bus: Path) -> None:
    with several(kind, 2, bus) as workers:
        for pid in workers.pids():
            with contextlib.ExitStack() as stack:
                with workers.only(pid):
                    client = stack.enter_context(workers.shell.client())
                for number in range(100):
                    client.send_to("nobody", number)
                client.hears_nothing_but_itself()
        shown = [counts(workers)]
        assert shown[0]["wsbundle_messages_dropped_total", "nobody"] == 200
        killed = workers.pids()[1]
        with workers.only(killed):
            shown.append(counts(workers))
        workers.kill(killed)
        workers.wait()
        shown.append(counts(workers))
        old = {*workers.pids()}
        workers.shell.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not old & {*workers.wait()})
        shown.append(counts(workers))
        for before, after in itertools.pairwise(shown):
            assert {name: (count, after[name]) for name, count in before.items() if after[name] < count} == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEVERAL)
def test_what_nobody_has_looked_at_outlives_a_worker_that_is_killed_but_for_its_last_second(
    kind: str, bus: Path
) -> None:
    with several(kind, 2, bus) as workers, contextlib.ExitStack() as stack:
        killed, other = workers.pids()
        with workers.only(killed):
            client = stack.enter_context(workers.shell.client())
        for number in range(100):
            client.send_to("nobody", number)
        client.hears_nothing_but_itself()
        time.sleep(1.5)
        workers.kill(killed)
        workers.wait()
        with workers.only(other):
            assert counts(workers)["wsbundle_messages_dropped_total", "nobody"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_a_stuck_worker_holds_nobody_up_and_is_replaced(kind: str, bus: Path) -> None:
    with several(kind, 3, bus) as workers, contextlib.ExitStack() as stack:
        before = stuck, first, second = workers.pids()
        stack.enter_context(caller(workers, stuck, "stuck"))
        alice = stack.enter_context(caller(workers, first, "alice"))
        bob = stack.enter_context(caller(workers, second))
        until_known(bob, "alice", "stuck")
        os.kill(stuck, signal.SIGSTOP)
        slowest, end = 0.0, time.monotonic() + 3
        while time.monotonic() < end:
            began = time.monotonic()
            assert bob.ask("send", recipient_uuid="alice", message="quick")["online"] == 1
            assert alice.hear()["message"] == "quick"
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5  # it is stuck for at least twice as long
        wait_until(lambda: stuck not in workers.pids())
        assert f"worker {stuck} gave no sign of life" in workers.shell.log()
        assert len(set(workers.wait()) - set(before)) == 1
        assert bob.ask("send", recipient_uuid="stuck", message=1)["code"] == 114


@pytest.mark.slow
def test_a_worker_that_was_held_up_for_a_while_goes_on_where_it_was(bus: Path) -> None:
    with several("runner", 2, bus) as workers, contextlib.ExitStack() as stack:
        held, other = workers.pids()
        alice = stack.enter_context(caller(workers, held, "alice"))
        bob = stack.enter_context(caller(workers, other))
        until_known(bob, "alice")
        os.kill(held, signal.SIGSTOP)
        time.sleep(1)
        for number in range(500):
            bob.tell("send", id=f"#{number}", recipient_uuid="alice", message=number)
        assert bob.hears_nothing()  # none has left yet
        os.kill(held, signal.SIGCONT)
        assert [bob.hear() for _ in range(500)] == [{"type": "ok", "id": f"#{n}", "online": 1} for n in range(500)]
        assert [alice.hear()["message"] for _ in range(500)] == list(range(500))
        assert workers.pids() == [held, other]


@pytest.mark.slow
def test_what_waits_for_a_stuck_worker_is_bounded_and_what_becomes_of_it_told(bus: Path) -> None:
    with several("runner", 2, bus) as workers, contextlib.ExitStack() as stack:
        stuck, other = workers.pids()
        stack.enter_context(caller(workers, stuck, "stuck"))
        bob = stack.enter_context(caller(workers, other))
        until_known(bob, "stuck")
        os.kill(stuck, signal.SIGSTOP)
        for number in range(400):
            bob.tell("send", id=f"#{number}", recipient_uuid="stuck", message="x" * 60_000)
        codes = Counter(bob.hear()["code"] for _ in range(400))
        assert codes.keys() == {114, 116}  # too much waits; it was killed before it had taken what waits
        assert 16 * 1024**2 / 60_000 - 1 < codes[116] < 320
        with workers.only(other):
            assert f'reason="bus_full"}} {codes[114]}.0' in workers.shell.get("/metrics").body.decode()


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_a_manager_that_is_held_up_takes_nobody_for_stuck_and_holds_nobody_up(kind: str, bus: Path) -> None:
    # So many that their signs of life fill the queue of the manager.
    with several(kind, 8, bus) as workers, contextlib.ExitStack() as stack:
        before, manager = workers.pids(), workers.shell.process.pid
        clients = [stack.enter_context(caller(workers, pid)) for pid in before[:5]]
        os.kill(manager, signal.SIGSTOP)
        end = time.monotonic() + 13
        while time.monotonic() < end:
            for client in clients:
                began = time.monotonic()
                assert client.ask("ping")["type"] == "pong"
                assert time.monotonic() - began < 5
        os.kill(manager, signal.SIGCONT)
        time.sleep(2)
        assert workers.pids() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_a_hangup_replaces_all_workers_and_refuses_nobody(kind: str, bus: Path) -> None:
    with several(kind, 3, bus) as workers:
        before = workers.pids()
        with Caller(workers.shell, "alice") as alice:
            workers.shell.process.send_signal(signal.SIGHUP)
            accepted = 0
            while set(before) & set(workers.pids()):
                with Peer(workers.shell.port) as peer:
                    assert peer.status == 101
                    accepted += 1
            assert accepted > 10
            if kind == "runner":
                assert alice.ask("ping") == {"type": "pong", "id": 2}
            else:
                assert alice.hear()["type"] == "goaway"
                assert alice.close_code() == 1012
        wait_until(lambda: "all workers have been replaced" in workers.shell.log())
        assert not set(workers.wait()) & set(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_a_worker_that_dies_while_others_are_replaced_is_replaced_once(kind: str, bus: Path) -> None:
    with several(kind, 3, bus) as workers:
        before = workers.pids()
        workers.shell.process.send_signal(signal.SIGHUP)
        wait_until(lambda: set(workers.pids()) - set(before))
        for pid in set(workers.pids()) & set(before):
            workers.kill(pid)
        wait_until(lambda: "all workers have been replaced" in workers.shell.log())
        workers.wait()
        time.sleep(2)
        assert len(workers.pids()) == 3
        assert not set(workers.pids()) & set(before)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("kind", OURS)
def test_a_stop_in_the_middle_of_the_start_or_of_a_hangup_is_a_stop(kind: str, after_s: float, bus: Path) -> None:
    with running(SEVERAL[kind], WORKERS="3", WEBSOCKET_BUS=str(bus)) as shell:
        time.sleep(after_s)
        children = Path(f"/proc/{shell.process.pid}/task/{shell.process.pid}/children").read_text().split()
        shell.process.send_signal(signal.SIGHUP)
        time.sleep(after_s / 4)
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        assert "Traceback" not in shell.log()
        assert list(bus.glob("*")) == [] or after_s < 0.5


@pytest.mark.parametrize("kind", OURS)
def test_a_stop_during_a_reload_finds_no_fault_with_the_worker_that_was_being_started(kind: str, bus: Path) -> None:
    with several(kind, 2, bus) as workers:
        workers.shell.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "replacing 2 workers" in workers.shell.log())
        workers.shell.terminate()
        assert workers.shell.process.wait(DEADLINE_S) == 0
        assert "does not start" not in workers.shell.log()


@in_a_loop
async def test_a_worker_that_was_being_started_is_stopped_and_no_sign_of_life_lets_it_stay(tmp_path: Path) -> None:
    workers = Workers(["-c", "import time; time.sleep(60)"], Deployment(os.environ), Settings(), [])
    workers._directory = tmp_path
    workers._stopped.set()
    worker = await workers._start(workers._release)
    assert worker is not None
    ends = worker.deadline
    worker.hear("WATCHDOG=1", ends)
    assert worker.deadline == ends
    assert await asyncio.wait_for(worker.process.wait(), DEADLINE_S) == -signal.SIGTERM


@pytest.mark.slow
def test_the_first_workers_are_forked_and_have_nothing_to_import_and_the_next_ones_are_started(bus: Path) -> None:
    def is_forked(pid: int) -> bool:
        return LIFELINE_VARIABLE.encode() not in Path(f"/proc/{pid}/environ").read_bytes()

    with several("runner", 2, bus) as workers:
        first, second = workers.pids()
        assert is_forked(first)
        assert is_forked(second)
        workers.kill(first)
        wait_until(lambda: first not in workers.pids())
        (new,) = set(workers.wait()) - {second}
        assert not is_forked(new)
        workers.shell.terminate()
        assert workers.shell.process.wait(DEADLINE_S) == 0


def test_where_none_can_be_forked_or_waited_for_they_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert not manager._has_process_descriptors()
    monkeypatch.setattr(os, "fork", refuse)
    workers = Workers(["-m", "service"], Deployment(os.environ), Settings(workers=2), [])
    assert not workers.fork()
    gc.unfreeze()
    assert workers._forked == []


@in_a_loop
async def test_a_machine_that_is_frozen_at_any_moment_has_no_stuck_workers_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(["-c", "import time; time.sleep(60)"], Deployment(os.environ), Settings(), [])
    workers._directory = tmp_path
    worker = await workers._start(workers._release)
    assert worker is not None
    monkeypatch.setattr(manager, "WATCHDOG_S", 0.2)
    clock = asyncio.get_running_loop().time
    for frozen_after in range(2, 8):
        looks, seen_enough = itertools.count(), asyncio.Event()

        def now(
            looks: Iterator[int] = looks, frozen_after: int = frozen_after, seen: asyncio.Event = seen_enough
        ) -> float:
            look = next(looks)
            if look == 10:
                seen.set()
            return clock() + 100 * (look >= frozen_after)

        monkeypatch.setattr(workers, "_now", now)
        worker.deadline = clock() + 30
        watching = asyncio.create_task(workers._end_the_stuck())
        await asyncio.wait_for(seen_enough.wait(), DEADLINE_S)
        watching.cancel()
        assert isinstance(worker.process, asyncio.subprocess.Process)
        assert worker.process.returncode is None
        assert worker.deadline > clock() + 100
    worker.send(signal.SIGKILL)
    await worker.process.wait()


@pytest.fixture
def process_descriptors() -> Iterator[None]:
    """asyncio waits for processes as `run_workers` lets it."""
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    yield
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())


@pytest.mark.usefixtures("process_descriptors")
def test_a_worker_that_ended_right_before_it_was_to_stop_keeps_its_exit_code() -> None:
    async def stop() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-Ic", "raise SystemExit(3)")
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop is not to know it yet
        _Worker(process, Release(sys.executable, Path.cwd(), {}, Settings()), 0.0).send(signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), DEADLINE_S)

    assert asyncio.run(stop()) == 3


def test_a_worker_that_is_killed_has_a_reason() -> None:
    process = cast(asyncio.subprocess.Process, None)
    worker = _Worker(process, Release(sys.executable, Path.cwd(), {}, Settings()), 0.0)
    assert worker.fault == "does not serve after 30 s"
    app = Settings(app=App(callable="main:app", start=90))
    of_app = _Worker(process, Release(sys.executable, Path.cwd(), {}, app), 0.0)
    assert (of_app.fault, of_app.deadline) == ("does not serve after 90 s (app.start)", 90.0)
    worker.hear("READY=1", 1.0)
    assert worker.fault == "gave no sign of life for too long"
    worker.is_stopping = True
    assert worker.fault == "has not stopped in time"


def test_a_worker_that_hands_clients_over_has_more_time_to_stop() -> None:
    process = cast(asyncio.subprocess.Process, None)
    worker = _Worker(process, Release(sys.executable, Path.cwd(), {}, Settings()), 0.0)
    worker.is_stopping, worker.deadline = True, 15.0
    worker.hear("WATCHDOG=1", 10.0)
    assert worker.deadline == 15.0
    worker.hear("EXTEND_TIMEOUT_USEC=15000000", 10.0)
    assert worker.deadline == 25.0
    worker.hear("EXTEND_TIMEOUT_USEC=1000000", 10.0)
    assert worker.deadline == 25.0


@pytest.mark.parametrize("kind", OURS)
def test_a_stop_reaches_only_the_thread_that_has_handlers_for_it(kind: str, bus: Path) -> None:
    with several(kind, 2, bus) as workers:
        stops = sum(1 << each - 1 for each in (signal.SIGTERM, signal.SIGINT))
        pid = workers.shell.process.pid
        for task in Path(f"/proc/{pid}/task").iterdir():
            (blocked,) = re.findall("SigBlk:\\t(.*)", (task / "status").read_text())
            assert int(blocked, 16) & stops == (0 if task.name == str(pid) else stops)


@pytest.mark.parametrize("kind", OURS)  # gunicorn's are in test_worker.py; uvicorn's own would stay
def test_workers_end_when_whoever_started_them_is_killed(kind: str, bus: Path) -> None:
    with several(kind, 2, bus) as workers, Caller(workers.shell) as client:
        pids = workers.pids()
        workers.shell.process.kill()
        assert client.close_code() == 1012
        wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in pids))
        assert list(bus.iterdir()) == []
        with socket.create_server(("127.0.0.1", workers.shell.port)):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_a_service_whose_workers_cannot_start_ends_and_says_why(kind: str, bus: Path) -> None:
    bus.mkdir(mode=0o755)
    with running(SEVERAL[kind], WORKERS="3", WEBSOCKET_BUS=str(bus)) as shell:
        assert shell.process.wait(DEADLINE_S) == 1
        assert f"the workers cannot meet in {bus}: others may write there; give it mode 0700" in shell.log()
        assert "before it could serve" in shell.log()


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
def test_workers_that_cannot_start_any_more_are_tried_ever_more_seldom(kind: str, bus: Path) -> None:
    with several(kind, 2, bus) as workers, Caller(workers.shell) as client:
        bus.chmod(0o755)
        (other,) = set(workers.pids()) - {workers.worker_of(client._socket.local_address[1])}
        workers.kill(other)

        def ended(times: int) -> bool:
            return workers.shell.log().count("another one takes its place") >= times

        wait_until(lambda: ended(2))
        began = time.monotonic()
        wait_until(lambda: ended(4))
        assert time.monotonic() - began > (2 + 4) * RESTART_DELAY_S - 0.5
        assert client.ask("ping")["type"] == "pong"
        bus.chmod(0o700)
        workers.wait()


def test_workers_that_are_forked_go_on_with_the_code_that_was_there_before(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "service", tmp_path / "r1/service")
    (tmp_path / "r2").mkdir()
    (tmp_path / "current").symlink_to("r1")
    script = f"""if True:
        import pathlib, sys
        sys.path.insert(0, {str(tmp_path / "current")!r})
        from service.workers import manager
        manager._stay_with_this_code()
        current = pathlib.Path({str(tmp_path / "current")!r})
        current.unlink()
        current.symlink_to("r2")
        from service.web import metrics
        print(metrics.__file__)
    """
    told = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout == f"{tmp_path}/r1/service/web/metrics.py\n"
