"""Bounds how deep JSON may be nested, the same on every Python.

The decoder ends at about a thousand levels under Python 3.11, and at tens of thousands under newer ones: what one
worker or recipient reads would be refused by another.
"""

import re
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

Read = TypeVar("Read")

MAX_DEPTH = 800

# To its end, or to that of the text: else each of many quotation marks would be looked at as the beginning of one.
_string = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_brackets = b"[]{}"
_others = bytes(set(range(256)) - set(_brackets))
_steps = bytes.maketrans(_brackets, bytes([1, 255, 1, 255]))  # 255 is -1 in a signed byte


def bounded(decode: Callable[[bytes], Read]) -> Callable[[bytes], Read]:
    """A decoder that raises RecursionError for what is nested deeper than `MAX_DEPTH`."""

    def read(text: bytes) -> Read:
        found = decode(text)  # first: what is wrong with it otherwise says more
        if len(text) > MAX_DEPTH and is_too_deep(text):
            raise RecursionError
        return found

    return read


def is_too_deep(text: bytes) -> bool:
    """Whether a text of JSON is nested deeper than `MAX_DEPTH`, at 2 to 4 ms for 64 KiB of brackets."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    steps = _string.sub(b"", text).translate(_steps, _others)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH
