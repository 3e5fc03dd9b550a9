"""A message of v0, as far as the service reads it."""

from typing import ClassVar

import msgspec

from service.core.addresses import CheckedAddress
from service.core.depth import bounded
from service.core.odd_json import BOM, Disguise, OddError, has_constants


class Envelope(msgspec.Struct, gc=False):
    """The part of a message of v0 that the service reads.

    `message` is checked to be JSON, and never built: width costs nothing.
    """

    recipient_uuid: CheckedAddress
    message: msgspec.Raw

    is_json: ClassVar[bool] = True
    """Whether it may be passed on to clients of nc.v1, which get nothing but JSON."""


class PythonEnvelope(Envelope, gc=False):
    """One with `NaN` or `Infinity` in it, which Python's encoder writes and its decoder reads."""

    is_json: ClassVar[bool] = False


read_envelope = bounded(msgspec.json.Decoder(Envelope).decode)
_read_python_envelope = bounded(msgspec.json.Decoder(PythonEnvelope).decode)


def read_odd_envelope(text: bytes) -> Envelope:
    """The same of a text that `read_envelope` has failed at, slowly.

    Raises:
        OddError: it is a message, or looks like one, and cannot be passed on.
        ValueError: it is not a message.
    """
    disguise = Disguise(text)
    try:
        envelope = disguise.undo(read_envelope(disguise.text))
    except OddError:
        raise
    except RecursionError:
        raise OddError("it is nested too deep") from None
    except ValueError:
        if has_constants(text):
            disguise = Disguise(text, constants=True)
            return disguise.undo(_read_python_envelope(disguise.text))
        if text.startswith(BOM):
            read_envelope(text.removeprefix(BOM))
            raise OddError("it begins with a byte order mark") from None
        raise
    return envelope


def open_envelope(text: bytes) -> Envelope:
    """The same of a text that was read before, perhaps by another worker.

    Raises:
        OddError: it was nested nearly too deep, and now it is: that depends on what else is on the stack.
    """
    try:
        return read_envelope(text)
    except (ValueError, RecursionError):
        return read_odd_envelope(text)
