"""What the log tells about clients."""

from collections.abc import Mapping

from service.core.admission import Admission, Handshake, admit
from service.core.close_codes import SLOW_CONSUMER
from service.core.events import Events
from tests.service.centers import FakeClient, World, limits

Told = list[tuple[str, dict[str, object]]]


def listened(world: World) -> Told:
    """What is told from now on."""
    told: Told = []

    def tell(event: str, facts: Mapping[str, object]) -> None:
        told.append((event, dict(facts)))

    world.center.events = Events(tell)
    return told


def test_the_life_of_a_client_is_told_from_its_handshake_to_its_end() -> None:
    world = World()
    told = listened(world)
    handshake = Handshake("192.0.2.1", ("https://example.com",), ("Bearer SECRET",), ("nc.v1", "bearer.SECRET"))
    admission = admit(world.center, handshake)
    assert isinstance(admission, Admission)
    session = admission.open(world.center, FakeClient())
    session.receive(b'{"type": "hello", "id": 1, "uuid": "alice"}')
    session.receive(b'{"recipient_uuid": "alice", "message": "SECRET"}')
    world.passes(2.5)
    session.end()
    uuid = session.addresses[0]
    assert told == [
        (
            "connected",
            {"uuid": uuid, "protocol": "nc.v1", "address": "192.0.2.1", "origin": "https://example.com"},
        ),
        ("registered", {"uuid": uuid, "registered": "alice"}),
        ("closed", {"uuid": uuid, "seconds": 2.5}),
    ]
    assert "SECRET" not in str(told)


def test_a_client_that_the_service_closes_is_told_with_the_reason_and_once() -> None:
    world = World(limits=limits(registrations=1))
    told = listened(world)
    party = world.v0()
    party.register("a")
    party.register("b")
    party.session.end()
    party.session.end()
    assert told[-1] == (
        "closed",
        {"uuid": party.welcome.decode(), "code": 4008, "reason": "too many addresses", "seconds": 0.0},
    )
    assert [event for event, _ in told] == ["registered", "closed"]


def test_a_client_that_its_shell_closes_is_told_with_that_reason() -> None:
    world = World()
    told = listened(world)
    world.v0().session.end(SLOW_CONSUMER)
    assert told[-1][1]["code"] == 4101


def test_a_handshake_that_is_refused_is_told() -> None:
    world = World(origins=("https://good.example",))
    told = listened(world)
    admit(world.center, Handshake("192.0.2.1", ("https://evil.example",), ("Bearer SECRET",)))
    assert told == [("refused", {"status": 403, "address": "192.0.2.1", "origin": "https://evil.example"})]


def test_where_nobody_hears_it_nothing_is_told() -> None:
    world = World()
    told: Told = []
    is_heard = False
    world.center.events = Events(lambda event, facts: told.append((event, dict(facts))), lambda: is_heard)
    admission = admit(world.center, Handshake("192.0.2.1"))
    assert isinstance(admission, Admission)
    admission.open(world.center, FakeClient()).end()
    assert told == []
    is_heard = True
    admission.open(world.center, FakeClient()).end()
    assert [event for event, _ in told] == ["connected", "closed"]
