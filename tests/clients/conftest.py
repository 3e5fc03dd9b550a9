"""The browser in which the clients and the pages are tested."""

from collections.abc import Iterator

import pytest

from tests.clients.chromium import Browser, chromium


@pytest.fixture(scope="module")
def running_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser
