"""What plain HTTP is answered."""

import pytest

from service.core.plain_http import FULL, NOT_FOUND, passed_on


def test_a_wrong_address_is_not_found() -> None:
    assert (NOT_FOUND.status, NOT_FOUND.body) == (404, b"WebSocket endpoint only")
    assert dict(NOT_FOUND.headers) == {"content-type": "text/plain; charset=utf-8", "content-length": "23"}


def test_one_client_too_many_is_told_when_to_come_back() -> None:
    assert FULL.status == 503
    assert dict(FULL.headers)["retry-after"] == "5"


@pytest.mark.parametrize(
    ("names", "through_a_proxy"),
    [([], False), (["host", "via"], False), (["host", "x-forwarded-for"], True), (["forwarded"], True)],
)
def test_a_proxy_betrays_itself_by_naming_the_client(names: list[str], through_a_proxy: bool) -> None:
    assert passed_on(names) is through_a_proxy
