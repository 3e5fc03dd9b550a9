"""`wsbundle top` against a service that runs: once, as JSON, and in a terminal that somebody types into."""

import contextlib
import json
import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console
from websockets.exceptions import ConnectionClosed

from generator.host.quantities import duration, number, size
from generator.host.quantities import time as time_in_words
from generator.host.rates import SORTS, Rates, WorkerRates, quantile, rates
from generator.host.screen import screen
from tests.clients.test_client import odd_server
from tests.generator.front_door import COMMAND, ENVIRONMENT, ROOT, process, wsbundle
from tests.ports import free_port
from tests.service.shells import COMMANDS, DEADLINE_S, Shell, running, wait_until
from tools.sample_stats import answers as sample


@pytest.fixture
def busy() -> Iterator[Shell]:
    """A service of two workers on which two clients talk."""
    done = threading.Event()
    with running(COMMANDS["runner"], WORKERS="2") as shell, shell.client() as alice, shell.client() as bob:
        alice.register("alice")

        def talk() -> None:
            with contextlib.suppress(ConnectionClosed):  # a test may end the service
                while not done.is_set():
                    bob.send_to("alice", "hello")
                    bob.send_to("nobody", "hello")
                    alice.receive()

        thread = threading.Thread(target=talk)
        thread.start()
        yield shell
        done.set()
        thread.join()


def arguments(port: int, *more: str) -> list[str]:
    return ["top", *more, "--set", f"port={port}", "--set", "domain=ws.mycompany.org"]


@pytest.mark.slow
def test_once_it_shows_connections_rates_and_each_worker(busy: Shell) -> None:
    outcome = process([*COMMAND, *arguments(busy.port, "--once")], cwd=ROOT)
    assert (outcome.code, outcome.err) == (0, "")
    head, *lines = outcome.out.splitlines()
    assert head.startswith("ws.mycompany.org  ● running  wsbundle 0.1.0, uvicorn, up ")
    rows = {line.split()[0]: line for line in lines if line}
    assert "2 of 1,000" in rows["connections"]
    assert "in 0/s" not in rows["messages"]
    assert "out 0/s" not in rows["messages"]
    assert "p50 -" not in rows["delivery"]
    assert "none" in rows["refused"]
    workers = lines[[line.startswith("host ") for line in lines].index(True) + 1 :]
    assert len(workers) == 2
    assert sum(int(line.split(" s  ")[1].split()[0]) for line in workers) == 2


@pytest.mark.slow
def test_as_json_it_is_what_stats_says_with_rates(busy: Shell) -> None:
    outcome = wsbundle(*arguments(busy.port, "--format", "json"))
    told = json.loads(outcome.out)
    assert (outcome.code, told["format"], told["exit_code"]) == (0, 1, 0)
    assert told["stats"]["service"]["connections"] == 2
    assert told["rates"]["routed"] > 0
    assert told["rates"]["received"] > told["rates"]["routed"]
    assert set(told["rates"]["workers"]) == {str(worker["pid"]) for worker in told["stats"]["workers"]}


def test_where_nothing_answers_it_fails_and_says_where_it_asked() -> None:
    port = free_port()
    outcome = wsbundle(*arguments(port))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"queue-websocket does not answer at 127.0.0.1:{port}: Connection refused; see ")


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b"5", b"[" * 100_000], ids=range(5))
def test_where_another_program_answers_it_says_so(body: bytes) -> None:
    with odd_server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as port:
        outcome = wsbundle(*arguments(port))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"queue-websocket does not answer at 127.0.0.1:{port}: another program answers there")


@pytest.mark.slow
def test_in_a_terminal_it_refreshes_sorts_outlives_the_service_and_ends(busy: Shell) -> None:
    terminal, end = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    command = [*COMMAND, *arguments(busy.port)]
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # EIO: the other end is closed
                return
            if not part:
                return
            seen.extend(part)

    with subprocess.Popen(command, cwd=ROOT, stdin=end, stdout=end, stderr=end, env=environment) as top:
        os.close(end)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            wait_until(lambda: b"sort by connections" in seen and b" delivery " in seen.replace(b"\x1b[2m", b" "))
            os.write(terminal, b"s")
            wait_until(lambda: b"sort by in" in seen)
            before = seen.count(b"sort by in")
            wait_until(lambda: seen.count(b"sort by in") > before + 1)
            busy.process.kill()
            wait_until(lambda: b"not answering since" in seen)
            os.write(terminal, b"q")
            assert top.wait(DEADLINE_S) == 0
        finally:
            top.kill()
    reader.join(DEADLINE_S)
    os.close(terminal)
    assert b"\x1b[?1049l" in seen  # what the terminal showed before is back


def answer(at: float, received: int, within: dict[str, int] | None = None, pid: int = 1, cpu: float = 0.0) -> Any:
    service = {
        "messages_received": received,
        "messages_routed": received,
        "connections_accepted": {"v0": 0},
        "messages_dropped": {"nobody": 0},
        "bytes": {"in": 0, "out": 0},
        "handshakes_refused": {"403": 0},
        "connections_closed": {"4101": 0},
        "delivery_seconds": {"within": within or {"0.01": 0, "+Inf": 0}, "seconds": 0.0},
    }
    worker = {"pid": pid, "messages_received": received, "messages_routed": received, "cpu_seconds": cpu}
    return {"time": at, "service": service, "workers": [{**worker, "connections": 0, "memory_bytes": 0}]}


def test_rates_are_per_second_and_a_restart_has_none() -> None:
    between = rates(answer(12.0, 30, cpu=1.5), answer(10.0, 10, cpu=1.0))
    assert between is not None
    assert (between.received, between.workers[1].cpu) == (10.0, 0.25)
    assert rates(answer(12.0, 5), answer(10.0, 10)) is None
    fresh = rates(answer(12.0, 30, pid=2), answer(10.0, 10))
    assert fresh is not None
    assert fresh.workers[2].received is None
    worker = answer(12.0, 1)["workers"][0]
    assert [sort((worker, between.workers[1])) for sort in SORTS.values()] == [0, 10.0, 10.0, 0.25, 0]


@pytest.mark.parametrize(("up", "shown"), [(1, "up, 2 other hosts reached, beat 3 ms"), (0, "away, 2 other hosts")])
def test_the_engine_has_a_row_where_there_is_one(up: int, shown: str) -> None:
    stats = sample()[-1]
    assert "engine" not in drawn(stats)
    stats["service"] |= {"engine_up": up, "engine_hosts": 2, "engine_beat_seconds": 0.003}
    assert shown in drawn(stats)


def test_it_says_how_many_connections_restarts_and_reloads_have_kept() -> None:
    stats = sample()[-1]
    assert "kept 410 of 410 connections" in drawn(stats)
    stats["service"]["connections_not_taken_over"]["gone"] = 3
    assert "kept 410 of 413 connections   its client had gone 3" in drawn(stats)
    assert "no connections from an earlier process" in drawn(sample()[0])
    del stats["service"]["connections_taken_over"]
    assert "restarts" not in drawn(stats)


def test_a_worker_that_does_not_answer_has_a_row_that_says_so() -> None:
    before, stats = sample()[-2:]
    stats["service"]["workers_counted"] = 1
    stats["workers"][1]["stale_since"] = stats["time"] - 12
    between = rates(stats, before)
    assert between is not None
    assert between.workers[stats["workers"][1]["pid"]].received is None
    text = drawn(stats, rates=between)
    assert "● 1 of 2 workers do not answer" in text
    (row,) = [line for line in text.splitlines() if "no answer for 12 s" in line]
    assert re.search(r"12 s +331 +- +- +0 B .* - +46.2 MiB", row)


def test_a_host_of_which_a_worker_does_not_answer_says_so() -> None:
    stats = {**sample()[-1], "time": 122.0, "hosts": of_hosts(122.0)["hosts"][:2]}
    stats["hosts"][1]["stale_since"] = 110.0
    text = drawn(stats)
    assert "● a worker of there does not answer" in text
    assert "no answer for 12 s" in text


def of_hosts(at: float) -> Any:
    """This host with one that answers, one that does not, and one that is away."""
    told = answer(at, round(at))
    counted = {"messages_received": 3 * round(at), "messages_routed": 0, "cpu_seconds": at / 4}
    figures = {**counted, "queue_bytes": 0, "loop_lag_seconds": 0.001, "memory_bytes": 2**25}
    told["hosts"] = [
        {"host": "here", "id": "", "up": True, "since": 0.0, "workers": 1, "connections": 1_200, **figures},
        {"host": "there", "id": "b", "up": True, "since": 60.0, "workers": 2, "connections": 7, **figures},
        {"host": "stuck", "id": "c", "up": True, "since": 60.0, "workers": 1, "connections": 9},
        {"host": "gone", "id": "d", "up": False, "since": at - 12, "workers": 0, "connections": 0},
    ]
    return told


def test_each_host_has_a_row_where_there_is_an_engine() -> None:
    between = rates(of_hosts(122.0), of_hosts(120.0))
    assert between is not None
    assert (between.hosts["b"].received, between.hosts["b"].cpu) == (3.0, 0.25)
    assert between.hosts["c"].received is None
    stats = sample()[-1]
    assert "reached" not in drawn(stats)
    hosts = of_hosts(122.0)["hosts"]
    workers = {worker["pid"]: WorkerRates() for worker in stats["workers"]}
    between = msgspec.structs.replace(between, workers=workers)
    rows = drawn({**stats, "time": 122.0, "hosts": hosts}, rates=between).splitlines()[-4:]
    assert [row.split() for row in rows] == [
        ["here", "1", "since", "2", "min", "1,200", "3", "0", "0", "B", "1", "ms", "25%", "32", "MiB"],
        ["there", "2", "since", "1", "min", "7", "3", "0", "0", "B", "1", "ms", "25%", "32", "MiB"],
        ["stuck", "1", "since", "1", "min", "9", "-", "-", "-", "-", "-", "-"],
        ["gone", "0", "away", "since", "12", "s", "0", "-", "-", "-", "-", "-", "-"],
    ]
    assert "● gone away" in drawn({**stats, "time": 122.0, "hosts": hosts})
    narrow = drawn({**stats, "time": 122.0, "hosts": hosts}, 40).splitlines()[-5:]
    assert narrow[0].split()[-2:] == ["reached", "connections"]


@pytest.mark.parametrize("width", [60, 40])
def test_of_hosts_with_long_names_no_number_is_cut(width: int) -> None:
    hosts = of_hosts(122.0)["hosts"]
    for host in hosts:
        host["host"] = "ip-10-20-30-40.eu-central-1.compute.internal"
    table = drawn({**sample()[-1], "time": 122.0, "hosts": hosts}, width).splitlines()[-5:]
    assert table[0].split() == ["host", "reached", "connections"]
    assert [(row.split()[0][:6], row.split()[-1], len(row) <= width) for row in table[1:]] == [
        ("ip-10-", connections, True) for connections in ("1,200", "7", "9", "0")
    ]


@pytest.mark.parametrize("width", [120, 80, 60, 40])
def test_in_a_narrow_terminal_columns_are_left_out_and_none_is_cut(width: int) -> None:
    stats = sample()[-1]
    for worker in stats["workers"]:
        worker["host"] = "ip-10-20-30-40.eu-central-1.compute.internal"
    table = drawn(stats, width).partition("\n\n")[2].partition("\n\n")[2]
    assert "connections" in table
    assert "\u2026" not in table
    assert ("host" in table) == (width == 120)


def drawn(stats: Any, width: int = 120, rates: Rates | None = None) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(screen("ws.example.com", stats, rates, "connections"))
    return console.export_text()


def test_a_quantile_lies_within_its_bucket() -> None:
    before = {"within": {"0.01": 10, "0.1": 0, "+Inf": 0}}
    now = {"within": {"0.01": 20, "0.1": 10, "+Inf": 1}}
    assert quantile(0.5, now, before) == pytest.approx(0.01 + 0.09 * 0.5 / 10)
    assert quantile(1.0, now, before) == 0.1
    assert quantile(0.5, now, now) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (number(1234.5), "1,234"),
        (number(1.25), "1.2"),
        (number(3.0), "3"),
        (number(None), "-"),
        (size(0), "0 B"),
        (size(1536), "1.5 KiB"),
        (size(5 * 1024**5), "5,120 TiB"),
        (time_in_words(0.00027), "0.27 ms"),
        (time_in_words(2.5), "2.5 s"),
        (time_in_words(None), "-"),
        (duration(59), "59 s"),
        (duration(3599), "59 min"),
        (duration(7260), "2 h 1 min"),
        (duration(90_000), "1 d 1 h"),
    ],
)
def test_quantities_are_read_at_a_glance(words: str, expected: str) -> None:
    assert words == expected
