"""Random UUIDs, for which the system is asked once in a hundred.

Source: RFC 9562, section 5.4.
"""

import os

_AT_ONCE = 100
# The first two bits of the variant are 10, the others random.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class Uuids:
    """UUIDs of version 4 as text. `str(uuid4())` costs four times as much."""

    def __init__(self) -> None:
        self._drawn: list[str] = []
        os.register_at_fork(after_in_child=self._drawn.clear)  # or parent and child would have the same ones

    def draw(self) -> str:
        """One that was not drawn before, and that nobody can guess."""
        if not self._drawn:
            digits = os.urandom(16 * _AT_ONCE).hex()
            self._drawn += [_uuid(digits[at : at + 32]) for at in range(0, len(digits), 32)]
        return self._drawn.pop()


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
