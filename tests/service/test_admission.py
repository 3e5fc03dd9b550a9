"""Who may connect, and what as."""

from typing import Any

import pytest

from service.core.admission import Admission, Handshake, admit, client_address
from service.core.events import Events
from service.core.plain_http import Answer
from tests.service.centers import FakeClient, World, identity, limits


def status(world: World, **handshake: Any) -> int:
    """101, or the status of the refusal."""
    decision = admit(world.center, Handshake(**handshake))
    return decision.status if isinstance(decision, Answer) else 101


def admitted(world: World, **handshake: Any) -> Admission:
    decision = admit(world.center, Handshake(**handshake))
    assert isinstance(decision, Admission)
    return decision


def test_who_offers_no_subprotocol_speaks_v0_and_who_offers_ours_speaks_it() -> None:
    world = World()
    for offered, selected in [((), None), (("chat",), None), (("chat", "nc.v1"), "nc.v1"), (("NC.V1",), None)]:
        admission = admitted(world, subprotocols=offered)
        assert admission.subprotocol == selected
        assert admission.open(world.center, FakeClient()).protocol == (selected or "v0")


def test_one_more_than_limits_connections_is_refused_until_one_has_left() -> None:
    world = World(limits=limits(connections=2))
    first, _ = world.v0(), world.v0()
    assert status(world) == 503
    first.session.end()
    assert status(world) == 101
    assert world.center.hub.tally.refused == {503: 1}


def test_one_address_holds_so_many_connections_and_no_more() -> None:
    world = World(limits=limits(connections_per_address=2))
    first, _ = world.v0(address="192.0.2.1"), world.v0(address="192.0.2.1")
    assert status(world, client_address="192.0.2.1") == 429
    assert status(world, client_address="192.0.2.2") == 101
    assert status(world, client_address=None) == 101
    first.session.end()
    assert status(world, client_address="192.0.2.1") == 101


def test_a_service_that_is_about_to_stop_lets_nobody_in() -> None:
    world = World()
    world.center.draining = True
    assert status(world) == 503


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://good.example", 101),
        ("HTTPS://Good.Example", 101),
        ("https://good.example:8443", 101),
        ("https://evil.example", 403),
        ("https://good.example.evil", 403),
        ("https://evil.good.example", 403),
        ("https://good.example:444", 403),
        ("http://good.example", 403),
        ("https://good.example/", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_pages_of_the_listed_origins_may_connect(origin: str, expected: int) -> None:
    world = World(origins=("https://good.example", "https://good.example:8443"))
    assert status(world, origins=(origin,)) == expected


def test_two_origins_are_none_that_can_be_trusted() -> None:
    world = World(origins=("https://good.example",))
    assert status(world, origins=("https://good.example", "https://good.example")) == 403


def test_a_program_has_no_origin_and_needs_none() -> None:
    assert status(World(origins=("https://good.example",))) == 101


def test_without_a_list_every_page_may_connect() -> None:
    assert status(World(), origins=("https://any.example",)) == 101


def test_with_tokens_a_client_of_v0_shows_its_own_in_the_handshake() -> None:
    world = World(auth="token")
    world.tokens["good"] = identity("alice")
    assert status(world) == 401
    assert status(world, authorizations=("Bearer wrong",)) == 401
    assert status(world, authorizations=("Basic good",)) == 401
    assert admitted(world, authorizations=("bearer good",)).identity == identity("alice")
    assert admitted(world, subprotocols=("bearer.good",)).subprotocol is None


def test_a_client_of_nc_v1_may_show_its_token_later() -> None:
    world = World(auth="token")
    world.tokens["good"] = identity("alice")
    assert admitted(world, subprotocols=("nc.v1",)).identity is None
    shown = admitted(world, subprotocols=("nc.v1", "bearer.good"))
    assert (shown.subprotocol, shown.identity) == ("nc.v1", identity("alice"))
    assert status(world, subprotocols=("nc.v1", "bearer.wrong")) == 401


def test_without_tokens_nobody_asks_for_one() -> None:
    assert admitted(World(), authorizations=("Bearer whatever",)).identity is None


@pytest.mark.parametrize("listed", ["https://good.example", "https://good.example:443"])
def test_the_usual_port_may_stand_in_the_list_and_is_never_named_by_a_browser(listed: str) -> None:
    world = World(origins=(listed, "http://plain.example:80"))
    assert status(world, origins=("https://good.example",)) == 101
    assert status(world, origins=("http://plain.example",)) == 101
    assert status(world, origins=("http://good.example",)) == 403


def test_what_is_refused_is_counted_and_told() -> None:
    told: list[tuple[str, object]] = []
    world = World(origins=("https://good.example",))
    world.center.events = Events(lambda event, facts: told.append((event, facts["status"])))
    status(world, origins=("https://evil.example",))
    assert told == [("refused", 403)]
    assert world.center.hub.tally.refused == {403: 1}


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("2001:db8:1:2:3:4:5:6", True, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", False, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", False, "fe80::/64"),
        ("::ffff:192.0.2.1", True, "192.0.2.1"),
        ("::ffff:127.0.0.1", False, None),
        ("::ffff:127.0.0.1", True, "127.0.0.1"),
        ("not:an:address", True, "not:an:address"),
        ("192.0.2.1", False, "192.0.2.1"),
        ("192.0.2.1", True, "192.0.2.1"),
        ("127.0.0.1", False, None),
        ("::1", False, None),
        ("127.0.0.1", True, "127.0.0.1"),
        (None, False, None),
        ("", True, None),
    ],
)
def test_programs_of_this_host_have_no_address_that_a_limit_concerns(
    peer: str | None, forwarded: bool, counted: str | None
) -> None:
    assert client_address(peer, forwarded) == counted
