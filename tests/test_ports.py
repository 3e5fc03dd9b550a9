"""The ports of tests are nobody else's."""

import socket

import pytest

from tests.ports import RANGE, free_port, is_free, share


def test_no_outgoing_connection_is_given_the_port_of_a_server() -> None:
    first, last = map(int, RANGE.read_text().split())
    assert not any(first <= free_port() <= last for _ in range(100))


def test_a_port_is_given_once() -> None:
    assert len({free_port() for _ in range(100)}) == 100


def test_processes_side_by_side_have_no_port_in_common() -> None:
    shares = [
        share((32_768, 60_999), {"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "6"})
        for number in range(6)
    ]
    assert sum(map(len, shares)) == len(set().union(*shares)) == 32_768 - 10_240
    assert min(map(len, shares)) > 3000


def test_where_the_kernel_gives_all_low_ports_away_the_high_ones_are_taken() -> None:
    assert share((1024, 60_999), {}) == range(61_000, 65_536)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_on_which_somebody_listens_is_not_free(address: str) -> None:
    port = free_port()
    with socket.create_server((address, port)):
        assert not is_free(port)
    assert is_free(port)
