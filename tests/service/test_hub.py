"""Who is connected, and where a message goes."""

import pytest

from service.hub import MAX_REGISTRATIONS, Address, Hub, TooManyRegistrationsError

TEMPORARY, ALICE = Address("temporary"), Address("alice")


def test_a_connection_is_reached_under_its_temporary_address() -> None:
    hub = Hub()
    connection = hub.connect(TEMPORARY)
    assert hub.route(TEMPORARY) == connection


def test_a_connection_is_reached_under_the_address_that_it_registered_and_still_under_the_temporary_one() -> None:
    hub = Hub()
    connection = hub.connect(TEMPORARY)
    hub.register(connection, ALICE)
    assert hub.route(ALICE) == hub.route(TEMPORARY) == connection


def test_nobody_is_reached_under_an_address_that_nobody_registered() -> None:
    assert Hub().route(ALICE) is None


def test_no_two_connections_have_the_same_number() -> None:
    hub = Hub()
    first = hub.connect(Address("1"))
    hub.disconnect(first)
    assert hub.connect(Address("2")) != first


def test_an_address_belongs_to_the_last_connection_that_registered_it() -> None:
    hub = Hub()
    before, after = hub.connect(Address("1")), hub.connect(Address("2"))
    hub.register(before, ALICE)
    hub.register(after, ALICE)
    assert hub.route(ALICE) == after


def test_an_address_goes_back_to_the_connection_that_registers_it_again() -> None:
    hub = Hub()
    first, second = hub.connect(Address("1")), hub.connect(Address("2"))
    hub.register(first, ALICE)
    hub.register(second, ALICE)
    hub.register(first, ALICE)
    assert hub.route(ALICE) == first


def test_a_connection_that_ends_leaves_no_address_behind() -> None:
    hub = Hub()
    connection = hub.connect(TEMPORARY)
    hub.register(connection, ALICE)
    hub.disconnect(connection)
    assert hub.route(ALICE) is hub.route(TEMPORARY) is None
    assert len(hub) == 0


def test_a_former_owner_that_ends_does_not_take_the_address_from_the_present_one() -> None:
    hub = Hub()
    before, after = hub.connect(Address("1")), hub.connect(Address("2"))
    hub.register(before, ALICE)
    hub.register(after, ALICE)
    hub.disconnect(before)
    assert hub.route(ALICE) == after


def test_registering_an_address_again_takes_no_room() -> None:
    hub = Hub()
    connection = hub.connect(TEMPORARY)
    for _ in range(MAX_REGISTRATIONS + 1):
        hub.register(connection, ALICE)
    assert hub.route(ALICE) == connection


def test_a_connection_registers_so_many_addresses_and_no_more() -> None:
    hub = Hub()
    connection = hub.connect(TEMPORARY)
    for number in range(MAX_REGISTRATIONS):
        hub.register(connection, Address(str(number)))
    with pytest.raises(TooManyRegistrationsError):
        hub.register(connection, ALICE)
    assert hub.route(ALICE) is None


def test_its_length_is_the_number_of_open_connections() -> None:
    hub = Hub()
    first = hub.connect(Address("1"))
    hub.connect(Address("2"))
    hub.register(first, ALICE)
    assert len(hub) == 2


def test_it_counts_what_was_routed_and_what_was_not() -> None:
    hub = Hub()
    hub.connect(TEMPORARY)
    hub.route(TEMPORARY)
    hub.route(ALICE)
    hub.route(ALICE)
    assert (hub.tally.routed, hub.tally.unroutable) == (1, 2)
