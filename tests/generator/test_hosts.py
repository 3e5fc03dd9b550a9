"""Whether hosts have met: what their workers say of themselves on the engine, and what follows from it."""

import re
from pathlib import Path

import msgspec
import pytest

from generator.config.schema import Deploy
from generator.host import engine
from generator.host.hosts import RefusedError, Worker, _later, _worker, has_met, password_in
from generator.host.store import Store
from service.declaration import struct_from
from service.engine.envelope import Beat, Bye, encode
from service.engine.identity import name_of_this_host
from service.settings import Engine

ONE, TWO = "one.1.a", "two.1.b"


def beat(**links: tuple[int, int, int, int]) -> bytes:
    named = {name.replace("_", "."): numbers for name, numbers in links.items()}
    return encode(Beat(ONE, "one", "boot", (1, 1), 4.0, 7, 1.5, named))


def worker(name: str, **links: tuple[int, int]) -> Worker:
    return Worker(
        name, name.partition(".")[0], 4.0, {other.replace("_", "."): numbers for other, numbers in links.items()}
    )


def test_a_beat_says_whom_a_worker_has_met() -> None:
    said = _worker(beat(two_1_b=(5, 6, 3, 2), three_1_c=(5, 0, 0, 0)))
    assert said == Worker(ONE, "one", 4.0, {TWO: (3, 2)})


def test_a_later_release_may_say_more() -> None:
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(beat(two_1_b=(5, 6, 3, 2))), "news"])
    assert _worker(longer) == Worker(ONE, "one", 4.0, {TWO: (3, 2)})


@pytest.mark.parametrize(
    "data", [encode(Bye(ONE)), b"", b"hello", encode(Bye("x")).replace(b"x", b"\xff"), msgspec.msgpack.encode({"a": 1})]
)
def test_all_else_says_nothing_of_that(data: bytes) -> None:
    assert _worker(data) is None


def test_they_have_met_when_each_has_taken_what_the_other_had_sent() -> None:
    two = worker(TWO, one_1_a=(2, 3))
    assert has_met("one", [worker(ONE, two_1_b=(3, 2)), two], "two")
    assert not has_met("one", [worker(ONE, two_1_b=(4, 2)), two], "two")
    assert not has_met("one", [worker(ONE, two_1_b=(3, 1)), two], "two")
    assert not has_met("one", [worker(ONE), two], "two")
    assert not has_met("one", [two], "two")


def test_every_worker_of_both_must_have() -> None:
    workers = [worker(ONE, two_1_b=(3, 2)), worker(TWO, one_1_a=(2, 3)), worker("two.2.c")]
    assert not has_met("one", workers, "two")


def test_what_is_under_way_while_they_talk_is_not_waited_for() -> None:
    one = _later(worker(ONE, two_1_b=(3, 1)), worker(ONE, two_1_b=(9, 2)))
    assert has_met("one", [one, worker(TWO, one_1_a=(2, 3))], "two")


def test_a_host_that_is_named_has_that_name() -> None:
    assert name_of_this_host(Engine(host="berlin")) == "berlin"
    assert len(name_of_this_host(Engine())) == 12


def test_a_password_is_the_text_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes("gehäim\n".encode())
    assert password_in(file) == "gehäim"


@pytest.mark.parametrize(
    ("content", "what"), [(b"geh\xe4im\n", "is not text in UTF-8"), (b" \n", "is empty"), (None, "cannot be read")]
)
def test_a_password_that_is_none_is_refused_in_words(content: bytes | None, what: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RefusedError, match=re.escape(f"{file} {what}")):
        password_in(file)


def test_a_password_that_is_none_stops_an_installation_before_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"geh\xe4im\n")
    said = {"domain": "a.org", "engine.url": "valkeys://10.0.0.5", "engine.password_file": str(file)}
    [fault] = engine.faults(struct_from(Deploy, said), Store("queue-websocket", tmp_path))
    assert str(fault) == f"{file} is not text in UTF-8; write the password of the engine into it, on one line"
