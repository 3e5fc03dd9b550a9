"""What a host with an engine logs of its loop's own faults."""

import asyncio
import logging
from typing import Any

import pytest

from service.engine.hosts import _report


@pytest.mark.parametrize(
    ("message", "exception", "is_logged"),
    [
        ("Fatal error on SSL protocol", RuntimeError("unable to perform operation; the handler is closed"), False),
        ("Fatal error on SSL protocol", ValueError("ours"), True),
        ("Task exception was never retrieved", RuntimeError("ours"), True),
        ("Fatal error on transport", None, True),
    ],
)
def test_only_the_end_of_a_tls_connection_is_left_out(
    message: str, exception: Exception | None, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    context: dict[str, Any] = {"message": message, **({"exception": exception} if exception else {})}
    loop = asyncio.new_event_loop()
    try:
        with caplog.at_level(logging.ERROR):
            _report(loop, context)
    finally:
        loop.close()
    assert bool(caplog.records) == is_logged
