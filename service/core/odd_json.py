"""Reads what the fast decoder refuses, and real encoders write all the same.

A text that was cut inside an emoji ends in half of a surrogate pair, which JavaScript and Python write as an escape,
such as `\\ud83d`: RFC 8259 allows it (section 8.2), but no text in UTF-8 can hold it. Python also writes `NaN` and
`Infinity`, which are not JSON. Other characters replace all these while the fast decoder reads. So the text that is
passed on is exactly what the client wrote.

It is slower than the decoder alone: it is asked only when that has failed, and the client pays for it. No loop of
Python runs over the text, except over its first `MAX_TOKENS` in search of an id.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from service.core.depth import bounded
from service.core.frames import Id

Read = TypeVar("Read")
Request = TypeVar("Request", bound=msgspec.Struct)

ODD_BYTES_PER_SECOND = 2**18
"""How much of this a client may have read in a second, if it sends nothing else."""

MAX_ODD_BYTES = ODD_BYTES_PER_SECOND
"""Nothing longer is read so slowly: nobody else is served meanwhile, and of 16 MiB for so long that a worker counts as
stuck.
"""

MAX_TOKENS = 10_000
# More than any id has, however it is escaped.
_MAX_VALUE_BYTES = 1000

BOM = b"\xef\xbb\xbf"
_HEX = b"[0-9a-fA-F]{2}"
_HIGH, _LOW = rb"\\u[dD][89abAB]" + _HEX, rb"\\u[dD][c-fC-F]" + _HEX
# A high one that no low one follows, or a low one that follows on no high one.
_half = re.compile(rb"\\u(?=[dD][89abAB]%b(?!%b))|(?<!%b)\\u(?=[dD][c-fC-F]%b)" % (_HEX, _LOW, _HIGH, _HEX))
# Not beside characters that make something else of it: that stays as wrong as it is.
_nan = re.compile(rb"(?<![\w.+\\-])NaN(?![\w.])")
_infinity = re.compile(rb"(?<![\w.+\\-])(-?)Infinity(?![\w.])")

_string = rb'"[^"\\]*(?:\\.[^"\\]*)*'
_token = re.compile(_string + rb'(?:"|\\?\Z)|[\[{]+|[\]}]+', re.DOTALL)
_value = re.compile(rb"\s*:\s*(" + _string + rb'"|-?[0-9]+(?![0-9.eE]))', re.DOTALL)

_DIGITS = frozenset(f"{number:03}" for number in range(1000))

_read_any = bounded(msgspec.json.Decoder(msgspec.Raw).decode)
_read_id = msgspec.json.Decoder(Id).decode


class OddError(ValueError):
    """A text cannot be read, or not be passed on; the message says why."""


class Disguise:
    """`text` is like the original, but the decoder can read it; the methods undo that in what it has read.

    Raises:
        OddError: there are no free characters left for it.
    """

    _half = ""

    def __init__(self, original: bytes, constants: bool = False) -> None:
        self._original = self.text = original
        self._constants = constants
        if not (constants or has_halves(original)):
            return
        free = sorted(_DIGITS - _taken(original, constants))[:4]
        if len(free) < 4:
            raise OddError("it has too many characters for private use")
        self._backslash, self._half, self._nan, self._infinity = free
        # With no escaped backslash left, every other backslash begins an escape.
        text = original.replace(rb"\\", _escape(self._backslash))
        text = _half.sub(_escape(self._half).replace(b"\\", rb"\\"), text)
        if constants:
            text = _nan.sub(_number(self._nan), text)
            text = _infinity.sub(rb"\g<1>" + _number(self._infinity), text)
        self.text = text

    def read(self, decode: Callable[[bytes], Read]) -> Read:
        """The result of a decoder for the text.

        Raises:
            OddError: it cannot be read even so.
        """
        try:
            return decode(self.text)
        except RecursionError:
            raise OddError("it is nested too deep") from None
        except msgspec.ValidationError as error:
            raise OddError(str(error)) from None
        except ValueError as error:
            raise OddError(self._why_not(error)) from None

    def _why_not(self, error: Exception) -> str:
        if self._original.startswith(BOM):
            return "it begins with a byte order mark"
        if has_constants(self._original):
            return "NaN and Infinity are not JSON"
        return str(error) if self.text == self._original else str(error).partition(" (byte ")[0]

    def raw(self, raw: msgspec.Raw) -> msgspec.Raw:
        """A part of the original, to the letter."""
        if not self._half:
            return raw
        part = self._with_constants(bytes(raw)).replace(_escape(self._backslash), rb"\\")
        return msgspec.Raw(part.replace(_escape(self._half), rb"\u"))

    def string(self, string: str) -> str:
        """A string of the original.

        Raises:
            OddError: it has half of a surrogate pair.
        """
        if not self._half:
            return string
        before, half, after = string.partition(_char(self._half))
        if half:
            raise OddError(rf"\u{after[:4]} is half of a surrogate pair, which only a message may have")
        return self._with_constants(before.encode()).decode().replace(_char(self._backslash), "\\")

    def _with_constants(self, part: bytes) -> bytes:
        if not self._constants:
            return part
        return part.replace(_number(self._nan), b"NaN").replace(_number(self._infinity), b"Infinity")

    def undo(self, request: Request) -> Request:
        """Put the original back into all that was read.

        Raises:
            OddError: a string other than the message has half of a surrogate pair.
        """
        for name in request.__struct_fields__:
            value = getattr(request, name)
            if isinstance(value, msgspec.Raw):
                setattr(request, name, self.raw(value))
            elif isinstance(value, str):
                setattr(request, name, self._named(name, value))
            elif isinstance(value, list):
                setattr(request, name, [self._named(name, each) for each in value])
        return request

    def _named(self, name: str, string: str) -> str:
        try:
            return self.string(string)
        except OddError as error:
            raise OddError(f"{name}: {error}") from None


# The replacements: a character for private use, from U+E000 to U+E999, or a number. Each has three digits of its own.
def _escape(digits: str) -> bytes:
    return rf"\ue{digits}".encode()


def _char(digits: str) -> str:
    return chr(int(f"e{digits}", 16))


def _number(digits: str) -> bytes:
    return f"7{digits}7".encode()


def _taken(original: bytes, constants: bool) -> set[str]:
    characters = (
        f"{ord(found.decode()):04x}"[1:] for found in set(re.findall(rb"\xee[\x80-\xa6][\x80-\xbf]", original))
    )
    escapes = re.findall(rb"\\u[eE]([0-9]{3})", original)
    numbers = []
    if constants:
        # Also those that a string has only when its escapes are read.
        numbers = re.findall(rb"(?=7([0-9]{3})7)", original + re.sub(rb"\\u003([0-9])", rb"\1", original))
    return {*characters, *(digits.decode() for digits in {*escapes, *numbers})}


def has_halves(text: bytes) -> bool:
    """Whether half of a surrogate pair may be in it."""
    return rb"\ud" in text or rb"\uD" in text


def read_json(text: bytes) -> msgspec.Raw:
    """A text of JSON, to the letter.

    Raises:
        OddError
    """
    try:
        return _read_any(text)
    except (ValueError, RecursionError):
        check_length(text)
        disguise = Disguise(text)
        return disguise.raw(disguise.read(_read_any))


def may_be_odd(text: bytes) -> bool:
    """Whether it is worth a slow look."""
    return has_halves(text) or b"NaN" in text or b"Infinity" in text


def check_length(text: bytes) -> None:
    """To be asked about what comes from outside before anything else here is.

    Raises:
        OddError: it is too long for a slow look.
    """
    if len(text) > MAX_ODD_BYTES and may_be_odd(text):
        raise OddError(f"it is not plain JSON, and longer than {MAX_ODD_BYTES} bytes")


def has_constants(text: bytes) -> bool:
    """Whether a text would be JSON if `NaN` and `Infinity` were, which are somewhere in it."""
    if b"NaN" not in text and b"Infinity" not in text:
        return False
    try:
        _read_any(Disguise(text, constants=True).text)
    except (ValueError, RecursionError, OddError):
        return False
    return True


def find_id(text: bytes) -> msgspec.Raw | None:
    """The id of a request that cannot be read, to the letter; None if none is found that could be sent back."""
    depth, found = 0, None
    for _, token in zip(range(MAX_TOKENS), _token.finditer(text, 0, MAX_ODD_BYTES), strict=False):
        first = token[0][:1]
        if first in b"[{":
            depth += len(token[0])
        elif first in b"]}":
            depth -= len(token[0])
        elif depth == 1 and token[0] == b'"id"':
            value = _value.match(text, token.end(), token.end() + _MAX_VALUE_BYTES)
            found = found if value is None else value[1]
    return msgspec.Raw(found) if found is not None and _is_id(found) else None


def _is_id(found: bytes) -> bool:
    try:
        Disguise(found).read(_read_id)
    except OddError:
        return False
    return True
