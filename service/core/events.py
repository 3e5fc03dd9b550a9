"""What the log says about clients, in the same words under every shell; never their messages, and never a token.

Pure: the function that writes a line is passed in.
"""

from collections.abc import Callable, Mapping, Sequence

from service.core.addresses import Address
from service.core.close_codes import CloseReason

Tell = Callable[[str, Mapping[str, object]], None]
"""Takes an event, and its facts by name."""


def tell_nobody(event: str, facts: Mapping[str, object]) -> None:
    """Logs nothing."""


class Events:
    """The life of a client. `uuid` is its temporary one, by which the lines of one client are found."""

    def __init__(self, tell: Tell = tell_nobody, is_heard: Callable[[], bool] = lambda: True) -> None:
        """Where it is not heard, nothing is put together to be told: most logs say no more than warnings."""
        self._tell = tell
        self._is_heard = is_heard

    def refused(self, status: int, client_address: str | None, origins: Sequence[str]) -> None:
        """A handshake was answered with a status other than 101."""
        if self._is_heard():
            self._tell("refused", {"status": status, "address": client_address, "origin": " ".join(origins)})

    def connected(self, uuid: Address, protocol: str, client_address: str | None, origins: Sequence[str]) -> None:
        """A client has come; `client_address` is None for a program of this host."""
        if self._is_heard():
            facts = {"uuid": uuid, "protocol": protocol, "address": client_address, "origin": " ".join(origins)}
            self._tell("connected", facts)

    def registered(self, uuid: Address, address: Address) -> None:
        """A client has got an address."""
        if self._is_heard():
            self._tell("registered", {"uuid": uuid, "registered": address})

    def closed(self, uuid: Address, reason: CloseReason | None, seconds: float) -> None:
        """A client has gone; `reason` is why the service closed it, None when it left or was lost."""
        if self._is_heard():
            code = {} if reason is None else {"code": reason.code, "reason": reason.reason}
            self._tell("closed", {"uuid": uuid, **code, "seconds": round(seconds, 3)})
