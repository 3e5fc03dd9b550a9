"""The frames of nc.v1 as text, and the numbers that client and service share."""

import json
import re
from functools import partial
from typing import Any

from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("nc.v1")

# The longest message that a service can be configured to accept, and what is around it.
MAX_FRAME_BYTES = 17 * 1024 * 1024
MAX_UUID_LENGTH = 128
# As the service has them in `service.core.frames`.
MAX_ASKED_FOR = 100
# The close codes of a service that refuses a message: sending it again would end the same way.
NOT_TAKEN = (1003, 1007, 1009)
LIMIT, BAD_REQUEST, TOKEN_EXPIRED, IN_USE, QUEUE_FULL = 106, 107, 109, 113, 115


def encode(frame: dict[str, Any]) -> bytes:
    """A frame as it goes over the wire.

    Raises:
        ValueError: it cannot be written as JSON.
    """
    dumps = partial(json.dumps, frame, allow_nan=False, separators=(",", ":"))
    try:
        return dumps(ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can represent
        return dumps().encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def decode(text: str | bytes) -> dict[str, Any]:
    """A frame as it came over the wire.

    Raises:
        ValueError: it is not an object of JSON.
        RecursionError: it is nested too deep.
    """
    frame: dict[str, Any] = json.loads(text, parse_int=_integer, parse_constant=_refuse)
    if not isinstance(frame, dict):
        raise ValueError("not an object")
    return frame


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python refuses to read more than some thousands of digits
        return float(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # but Python reads it


_space = re.compile(r"\s*")
_member = re.compile(r'[{,]\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_value = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def spelled(text: str, name: str) -> str:
    """How the value of a key is spelled in an object of JSON."""
    found, at = "", text.index("{")
    while member := _member.match(text, at):
        _, end = _value(text, member.end())
        if json.loads(member[1]) == name:
            found = text[member.end() : end]
        at = end + len(_space.match(text, end)[0])  # type: ignore[index]
    return found
