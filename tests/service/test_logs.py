"""The log: one line for each event, whatever is in it."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service.process.logs import MAX_MESSAGE, MAX_VALUE, formatter, keep_requests_out
from service.settings import Log

HOSTILE = 'a\nb\rc\x1b[2Jd\u2028e\x85f\x7fg\u202eh\x00i "=" é'


def written(log_format: Any, message: str, *args: object, **facts: object) -> str:
    """The line of a record, as it stands in the log."""
    record = logging.LogRecord("service", logging.INFO, "", 0, message, args, None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    record.facts = facts
    return formatter(Log(format=log_format)).format(record)


def raised(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except type(error):
        return logging.LogRecord("service", logging.ERROR, "", 0, "it failed", (), sys.exc_info())


def test_a_plain_line_has_the_time_the_level_the_logger_and_the_facts() -> None:
    line = written("plain", "closed", uuid="u-1", code=1012, reason="service restart", seconds=2.5, address=None)
    assert re.fullmatch(r"[0-9-]{10} [0-9:]{8},250 INFO service: (.*)", line)
    assert line.endswith(' INFO service: closed uuid=u-1 code=1012 reason="service restart" seconds=2.5')


def test_a_line_of_json_has_them_as_keys_and_the_time_in_utc() -> None:
    line = written("json", "closed after %d", 3, uuid="u-1", code=1012, address=None, origin="")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "service",
        "message": "closed after 3",
        "uuid": "u-1",
        "code": 1012,
    }


@pytest.mark.parametrize("log_format", ["plain", "json"])
@pytest.mark.parametrize("where", ["message", "argument", "fact"])
def test_nothing_in_a_line_can_end_it_or_reach_the_terminal(log_format: str, where: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "message": {"message": HOSTILE},
        "argument": {"message": "%s", "args": (HOSTILE,)},
        "fact": {"message": "x", "origin": HOSTILE},
    }
    given = cases[where]
    line = written(log_format, given.pop("message"), *given.pop("args", ()), **given)
    assert line.isprintable()
    assert len(line.splitlines()) == 1


def test_json_gives_back_to_the_letter_what_was_said() -> None:
    assert json.loads(written("json", HOSTILE, origin=HOSTILE))["origin"] == HOSTILE


def test_a_fact_cannot_forge_another() -> None:
    assert written("plain", "connected", origin='x" code=1 y=').endswith(r'connected origin="x\" code=1 y="')


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_line_has_a_length_that_nobody_else_decides(log_format: str) -> None:
    line = written(log_format, "\x1b" * 100_000, origin="\x00" * 100_000)
    assert len(line) < 6 * (MAX_MESSAGE + MAX_VALUE) + 200
    assert "x" * MAX_VALUE not in written(log_format, "connected", origin="x" * 1000)


@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_a_traceback_is_in_the_line_of_its_event(log_format: Any) -> None:
    line = formatter(Log(format=log_format)).format(raised(ValueError("a\nforged line")))
    assert len(line.splitlines()) == 1
    assert "it failed" in line
    assert r"ValueError: a\nforged line" in line


@pytest.fixture
def uvicorn_log() -> Iterator[io.StringIO]:
    """What uvicorn's loggers write, as somebody else has configured them."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "uvicorn.access", "websockets.server")]
    before = [(each.level, each.propagate) for each in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    keep_requests_out()
    yield stream
    for logger, (level, propagate) in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def test_no_query_reaches_the_log_whoever_configured_it(uvicorn_log: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "192.0.2.1:1", "/chat?token=SECRET")
    logging.getLogger("uvicorn.access").info('%s - "%s %s"', "192.0.2.1:1", "GET", "/health?token=SECRET")
    assert uvicorn_log.getvalue() == '192.0.2.1:1 - "WebSocket /chat" [accepted]\n192.0.2.1:1 - "GET /health"\n'


def test_no_frame_reaches_the_log_at_any_level(uvicorn_log: io.StringIO) -> None:
    for name in ("uvicorn.error", "websockets.server"):
        logging.getLogger(name).debug("< TEXT '%s'", "SECRET")
        logging.getLogger(name).warning("a warning")
    assert uvicorn_log.getvalue() == "a warning\na warning\n"
