"""The figures for Prometheus, read back by its own parser."""

import re
import subprocess
import sys
from collections.abc import Sequence
from uuid import uuid4

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from service.core import drops
from service.core.admission import Handshake, admit
from service.core.close_codes import TOO_MANY_ADDRESSES
from service.core.figures import service
from service.core.standing import Standing
from service.web.metrics import metrics
from service.web.publish import Publisher, Request
from tests.service.centers import World
from tests.service.shells import ROOT, clean_environment
from tools.figures_table import with_figures

Series = dict[tuple[str, str], float]


def scraped(world: World, others: Sequence[Standing] = ()) -> Series:
    """Every series by its name and the value of its label."""
    families = text_string_to_metric_families(metrics(service(world.center, others)).body.decode())
    return {
        (sample.name, "".join(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_the_format_is_that_of_prometheus() -> None:
    assert dict(metrics(service(World().center)).headers)["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_every_reason_to_drop_a_message_is_there_from_the_start() -> None:
    dropped = {label: value for (name, label), value in scraped(World()).items() if "dropped" in name}
    assert dropped == dict.fromkeys(drops.ALL, 0)


def test_what_happens_is_counted() -> None:
    world = World(origins=("https://good.example",))
    alice, bob = world.v0(), world.v1("bob")
    alice.say(recipient_uuid="bob", message="hello")
    alice.say(recipient_uuid="nobody-is-this", message="hello")
    alice.session.close(TOO_MANY_ADDRESSES)
    bob.session.end()
    admit(world.center, Handshake(origins=("https://evil.example",)))
    world.center.draining = True
    series = scraped(world)
    expected = {
        ("wsbundle_connections", ""): 1,
        ("wsbundle_draining", ""): 1,
        ("wsbundle_connections_accepted_total", "v0"): 1,
        ("wsbundle_connections_accepted_total", "nc.v1"): 1,
        ("wsbundle_connections_closed_total", "4008"): 1,
        ("wsbundle_connections_closed_total", "1012"): 0,
        ("wsbundle_handshakes_refused_total", "503"): 0,
        ("wsbundle_messages_routed_total", ""): 1,
        ("wsbundle_messages_dropped_total", "nobody"): 1,
        ("wsbundle_limit", "connections"): 1000,
    }
    assert {name: series[name] for name in expected} == expected
    assert series["wsbundle_handshakes_refused_total", "403"] == 1


def test_the_process_is_measured() -> None:
    series = scraped(World())
    assert series["process_resident_memory_bytes", ""] > 1_000_000
    assert series["process_open_fds", ""] > 2


def test_every_worker_says_the_same_of_when_the_youngest_began() -> None:
    """Prometheus would see a restart whenever it asks another one."""
    one, other = World(), World()
    ours = one.center.standing()
    younger = msgspec.structs.replace(ours, pid=ours.pid + 1, since=ours.since + 60)
    for asked, told in ((one, [younger]), (other, [younger, ours])):
        assert scraped(asked, told)["process_start_time_seconds", ""] == younger.since


def test_the_number_of_series_is_constant_whatever_clients_do() -> None:
    world = World()
    publisher = Publisher(world.center)
    before = scraped(world).keys()
    party = world.v0()
    for _ in range(10_000):
        name = str(uuid4())
        party.say(recipient_uuid=name, message=name)
        admit(world.center, Handshake(client_address=name, origins=(f"https://{name}.example",), subprotocols=(name,)))
        publisher.count(publisher.admit(Request("POST", f"/publish/{name}", {"authorization": [f"Bearer {name}"]})))  # type: ignore[arg-type]
    after = scraped(world)
    assert after.keys() == before
    assert after["wsbundle_messages_dropped_total", "nobody"] == 10_000
    assert after["wsbundle_publications_total", "401"] == 10_000


def test_the_documents_say_what_every_series_and_every_reason_means() -> None:
    whole = (ROOT / "docs" / "watch.md").read_text()
    assert with_figures(whole) == whole, "run make docs"
    page = whole.partition("## Metrics")[2].partition("\n## ")[0]
    explained = {
        word for line in page.splitlines() if line.startswith("| `") for word in re.findall("`([a-z_]+)", line)
    }
    series = scraped(World())
    assert {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name, _ in series} <= explained
    assert {label for name, label in series if name == "wsbundle_messages_dropped_total"} <= explained


def test_the_library_is_loaded_when_somebody_asks_and_not_before() -> None:
    program = (
        "import asyncio, sys; from service.app import app; assert 'prometheus_client' not in sys.modules;"
        "from service.web.watching import Watching; watching = Watching(app.center);"
        "asyncio.run(watching.answer('GET', '/metrics', passed_on=False));"
        "assert 'prometheus_client' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), check=True, timeout=60)
