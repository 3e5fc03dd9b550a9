"""Who a client has proved to be, and what that allows. Pure; `service.tokens` checks the proof."""

from collections.abc import Callable, Iterable

import msgspec

from service.core.addresses import Address

GROUP = "group:"
"""The prefix of a permission to join and to address a group, before the group's name."""


class TokenError(Exception):
    """A token that proves nothing; the message is for the client. `expired`: a newer one may do."""

    def __init__(self, what: str, expired: bool = False) -> None:
        self.expired = expired
        super().__init__(what)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The bearer of a token.

    `subject` is the one address it may register. `may_send_to` has addresses, groups as `group:NAME`, or `*` for all.
    `expires` is in seconds since the epoch.
    """

    subject: Address
    may_send_to: frozenset[str]
    expires: float

    def may_send(self, permission: str) -> bool:
        return permission in self.may_send_to or "*" in self.may_send_to


Verify = Callable[[str], Identity]
"""From a token to its bearer.

Raises:
    TokenError
"""


def bearer_tokens(authorizations: Iterable[str]) -> list[str]:
    """The tokens in these values of `Authorization`."""
    schemes = (value.partition(" ") for value in authorizations)
    return [token.strip() for scheme, _, token in schemes if scheme.lower() == "bearer"]
