"""The exceptions of a client."""


class ClientError(Exception):
    """Something that was asked for was not done."""


class RequestError(ClientError):
    """The answer is no. `code` is one of docs/protocol.md; `temporary`: the same may succeed later."""

    def __init__(self, code: int, reason: str, temporary: bool) -> None:
        self.code, self.reason, self.temporary = code, reason, temporary
        super().__init__(f"{reason} (error {code})")


class GoneError(ClientError):
    """The client has no connection and will not come back; the message says why."""
