"""How the log is written: one line for each event, whatever is in it, as plain text or as JSON.

Strangers choose part of what is logged: an origin, an address, a path. So nothing in a line can end it or control a
terminal, and no line is longer than the journal takes.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime, timezone

from service.process.journal import is_journal, prefix
from service.settings import Log

MAX_VALUE = 200
MAX_MESSAGE = 2000
MAX_TRACEBACK = 8000

# They log requests with their query, and at `debug` every frame: neither is ours to keep.
_TOO_TALKATIVE = ("uvicorn.error", "uvicorn.access", "websockets.server")

_logger = logging.getLogger("service")


def configure_logging(log: Log) -> None:
    """Log everything to one stream, stderr; called again, the new settings apply."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log, handler.stream))
    logging.basicConfig(level=log.level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").addFilter(_no_descriptors.filter)


def formatter(log: Log, stream: object = None) -> logging.Formatter:
    """The formatter for this stream; the journal needs priorities, and has the time itself."""
    journal = is_journal(stream)
    lines = JsonFormatter() if log.format == "json" else PlainFormatter(has_time=not journal)
    return _JournalFormatter(lines) if journal else lines


def tell(event: str, facts: Mapping[str, object]) -> None:
    """Log an event and its facts."""
    _logger.info(event, extra={"facts": facts})


def is_told() -> bool:
    """Whether the log takes what `tell` says."""
    return _logger.isEnabledFor(logging.INFO)


def keep_requests_out() -> None:
    """Keep queries, header fields and frames out of the log, at every level and however the log is configured."""
    for name in _TOO_TALKATIVE:
        logging.getLogger(name).addFilter(_without_requests)
    for each in (_full, _no_library):
        logging.getLogger("uvicorn.error").addFilter(each.filter)


# Their messages, mostly with a traceback, about what is not HTTP or not a message, or whose sender has gone.
_OF_STRANGERS = {
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "Invalid UTF-8 sequence received from client.",
    "opening handshake failed",
    "unexpected internal error",
    "parser failed",
}


def _without_requests(record: logging.LogRecord) -> bool:
    if record.msg in _OF_STRANGERS:  # anybody could fill the log
        return False
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return record.levelno >= logging.INFO


class _Seldom:
    """Lets one record through in each period of those whose message begins like this."""

    def __init__(self, beginning: str, period_s: float) -> None:
        self._beginning = beginning
        self._period_s = period_s
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(self._beginning):
            return True
        is_due = record.created >= self._next
        if is_due:
            self._next = record.created + self._period_s
        return is_due


# While no descriptor is free, asyncio tries to accept a connection as often as the backlog is long, every second. It
# logs each attempt with a traceback: three megabytes a second.
_no_descriptors = _Seldom("socket.accept() out of system resource", 1)
# uvicorn has a line for each request that is refused while there are as many connections as allowed, and for each offer
# of a WebSocket to an application without a library for them.
_full = _Seldom("Exceeded concurrency limit", 60)
_no_library = _Seldom("No supported WebSocket library", 3600)


class PlainFormatter(logging.Formatter):
    """Time, level, logger and message, then the facts as `name=value`."""

    def __init__(self, has_time: bool = True) -> None:
        super().__init__()
        self._has_time = has_time

    def format(self, record: logging.LogRecord) -> str:
        line = [self.formatTime(record)] if self._has_time else []
        line += [record.levelname, f"{record.name}:", _shown(record.getMessage(), MAX_MESSAGE)]
        line += [f"{name}={_word(value)}" for name, value in _facts(record).items()]
        if record.exc_info:
            line.append(_shown(self.formatException(record.exc_info)[-MAX_TRACEBACK:], MAX_TRACEBACK))
        return " ".join(line)


class JsonFormatter(logging.Formatter):
    """One object: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and the facts beside them."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage(), MAX_MESSAGE),
        }
        line |= {
            name: _cut(value, MAX_VALUE) if isinstance(value, str) else value for name, value in _facts(record).items()
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_TRACEBACK:]
        # JSON itself escapes no more than U+0000 to U+001F.
        return json.dumps(line).replace("\x7f", "\\u007f")


class _JournalFormatter(logging.Formatter):
    """The line of another, with its priority in front."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        return prefix(record.levelno) + self._lines.format(record)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts: Mapping[str, object] = getattr(record, "facts", {})
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _word(value: object) -> str:
    """One word: quoted if it contains blanks, quotes or equals signs."""
    text = _shown(str(value), MAX_VALUE)
    return json.dumps(text) if set(text) & set(' "=') else text


def _shown(text: str, most: int) -> str:
    text = _cut(text, most)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
