"""One table of figures: `/stats` and `/metrics` say the same, and it is what happened."""

import asyncio
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.core.bus import PATIENCE_S
from service.core.figures import FIGURES, service
from service.core.pace import Lag, Stopwatch
from service.core.plain_http import REFUSALS
from service.core.tally import Tally
from service.web.metrics import metrics
from service.web.stats import stats
from service.web.watching import Watching
from tests.service.centers import FakeClient, World
from tests.service.engines import hosts
from tests.service.shells import COMMANDS, DEADLINE_S, Shell, running, wait_until


def shown(world: World) -> Any:
    return json.loads(stats(service(world.center)).body)


def ask(shell: Shell, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{shell.port}{path}", timeout=DEADLINE_S) as answer:
        body: bytes = answer.read()
        return body


@pytest.fixture(scope="module", params=COMMANDS)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with running(COMMANDS[request.param]) as shell:
        yield shell


def test_what_clients_send_and_get_is_counted_to_the_byte_whichever_way_it_was_started(shell: Shell) -> None:
    before = json.loads(ask(shell, "/stats"))["service"]
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        texts = [f'{{"recipient_uuid": "alice", "message": {number}}}' for number in range(50)]
        for text in texts:
            bob.send(text)
        assert [alice.receive() for _ in texts] == texts
        bob.hears_nothing_but_itself()
        after = json.loads(ask(shell, "/stats"))["service"]
        assert after["connections"] == before["connections"] + 2
    # Alice registers and asks whether that has taken effect; Bob asks at the end.
    assert after["messages_received"] - before["messages_received"] == 50 + 2 + 1
    assert after["messages_routed"] - before["messages_routed"] == 50 + 1 + 1
    asked = sum(
        len(json.dumps({"recipient_uuid": each.temporary_uuid, "message": "are you there?"})) for each in (alice, bob)
    )
    length = sum(map(len, texts)) + asked + len('{"recipient_uuid": "alice", "message": "connected"}')
    assert after["bytes"]["in"] - before["bytes"]["in"] == length
    assert after["bytes"]["out"] - before["bytes"]["out"] > sum(map(len, texts)) + asked
    # What was counted of a client outlives it.
    wait_until(lambda: json.loads(ask(shell, "/stats"))["service"]["connections"] == before["connections"])
    gone = json.loads(ask(shell, "/stats"))["service"]
    assert gone["messages_received"] == after["messages_received"]
    assert gone["bytes"]["in"] == after["bytes"]["in"]
    assert gone["bytes"]["out"] >= after["bytes"]["out"]


def test_deliveries_are_timed_whichever_way_it_was_started(shell: Shell) -> None:
    with shell.client() as alice:

        def is_timed() -> bool:
            alice.hears_nothing_but_itself()
            return bool(sum(json.loads(ask(shell, "/stats"))["service"]["delivery_seconds"]["within"].values()))

        wait_until(is_timed)


def test_stats_says_who_serves(shell: Shell) -> None:
    answer = json.loads(ask(shell, "/stats"))
    (worker,) = answer["workers"]
    assert answer["format"] == 1
    command = " ".join(map(str, cast(list[str], shell.process.args)))
    is_standalone = "server.py" in command or "service.server" in command
    assert answer["server"] == ("standalone" if is_standalone else "gunicorn" if "gunicorn" in command else "uvicorn")
    assert worker["memory_bytes"] > 1_000_000
    assert worker["cpu_seconds"] > 0
    assert abs(answer["time"] - worker["start_time_seconds"]) < 600
    # gunicorn's worker is another process than the one that was started.
    assert worker["pid"] == shell.process.pid or answer["server"] == "gunicorn"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install -y prometheus")
def test_prometheus_own_lint_finds_no_fault_in_the_real_answer(shell: Shell) -> None:
    def faults(text: bytes) -> str:
        run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
        return run.stdout.decode() + run.stderr.decode()

    text = ask(shell, "/metrics")
    assert faults(text) == ""
    assert "_total" in faults(text.replace(b"wsbundle_messages_routed_total", b"wsbundle_messages_routed"))


@pytest.mark.parametrize("engine", [False, True])
def test_metrics_and_stats_say_the_same(engine: bool) -> None:
    world = hosts(2)[1][0] if engine else World()
    alice = world.v1("alice")
    alice.say(type="send", id=1, recipient_uuid="alice", message="x")
    alice.say(type="send", id=2, recipient_uuid="nobody", message="x")
    world.center.hub.tally.delivered = {"0.001": 3, "inf": 1}
    seen = service(world.center)
    text, whole = metrics(seen).body.decode(), json.loads(stats(seen).body)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for figure in seen.figures:
        told = whole["service"][figure.name]
        if figure.by_worker:
            pid = str(whole["workers"][0]["pid"])
            assert samples[figure.series_by_worker, pid] == whole["workers"][0][figure.name]
        if figure.by_worker == "only":
            continue
        if figure.kind == "histogram":
            assert samples[f"{figure.series}_count",] == sum(told["within"].values())
        elif figure.label:
            assert {label: samples[figure.series, label] for label in told} == told
        else:
            assert samples[figure.series,] == told
    assert set(whole["service"]) == {figure.name for figure in FIGURES if engine or not figure.needs_engine}
    assert samples["wsbundle_delivery_seconds_count",] == 4
    assert samples["wsbundle_delivery_seconds_bucket", "0.0025"] == 3
    assert whole["service"]["messages_routed"] == 1
    assert whole["service"]["messages_dropped"]["nobody"] == 1 - engine  # with one, the other host is asked first
    assert whole["service"]["messages_received"] == 3


def test_stats_has_each_host_this_one_first(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, (here, there, gone) = hosts(3)
    for world in (here, there, there):
        world.v1()
    there.v1("alice").say(type="send", id=1, recipient_uuid="alice", message="x")
    engine.settle()
    engine.hosts.pop("c.7")
    gone.is_deaf = True
    engine.passes(10)

    async def asked() -> Any:
        watching = Watching(here.center)
        answer = asyncio.create_task(watching.answer("GET", "/stats", passed_on=False))
        while not answer.done():
            await asyncio.sleep(0)
            engine.settle()
        return json.loads(answer.result().body)

    (ours, theirs, lost) = asyncio.run(asked())["hosts"]
    assert (ours["id"], ours["up"], ours["workers"], ours["connections"]) == ("", True, 1, 1)
    assert (theirs["host"], theirs["id"], theirs["up"], theirs["workers_counted"]) == ("b.example", "b", True, 1)
    assert (theirs["connections"], theirs["messages_routed"], theirs["messages_received"]) == (3, 1, 2)
    assert (lost["host"], lost["up"], lost["workers"], lost["connections"]) == ("c.example", False, 0, 0)
    assert lost["since"] == pytest.approx(here.center.now() - 6, abs=4)
    assert "cpu_seconds" not in lost
    # One that does not answer is shown as it was, and not waited for again.
    there.is_deaf = True

    told_at = here.center.now()
    (_, was, _) = asyncio.run(asked())["hosts"]
    assert (was["messages_routed"], was["workers_counted"], was["up"], was["stale_since"]) == (1, 0, True, told_at)
    here.time += PATIENCE_S
    monkeypatch.setattr("service.web.watching.PATIENCE_S", 2 * DEADLINE_S)
    again = asyncio.run(asyncio.wait_for(asked(), DEADLINE_S))["hosts"][1]
    assert (again["messages_routed"], again["stale_since"]) == (1, told_at)
    # One that does not answer is still one whose clients are known.
    (_, stuck, _) = json.loads(stats(service(here.center)).body)["hosts"]
    assert (stuck["up"], stuck["workers"], stuck["workers_counted"], stuck["connections"]) == (True, 1, 0, 3)


def test_every_refusal_and_every_close_code_has_words() -> None:
    words = shown(World())["words"]
    assert {str(refusal.status) for refusal in REFUSALS} <= words["handshakes_refused"].keys()
    assert words["connections_closed"]["4101"] == "slow consumer"
    assert words["connections_closed"]["1009"] == "message too long or too many fragments"


def test_what_is_no_message_is_not_counted_as_one() -> None:
    world = World()
    alice = world.v1("alice")
    bob = world.v1("bob")
    bob.say(type="send", id=1, recipient_uuid="alice", message="x", ack="delivered")
    (heard,) = alice.heard()
    alice.say(type="ack", key=heard["key"])  # which the service has asked for
    alice.session.pay(1, 5)  # a ping
    assert shown(world)["service"]["messages_received"] == 3


def test_a_message_to_a_group_is_one_that_was_sent_and_many_that_were_routed() -> None:
    world = World()
    parties = [world.v1(f"party-{number}") for number in range(4)]
    for party in parties:
        party.say(type="join", id=1, group="g")
    before = shown(world)["service"]
    parties[0].say(type="send", id=2, group="g", message="x")
    after = shown(world)["service"]
    assert after["messages_received"] - before["messages_received"] == 1
    assert after["messages_routed"] - before["messages_routed"] == 3


def test_no_count_ever_falls_whatever_is_sent() -> None:
    world = World()
    alice = world.v1("alice")
    last: dict[str, Any] = {"messages_received": 0, "bytes": {"in": 0, "out": 0}}
    for number in range(500):
        if number % 3 == 0:
            alice.say(type="hello", id=number, token="guess")  # a guess, which costs more than a message
        alice.session.receive(b'{"type": "send", "recipient_uuid": "nobody", "message": NaN}')
        if number % 7 == 0:
            world.passes(0.3)
            world.turns()
        now = shown(world)["service"]
        assert now["messages_received"] >= last["messages_received"]
        assert now["bytes"]["in"] >= last["bytes"]["in"]
        last = now


def test_the_lag_is_the_longest_of_the_last_seconds() -> None:
    now = [100.0]
    lag = Lag(lambda: now[0])
    assert lag.longest_s == 0.0
    for at, seconds in ((100.0, 0.2), (105.0, 0.5), (106.0, 0.1)):
        now[0] = at
        lag.note(seconds)
    assert lag.longest_s == 0.5
    now[0] = 120.5
    assert lag.longest_s == 0.1
    now[0] = 130.0
    assert lag.longest_s == 0.0


def test_a_delivery_is_timed_until_the_client_has_taken_it_and_one_that_is_lost_is_not() -> None:
    now, tally = [100.0], Tally()
    stopwatch = Stopwatch(tally, lambda: now[0], lambda act: act())
    for taken in (True, False):
        client = FakeClient()
        client.reads_slowly = True
        stopwatch.time(client)
        now[0] += 0.3
        client.leaving.pop()(taken)
    assert not stopwatch.is_due
    assert tally.delivered == {"0.5": 1}
    assert tally.delivery_s == pytest.approx(0.3)
